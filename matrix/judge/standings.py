"""How an environment stands: declared, resolves, works; as pinned, as released, as of today. Pure.

Three answers that differ more often than not. **Declared** is what the metadata of the releases
that an environment names says of each other and of its Python. **Resolves** is whether the resolver
finds a set of packages. **Works** is what came of running just that set, in whatever resolution or
environment it was built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec
from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from matrix.judge.results import NOT_RUN, CellResult, Declared, Standing
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.spec.loading import LoadedSpec
from matrix.spec.releases import Snapshot, parsed
from matrix.spec.tables import Environment, MetadataTable, Resolution

StandsAs = Literal["quantizer", "engine"]
Declares = Callable[[str, str], list[str] | None]
"""From a package and a version to its Requires-Dist, ``None`` where that is not known."""

_SHOWN = ("transformers", "torch")
"""Packages that are told of every set, whoever brought them."""
MOVED = "resolved to other packages"
"""How a difference begins that is to be expected: packages that others brought moved on."""
PATCHES = 50
"""No minor of CPython had as many patches."""
_GOOD = (Verdict.WORKS.value, Verdict.DEGRADED.value)
_BAD = (Verdict.BROKEN.value, Verdict.GARBAGE.value)
_LOCAL = re.compile(r"\+[A-Za-z0-9._-]+")
_BEFORE_IT_RUNS = tuple(
    stage.value for stage in Stage if stage.value.endswith(("-install", "-import"))
)


class Solution(msgspec.Struct, frozen=True):
    """What the resolver answered: all packages with versions, or a refusal."""

    packages: dict[str, str]
    """Canonical name -> version."""
    refusal: str = ""


ReadSolution = Callable[[Environment], Solution | None]
"""From an environment in a resolution to what its lock says; ``None`` where it has none."""


class Ran(NamedTuple):
    """What came of an environment that was built from one set of packages."""

    environment: Environment
    packages: dict[str, str]
    works: str
    stage: str = ""
    message: str = ""


class Known(NamedTuple):
    """What is known of releases beforehand: the snapshot, and the spec's metadata."""

    snapshot: Snapshot
    metadata: Sequence[MetadataTable] = ()

    def declares(self, package: str, version: str) -> list[str] | None:
        """Return a release's Requires-Dist, ``None`` where it is not known."""
        return self.snapshot.declares(package, version, self.metadata)

    def versions(self, package: str) -> list[str]:
        """Return the versions of a package that can be had: neither yanked nor pre-releases."""
        found = self.snapshot.packages.get(package, [])
        usable = (one for one in found if one.yanked is None and not one.gone)
        return [
            one.version
            for one in usable
            if (version := parsed(one.version)) and not version.is_prerelease
        ]

    def requires_python(self, package: str, version: str) -> str:
        """Return a release's Requires-Python, empty where it is not known."""
        found = self.snapshot.release(package, version)
        return found.requires_python if found else ""

    def yanked(self, packages: Mapping[str, str]) -> dict[str, str]:
        """Return those of some packages that are known to be yanked, with the reasons."""
        found = ((f"{n} {v}", self.snapshot.release(n, v)) for n, v in sorted(packages.items()))
        return {
            name: release.yanked
            for name, release in found
            if release is not None and release.yanked is not None
        }


def named(environment: Environment) -> dict[str, str]:
    """Return canonical name -> version of the releases that an environment names.

    An override such as ``torch==2.13.0`` names one too: it is what is installed.
    """
    found: dict[str, str] = {}
    for requirement in applying([*environment.requirements, *environment.overrides]):
        exact = [each.version for each in requirement.specifier if each.operator == "=="]
        if exact and parsed(exact[0]):
            found[canonicalize_name(requirement.name)] = exact[0]
    return found


def applying(requires: Iterable[str], python: str = "3.11") -> list[Requirement]:
    """Return those requirements that hold on Linux x86_64 with no extra asked for.

    What cannot be read is passed over.
    """
    found = (_applying(text, python) for text in requires)
    return [requirement for requirement in found if requirement is not None]


@lru_cache(maxsize=10_000)
def _applying(text: str, python: str) -> Requirement | None:
    machine = {
        "extra": "",
        "python_version": ".".join(python.split(".")[:2]),
        "python_full_version": python if python.count(".") > 1 else f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    try:
        requirement = Requirement(text)
        holds = requirement.marker is None or requirement.marker.evaluate(machine)
    except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName):
        return None
    return requirement if holds else None


