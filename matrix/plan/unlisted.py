"""Cells whose engine does not list their format as read: told before they are run. Pure."""

from __future__ import annotations

from collections import Counter

from packaging.utils import canonicalize_name

from matrix.plan.cells import Plan
from matrix.spec.methods import Methods
from matrix.spec.requirements import named_releases


def unlisted(plan: Plan, methods: Methods) -> Counter[str]:
    """Return ``vllm 0.32.0 does not list gguf`` -> of how many cells of a plan that is so.

    Of an engine's packages, only that counts which its adapter is named like: it does the reading.
    """
    lines: Counter[str] = Counter()
    for cell in plan.cells:
        scheme, engine = cell.checkpoint.scheme, cell.engine
        if scheme is None or cell.exclusion is not None:
            continue
        program = canonicalize_name(engine.adapter.stem)
        for package, version in named_releases(plan.environments[engine.environment]).items():
            is_reader = package.removesuffix("-cpu") == program
            if is_reader and methods.lacks(package, version, scheme.method):
                lines[f"{package} {version} does not list {scheme.method}"] += 1
    return lines
