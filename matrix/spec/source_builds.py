"""What packages get that are built from source: requirements and variables. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from matrix.spec.tables import Environment


def locked_builds(environment: Environment, pins: Mapping[str, str]) -> dict[str, list[str]]:
    """Return package -> what its build needs, with the lock's version where none is named: what is
    compiled against torch wants the torch that it will run with.
    """
    return {
        package: [f"{item}=={pins[item]}" if item in pins else item for item in items]
        for package, items in environment.build_requirements.items()
    }


def build_variables(build_environ: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the lines by which uv's settings give variables to the builds of packages."""
    lines = [
        f"{json.dumps(package)}.{json.dumps(name)} = {json.dumps(value, ensure_ascii=False)}"
        for package, variables in build_environ.items()
        for name, value in variables.items()
    ]
    return ["[extra-build-variables]", *lines] if lines else []