def declared(environment: Environment, known: Known) -> tuple[Declared, str]:
    """Return what the named releases say of each other and of the Python, and who says it."""
    releases = named(environment)
    allows, forbids, unknown = [], [], []
    for package, version in releases.items():
        python = known.requires_python(package, version)
        if python and not _admits(python, environment.python):
            forbids.append(f"{package} {version} wants Python {python}, not {environment.python}")
        requires = known.declares(package, version)
        if requires is None:
            unknown.append(f"{package} {version}")
            continue
        for other in applying(requires, environment.python):
            name = canonicalize_name(other.name)
            if name not in releases or not other.specifier:
                continue
            said = f"{package} {version} wants {name}{other.specifier}"
            # A local label, as in ``==2.13.0+cpu``, names a build of that version.
            if _contains(_LOCAL.sub("", str(other.specifier)), releases[name]):
                allows.append(said)
            else:
                forbids.append(f"{said}, not {releases[name]}")
    if forbids:
        return "forbidden", "; ".join(forbids)
    if allows:
        return "allowed", "; ".join(allows)
    if unknown:
        return "unknown", f"no metadata of {', '.join(unknown)}"
    return "not said", ""


def _contains(specifier: str, version: str) -> bool:
    try:
        return SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True  # installers ignore it as well


def _admits(requires_python: str, python: str) -> bool:
    """Whether a Python may be used: of ``3.11``, any patch of it."""
    if python.count(".") > 1:
        return _contains(requires_python, python)
    return any(_contains(requires_python, f"{python}.{patch}") for patch in range(PATCHES))


def works(cells: Sequence[CellResult], role: StandsAs) -> tuple[str, str, str]:
    """Return the best that an environment came to in a role: word, stage, message.

    ``not run`` where all of its cells end by another's fault, or could not be run here.
    """
    order = list(Verdict)
    own = sorted(own_cells(cells, role), key=lambda cell: order.index(cell.verdict))
    if not own or own[0].verdict in (Verdict.UNTESTED, Verdict.INFRA):
        return NOT_RUN, "", ""
    best = own[0]
    return best.verdict.value, best.stage.value if best.stage else "", best.message


def own_cells(cells: Iterable[CellResult], role: StandsAs) -> list[CellResult]:
    """Return those of an environment's cells whose end is not the other side's fault."""
    others = {
        "quantizer": {Blame.ENGINE},
        "engine": {Blame.QUANTIZER, Blame.CHECKPOINT},
    }[role]
    return [cell for cell in cells if cell.blame not in others]


def standing(
    environment: Environment, answer: Solution | None, ran: Iterable[Ran], known: Known
) -> Standing:
    """Return how an environment (in one resolution) stands.

    Args:
        environment: It, spelled out in the resolution.
        answer: What the resolver said of it; ``None`` where it was not asked.
        ran: What was run, of this environment and of others.
        known: What is known of releases.
    """
    says, who = declared(environment, known)
    packages = answer.packages if answer else {}
    found = _ran_of(environment, packages, ran)
    shown = {name: packages[name] for name in (*named(environment), *_SHOWN) if name in packages}
    refused = answer is not None and bool(answer.refusal)
    return Standing(
        resolution=environment.resolution,
        cutoff=environment.cutoff,
        declared=says,
        declared_by=who,
        resolves="not asked" if answer is None else "no" if refused else "yes",
        refusal=answer.refusal if answer else "",
        packages=shown,
        others=len(packages) - len(shown),
        works=found.works if found else NOT_RUN,
        stage=found.stage if found else "",
        message=found.message if found else "",
        same_as=_same_as(found.environment, environment) if found else "",
        yanked=known.yanked({**named(environment), **packages}),
    )


def standings(
    loaded: LoadedSpec, name: str, read_solution: ReadSolution, ran: Sequence[Ran]
) -> list[Standing]:
    """Return how an environment of a spec stands in each resolution that it has.

    None where none was asked.
    """
    known = Known(loaded.snapshot, loaded.spec.metadata)
    asked = [(each, read_solution(each)) for each in loaded.resolutions(name)]
    if all(answer is None for _, answer in asked):
        return []
    return [standing(environment, answer, ran, known) for environment, answer in asked]


