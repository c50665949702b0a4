"""Which cells and environments of a profile a user means, and what a shell offers of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, NoReturn

import typer

from matrix.cli.options import fail
from matrix.plan.cells import Plan, make_plan
from matrix.run.context import Settings
from matrix.spec.loading import load
from matrix.spec.tables import SpecError

NEAR = 3
"""How many names are suggested in place of one that there is not."""


def chosen_cells(plan: Plan, patterns: Iterable[str]) -> list[str]:
    """Return the ids of cells that patterns name; end where one of them names none."""
    return _chosen(plan.profile, "cell", [cell.id for cell in plan.cells], patterns)


def chosen_environments(plan: Plan, patterns: Iterable[str]) -> list[str]:
    """Return the environments that patterns name; end where one of them names none."""
    return _chosen(plan.profile, "environment", list(plan.environments), patterns)


def _chosen(profile: str, kind: str, names: list[str], patterns: Iterable[str]) -> list[str]:
    wanted: set[str] = set()
    for pattern in patterns:
        matching = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not matching:
            fail_unknown(profile, kind, names, pattern)
        wanted.update(matching)
    return [name for name in names if name in wanted]


def fail_unknown(profile: str, kind: str, names: Iterable[str], name: str) -> NoReturn:
    """End with one line: a profile has no such cell or environment, and which are near."""
    hint = f"`matrix plan --profile {profile} --cells` lists the ids"
    fail(f"profile {profile!r} has no {kind} {name!r}. {did_you_mean(name, list(names))}{hint}")


def did_you_mean(name: str, names: list[str]) -> str:
    """Return a question after the names that are near one, or the patterns; empty without any."""
    near = "*" in name and _near_patterns(name, names)
    near = near or get_close_matches(name, names, NEAR)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def _near_patterns(pattern: str, names: list[str]) -> list[str]:
    """Return patterns that name something, with a word near the first that names nothing."""
    words = sorted({word for name in names for word in name.split("/")})
    for wrong in pattern.split("/"):
        if not any(fnmatchcase(word, wrong) for word in words):
            near = get_close_matches(wrong.strip("*"), words, NEAR)
            patterns = [pattern.replace(wrong, word, 1) for word in near]
            return [p for p in patterns if any(fnmatchcase(name, p) for name in names)]
    return []


def complete_cell(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the ids of cells that begin with a text, for a shell."""
    plan = _planned(ctx.params)
    return (cell.id for cell in (plan.cells if plan else []) if cell.id.startswith(incomplete))


def complete_environment(ctx: typer.Context, incomplete: str) -> Iterator[str]:
    """Yield the environments that begin with a text, for a shell."""
    plan = _planned(ctx.params)
    return (name for name in (plan.environments if plan else ()) if name.startswith(incomplete))


def _planned(options: dict[str, Any]) -> Plan | None:
    """Return the plan of the profile that options name; ``None`` where there is no such one."""
    settings = Settings.of(spec=options.get("spec"), profile=options.get("profile"))
    try:
        return make_plan(load(settings.spec), settings.profile)
    except (SpecError, OSError):
        return None
