"""The documents: their links lead somewhere, their commands exist, the README is easy to read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from matrix.cli.app import COMMANDS, command
from matrix.cli.commands_text import document as commands_text
from tests import REPOSITORY

DOCUMENTS = sorted(
    [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *REPOSITORY.glob("*/README.md")]
)
WORDS = 25
"""So many make a sentence of the README hard to read."""


def anchors(file: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(r"(?m)^#+ (.+)$", file.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name) if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_commands_and_their_options_exist(document: Path) -> None:
    lines = re.findall(
        r"(?<![\w/])(?:\.venv/bin/)?matrix ([a-z]+)((?: [^`\n|#]*)?)", sources(document)
    )
    for name, arguments in lines:
        assert name in COMMANDS, name
        options = {option for parameter in command(name).params for option in parameter.opts}
        assert set(re.findall(r"(?<= )--[a-z-]+", arguments)) <= options, (name, arguments)


def test_the_commands_are_documented_by_their_help() -> None:
    text = (REPOSITORY / "docs" / "commands.md").read_text(encoding="utf-8")
    assert text == commands_text(), "python -m matrix.cli.commands_text > docs/commands.md"


def sources(document: Path) -> str:
    """Return what a document shows as code, each piece on a line."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = [line.partition("#")[0] for block in blocks for line in block.splitlines()]
    return "\n".join([*lines, *re.findall(r"`([^`\n]+)`", rest)])


def test_sentences_of_the_readme_are_short() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"(?m)^[|#!].*$", "", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    sentences = [s for part in paragraphs for s in re.split(r"(?<=[.?!])[*`]*\s", part)]
    assert [s for s in sentences if len(s.split()) >= WORDS] == []
