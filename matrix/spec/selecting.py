"""Which environments and roles a spec selects: by name, by a pattern of names, by facts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

import msgspec
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from matrix.spec.axes import requirement_problem
from matrix.spec.tables import Environment, ErrorAt, Facts
from matrix.spec.versions import parsed


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern takes a name in and none, written with a "!" before it, leaves it out."""
    taken_out = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    taken_in = [pattern for pattern in patterns if not pattern.startswith("!")]
    return any(fnmatchcase(name, pattern) for pattern in taken_in) and not any(
        fnmatchcase(name, pattern) for pattern in taken_out
    )


def chosen(
    name: str, environment: Environment, suffix: str, choices: Sequence[str | Facts]
) -> bool:
    """Whether a part of a profile takes in a role: by a pattern of its name, or by facts."""
    patterns = [choice for choice in choices if isinstance(choice, str)]
    all_facts = [choice for choice in choices if isinstance(choice, Facts)]
    if not any(has(environment, facts, suffix) for facts in all_facts):
        return matches(name, patterns)
    left_out = [pattern for pattern in patterns if pattern.startswith("!")]
    return matches(name, ["*", *left_out])


def selected(environment: Environment, choice: str | Facts) -> bool:
    """Whether a role is for an environment, whatever device it has."""
    if isinstance(choice, str):
        return fnmatchcase(environment.name, choice)
    return has(environment, choice)


def has(environment: Environment, facts: Facts, suffix: str | None = None) -> bool:
    """Whether an environment, and the suffix of a role of it, have all that is given."""
    first, others = environment.requirements[:1], environment.requirements[1:]
    return (
        (not facts.package or _any_satisfies(first, facts.package))
        and all(_any_satisfies(others, wanted) for wanted in facts.beside)
        and not any(_any_satisfies([*first, *others], unwanted) for unwanted in facts.without)
        and facts.device in (None, environment.device)
        and facts.resolution in (None, environment.resolution)
        and facts.group in (None, environment.group)
        and all(
            axis in environment.axes and _within(environment.axes[axis], specifier)
            for axis, specifier in facts.axes.items()
        )
        and (facts.suffix is None or suffix in facts.suffix)
    )


def _any_satisfies(requirements: Sequence[str], wanted: str) -> bool:
    return any(_satisfies(requirement, wanted) for requirement in requirements)


@lru_cache(maxsize=100_000)
def _satisfies(requirement: str, wanted: str) -> bool:
    """Whether what an environment requires, such as ``a==1.2``, is within ``a>=1``."""
    given, bounds = Requirement(requirement), Requirement(wanted)
    if canonicalize_name(given.name) != canonicalize_name(bounds.name):
        return False
    versions = [bound.version for bound in given.specifier if bound.operator == "=="]
    if not versions:
        return not bounds.specifier
    return bounds.specifier.contains(versions[0], prereleases=True)


@lru_cache(maxsize=10_000)
def _within(value: str, specifier: str) -> bool:
    version = parsed(value)
    return version is not None and SpecifierSet(specifier).contains(version, prereleases=True)


def check_facts(error: ErrorAt, key: str, facts: Facts) -> None:
    """Raise :class:`SpecError` where facts cannot be understood, or none is given."""
    if facts == Facts():
        raise error(key, "no fact is given", 'Write one, such as package = "vllm>=0.8"')
    for field, items in (
        ("package", [facts.package] if facts.package else []),
        ("beside", facts.beside),
        ("without", facts.without),
    ):
        for item in items:
            if problem := requirement_problem(item):
                raise error(
                    f"{key}.{field}", f"{item[:200]!r} is no requirement ({problem})",
                    "Write it as pip does, transformers>=5",
                )  # fmt: skip
    for axis, specifier in facts.axes.items():
        try:
            SpecifierSet(specifier)
        except InvalidSpecifier:
            raise error(
                f"{key}.axes.{axis}", f"{specifier!r} is no specifier",
                "Write it as pip does, >=0.20,<0.33",
            ) from None  # fmt: skip


def in_words(facts: Facts) -> str:
    """Return facts as a spec has them, in a line."""
    given = {
        name: value
        for name, value in msgspec.structs.asdict(facts).items()
        if value not in (None, "", [], {}) or (name in ("group", "suffix") and value is not None)
    }
    return ", ".join(f"{name} = {value!r}" for name, value in given.items())
