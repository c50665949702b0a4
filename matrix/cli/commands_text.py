"""The commands as a document, made from their help:

.venv/bin/python -m matrix.cli.commands_text > docs/commands.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from typing import Any, get_args, get_type_hints

from matrix.cli.app import COMMANDS, command
from matrix.cli.examples import EXAMPLES

HEAD = """\
# Commands

Made from the help by `python -m matrix.cli.commands_text`; a test holds the two together.
`matrix --install-completion` has the shell complete commands, options, cells and environments.
On a terminal there are colours and tables that wrap, without colour where `NO_COLOR` is set; off
one, lines are plain. Where nothing else is said, status 2 is a mistake, told in one line.
"""


def document() -> str:
    """Return all commands, with their options and examples, as Markdown."""
    return "\n".join([HEAD, *(line for name in COMMANDS for line in _section(name))])


def _section(name: str) -> Iterator[str]:
    shown, module = command(name), import_module(f"matrix.cli.{name}")
    choices = {
        parameter: _choices(hint)
        for parameter, hint in get_type_hints(getattr(module, name)).items()
    }
    arguments = [p for p in shown.params if p.param_type_name == "argument"]
    yield from (f"## {name}", "", _markdown(shown.help), "")
    yield from ("```sh", *(f"{line}  # {what}" for line, what in EXAMPLES[name].items()), "```", "")
    yield from ("| argument or option | |", "|---|---|")
    for parameter in [*arguments, *(p for p in shown.params if p not in arguments)]:
        yield _row(parameter, choices.get(parameter.name, []))
    yield ""


def _markdown(text: str) -> str:
    """Return a help's text, which is ours, with nothing in it but backticks active."""
    return re.sub(r"([*|<])", r"\\\1", text)


def _row(parameter: Any, choices: list[str]) -> str:
    is_argument = parameter.param_type_name == "argument"
    name = parameter.name.upper() if is_argument else parameter.opts[0]
    words = [_markdown(parameter.help)]
    words += [f"One of: {', '.join(choices)}."] if choices else []
    words += ["Required."] if parameter.required else []
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    if isinstance(parameter.show_default, str):
        default = parameter.show_default
    if isinstance(default, str | int) and not isinstance(default, bool) and default != "":
        words.append(f"Default: {default}.")
    return f"| `{name}` | {' '.join(words)} |"


def _choices(hint: Any) -> list[str]:
    """Return the values that a parameter may have, where its type lists them."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [str(member.value) for member in hint]
    return [choice for inner in get_args(hint) for choice in _choices(inner)]


if __name__ == "__main__":
    sys.stdout.write(document())
