"""The answers of docs/questions.md: each command prints the lines that stand below it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from matrix.cli import specifiers
from matrix.cli.app import app
from matrix.judge.document import encode
from matrix.judge.results import MatrixResult
from matrix.plan.cells import make_plan
from matrix.report.table import normalise
from matrix.spec.loading import DEFAULT_SPEC, load
from tests import REPOSITORY
from tests.recorded.recording import observations, table_of

DOCUMENT = (REPOSITORY / "docs" / "questions.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```sh\n(?P<shell>.*?)```\n\n```\n(?P<shown>.*?)```", re.DOTALL)
COMMAND = re.compile(
    r"\.venv/bin/matrix (?P<arguments>[^#<\n]+)(?P<real># real packages)?"
    r"(?:<<'EOF'\n(?P<log>.*?)EOF)?\n",
    re.DOTALL,
)
CELL = re.compile(r"[\w.+-]+/[\w.+-]+/[\w.+-]+/vllm[\w.+-]+")
GPTQ = "auto-gptq-0.7.1-4bit-g64"
QUESTIONS = 15


class Command(NamedTuple):
    """A command of the document, with the log that it is given."""

    arguments: list[str]
    log: str
    real: bool
    """Whether it needs the packages under test."""


class Example(NamedTuple):
    """Commands of the document, and the lines below them."""

    commands: list[Command]
    shown: list[str]


def examples(question: int) -> list[Example]:
    """Return the commands of a question, and the lines that are shown of what they print."""
    section = re.split(r"(?m)^## \d+\. ", DOCUMENT)[question]
    blocks = list(BLOCK.finditer(section))
    assert section.count("```sh\n") == len(blocks), "commands without what they print"
    return [Example(_commands(block["shell"]), block["shown"].splitlines()) for block in blocks]


def _commands(shell: str) -> list[Command]:
    assert not COMMAND.sub("", shell), "a line that is no command"
    return [
        Command(shlex.split(match["arguments"]), match["log"] or "", bool(match["real"]))
        for match in COMMAND.finditer(shell)
    ]


def first_missing(shown: list[str], printed: list[str]) -> str:
    """Return the first shown line that was not printed after those before it; empty where none is.

    A line "..." stands for any lines, even none, and " ..." at the end of one for any text.
    """
    lines = iter(printed)
    gap = False
    for line in shown:
        if line == "...":
            gap = True
            continue
        if not any(_is(line, printed) for printed in (lines if gap else [next(lines, "")])):
            return line
        gap = False
    return ""


def _is(shown: str, printed: str) -> bool:
    begin = shown.removesuffix(" ...")
    return printed.startswith(begin) if begin != shown else printed.rstrip() == shown


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with what the document names: checkpoints and the recorded run."""
    (tmp_path / "tests").symlink_to(REPOSITORY / "tests")
    for name in ("ordered", "other-head"):
        shutil.copytree(REPOSITORY / "tests" / "checkpoints" / GPTQ, tmp_path / name)
    for name, part in (("config.json", "quantization_config"), ("quantize_config.json", "")):
        file = tmp_path / "ordered" / name
        config = json.loads(file.read_text())
        (config[part] if part else config)["desc_act"] = True
        file.write_text(json.dumps(config))
    weights = tmp_path / "other-head" / "model.safetensors"
    tensors = load_file(weights)
    tensors["lm_head.weight"] = np.roll(tensors["lm_head.weight"], 1, axis=0)
    save_file(tensors, weights, metadata={"format": "pt"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@cache
def recorded_table() -> MatrixResult:
    """Return the recorded run of the profile cpu, judged once for all questions."""
    return table_of("cpu", observations("cpu"))


@pytest.fixture
def recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> MatrixResult:
    """Have the recorded run be the store's and the published one."""
    table = recorded_table()

    class RecordedContext:
        def __init__(self, _settings: object) -> None:
            self.table_judge = lambda: self

        def table(self) -> MatrixResult:
            return table

    monkeypatch.setattr(specifiers, "Context", RecordedContext)
    (folder / ".matrix").mkdir()
    (folder / "reports").mkdir()
    (folder / "reports" / "matrix.json").write_bytes(encode(normalise(table)))
    return table


def lines_printed(commands: list[Command]) -> list[str]:
    """Return the lines that commands print; fail where one ends by a traceback or a mistake."""
    results = [
        CliRunner().invoke(app, command.arguments, input=command.log) for command in commands
    ]
    for result in results:
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert result.exit_code in (0, 1), result.output
    return "".join(result.stdout for result in results).splitlines()


def test_fifteen_questions_have_a_thread_and_a_command() -> None:
    assert len(re.findall(r"(?m)^## \d+\. ", DOCUMENT)) == QUESTIONS
    for number in range(1, QUESTIONS + 1):
        section = re.split(r"(?m)^## \d+\. ", DOCUMENT)[number]
        assert re.search(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", section), number
        assert examples(number), number


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("question", range(1, QUESTIONS + 1))
def test_commands_print_what_the_document_shows(question: int) -> None:
    for example in examples(question):
        if not any(command.real for command in example.commands):
            printed = lines_printed(example.commands)
            assert not (line := first_missing(example.shown, printed)), (line, printed)


def test_cells_of_real_packages_are_planned_and_came_out_so(recorded: MatrixResult) -> None:
    verdicts = {cell.id: cell.verdict.value for cell in recorded.cells}
    compared = 0
    for question in range(1, QUESTIONS + 1):
        for example in examples(question):
            for command in example.commands:
                if command.real:
                    assert_planned(command)
            for line in example.shown:
                cell, _, verdict = line.removesuffix(" ...").partition(": ")
                if cell in verdicts:
                    assert verdict == verdicts[cell], line
                    compared += 1
    assert compared


@cache
def planned_cells(profile: str) -> set[str]:
    """Return the cells of a profile."""
    return {cell.id for cell in make_plan(load(DEFAULT_SPEC), profile).cells}


def assert_planned(command: Command) -> None:
    words = command.arguments
    profile = words[words.index("--profile") + 1] if "--profile" in words else "cpu"
    cells = [word for word in words if CELL.fullmatch(word)]
    assert cells, "real packages are run by cells"
    assert set(cells) <= planned_cells(profile)


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        (["a", "b"], ""),
        (["...", "b", "..."], ""),
        (["a", "...", "c d"], ""),
        (["...", "c ..."], ""),
        (["b"], "b"),
        (["a", "c d"], "c d"),
        (["...", "b", "...", "a"], "a"),
        (["...", "c"], "c"),
    ],
)
def test_shown_lines_are_looked_for_in_their_order(shown: list[str], missing: str) -> None:
    assert first_missing(shown, ["a", "b", "c d"]) == missing
