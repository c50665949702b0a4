"""Which requirements hold on Linux, and which releases an environment names by them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from matrix.spec.tables import Environment
from matrix.spec.versions import parsed


def named_releases(environment: Environment, *, overrides: bool = False) -> dict[str, str]:
    """Return canonical name -> version of the releases that an environment names by ``==``.

    An override such as ``torch==2.13.0`` names one too, as it is what is installed: it counts where
    ``overrides``.
    """
    texts = [*environment.requirements, *(environment.overrides if overrides else [])]
    releases: dict[str, str] = {}
    for requirement in applying(texts, environment.python):
        if version := exact_version(requirement):
            releases[canonicalize_name(requirement.name)] = version
    return releases


def exact_version(requirement: Requirement) -> str:
    """Return the one version that a requirement names by ``==``; empty where it names none.

    ``==4.51.*`` names many, and ``===`` a text that need be no version.
    """
    bounds = [bound for bound in requirement.specifier if bound.operator in ("==", "===")]
    exact = [bound.version for bound in bounds if bound.operator == "==" and parsed(bound.version)]
    return exact[0] if len(exact) == len(bounds) == 1 else ""


def applying(requires: Iterable[str], python: str = "3.11") -> list[Requirement]:
    """Return those requirements that hold on Linux x86_64 with no extra asked for.

    What cannot be read is passed over.
    """
    requirements = (_applying(text, python) for text in requires)
    return [requirement for requirement in requirements if requirement is not None]


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


def of_an_extra(requirement: Requirement) -> bool:
    """Whether a requirement holds only where an extra is asked for."""
    return bool(re.search(r"\bextra\b", str(requirement.marker or "")))