def _ran_of(environment: Environment, packages: dict[str, str], ran: Iterable[Ran]) -> Ran | None:
    """Return what was run with the same packages, Python, variables and device; its own first."""
    same = [
        each
        for each in ran
        if packages
        and each.packages == packages
        and each.works != NOT_RUN
        and _conditions(each.environment) == _conditions(environment)
    ]
    # Roles may depart for one environment and not for the other: its own name comes first.
    same.sort(key=lambda each: each.environment.name != environment.name)
    return same[0] if same else None


def _conditions(environment: Environment) -> tuple[str, str, dict[str, str]]:
    return environment.python, environment.device, environment.environ


def _same_as(ran: Environment, environment: Environment) -> str:
    if ran.name == environment.name:
        return "" if ran.resolution == environment.resolution else ran.resolution
    return f"{ran.name} ({ran.resolution})"


def new_releases(snapshot: Snapshot, environments: Iterable[Environment]) -> dict[str, str]:
    """Return the releases that environments name and that the last take took in, with its date.

    Of a package that was not tracked before that take, none is new.
    """
    # The snapshot is as old as its oldest answer; a release is marked with its own answer's date.
    last = snapshot.asked[:10]
    found: dict[str, str] = {}
    for package, version in (pair for each in environments for pair in named(each).items()):
        release = snapshot.release(package, version)
        if release is None or not last or release.seen < last:
            continue
        if any(one.seen < last for one in snapshot.packages[package]):
            found[f"{package} {version}"] = release.seen
    return found


def differences(standings: Iterable[Standing]) -> list[str]:
    """Return where an environment's standings differ from each other, in words; worst first."""
    at = {each.resolution: each for each in standings}
    then, now = at.get("released"), at.get("today")
    rotted = _rotted(then, now) if now else ""
    return [
        *([rotted] if rotted else []),
        *_forbidden(at),
        *_allowed({r: each for r, each in at.items() if not (rotted and r == "today")}),
        *_yanked(at),
        *(_moved(then, now) if then and now else []),
    ]


def _rotted(then: Standing | None, now: Standing) -> str:
    if now.resolves == "no" and then is not None and then.resolves == "yes":
        return "rotted: resolved as released, is refused today"
    if now.resolves != "yes" or now.works not in _BAD:
        return ""
    if now.stage in _BEFORE_IT_RUNS:
        what = f"today, but does not {now.stage.rpartition('-')[2]}"
        same = then is not None and (then.works, then.stage) == (now.works, now.stage)
        return f"resolves as released and {what}" if same else f"rotted: resolves {what}"
    if then is not None and then.works in _GOOD:
        return f"rotted: {then.works} as released, is {now.works} today at {now.stage}"
    return ""


def _forbidden(at: Mapping[Resolution, Standing]) -> list[str]:
    found = [
        f"forbidden by metadata, but {each.works}: {each.declared_by}"
        for each in at.values()
        if each.declared == "forbidden" and each.works in _GOOD
    ]
    return list(dict.fromkeys(found))


def _allowed(at: Mapping[Resolution, Standing]) -> list[str]:
    found: dict[str, list[str]] = {}
    for resolution, each in at.items():
        if each.declared == "allowed" and each.resolves == "no":
            found.setdefault("refused", []).append(_WHEN[resolution])
        elif each.declared == "allowed" and each.works in _BAD:
            found.setdefault(f"{each.works} at {each.stage}", []).append(_WHEN[resolution])
    return [f"allowed by metadata, but {how} {', '.join(when)}" for how, when in found.items()]


_WHEN: dict[Resolution, str] = {
    "pinned": "with our pins",
    "released": "as released",
    "today": "today",
}


def _yanked(at: Mapping[Resolution, Standing]) -> list[str]:
    found = {name: reason for each in at.values() for name, reason in each.yanked.items()}
    return [f"yanked: {name}" + (f" ({why})" if why else "") for name, why in found.items()]


def _moved(then: Standing, now: Standing) -> list[str]:
    if then.resolves != "yes" or now.resolves != "yes":
        return []
    moved = [
        f"{name} {then.packages.get(name, 'none')} then, {now.packages.get(name, 'none')} today"
        for name in dict.fromkeys([*then.packages, *now.packages])
        if then.packages.get(name) != now.packages.get(name)
    ]
    return [f"{MOVED}: {', '.join(moved)}"] if moved else []
