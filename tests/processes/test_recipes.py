"""The recipes of CONTRIBUTING.md, followed line by line in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests import REPOSITORY

TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:(?P<how>A new file|In the files of|In)\s`(?P<place>[^`\n]+)`:\n\n)?"
    r"```(?P<kind>\w+)\n(?P<text>.*?)```",
    re.DOTALL,
)
PLANNED = {
    "Add a version": "twin-tied/awq-4bit-g64/autoawq-0.2.8+transformers-4.51.3/vllm-0.32.0",
    "Add a pairing": "twin-tied/gptq-4bit-g64/gptqmodel-7.6.0+transformers-5.22.0/vllm-0.32.0",
    "Add a quantizer": "twin-tied/gptq-4bit-g64/my-quantizer-1.0/vllm-0.32.0",
    "Add an engine": "twin-tied/awq-4bit-g64/autoawq-0.2.9+transformers-4.51.3/my-engine-1.0",
}
"""Recipe -> a cell that is planned after it and was not before."""


class Copy:
    """A copy of the package, in which recipes are followed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "matrix", root / "matrix", ignore=ignored)

    def follow(self, recipe: str) -> list[str]:
        """Make the edits that a recipe names; return the lines of its commands."""
        section = re.split(r"(?m)^## ", TEXT.partition(f"\n## {recipe}\n")[2])[0]
        commands: list[str] = []
        for block in BLOCK.finditer(section):
            if block["kind"] == "sh":
                commands += block["text"].splitlines()
            else:
                self._edit(block["how"], self.root / block["place"], block["text"])
        return commands

    def _edit(self, how: str, place: Path, text: str) -> None:
        match how:
            case "A new file":
                assert not place.exists()
                place.write_text(text)
            case "In":
                replace([place], text)
            case "In the files of":
                replace(sorted(place.rglob("*.toml")), text)

    def matrix(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("MATRIX")}
        return subprocess.run(
            [sys.executable, "-m", "matrix", *arguments], cwd=self.root, env=ours, timeout=600,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def perform(self, command: str) -> str:
        """Run a command of a recipe in the copy; return what it printed."""
        program, *arguments = shlex.split(command, comments=True)
        assert program == ".venv/bin/matrix"
        done = self.matrix(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


def replace(files: list[Path], diff: str) -> None:
    """Change the one file that has the lines which a diff shows as they were."""
    lines = [(line[0], line[1:]) for line in diff.splitlines()]
    old = "".join(f"{line}\n" for mark, line in lines if mark != "+")
    new = "".join(f"{line}\n" for mark, line in lines if mark != "-")
    (file,) = [file for file in files if old in file.read_text()]
    assert file.read_text().count(old) == 1
    file.write_text(file.read_text().replace(old, new))


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.mark.parametrize("recipe", PLANNED)
def test_what_a_recipe_adds_is_planned(copy: Copy, recipe: str) -> None:
    cell = PLANNED[recipe]
    before = copy.matrix("plan", "--profile", "cpu", "--cells").stdout
    assert cell not in before
    plan = next(line for line in copy.follow(recipe) if "matrix plan" in line)
    assert cell in copy.perform(plan)


def test_adding_a_version_says_what_it_needs_and_takes_in_nothing_unasked(copy: Copy) -> None:
    section = TEXT.partition("\n## Add a version\n")[2].partition("\n## ")[0]
    assert "`.[dev]`" in section
    commands = [shlex.split(line, comments=True) for line in copy.follow("Add a version")]
    assert [words[1] for words in commands] == ["plan", "lock", "-s", "-s"]
    assert not [words for words in commands if "--take" in words]


def test_an_added_check_says_what_it_finds(copy: Copy) -> None:
    checkpoint = "tests/checkpoints/autoawq-0.2.9-4bit-g64"
    folder = Path(shutil.copytree(REPOSITORY / checkpoint, copy.root / checkpoint))
    (command,) = copy.follow("Add a check")
    assert re.search(r"wide-tensors +passed", copy.perform(command))
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float64)
    save_file(tensors, file, metadata={"format": "pt"})
    done = copy.matrix(*shlex.split(command)[1:])
    assert done.returncode == 1
    assert "sound: wide-tensors: stored at 64 bits: model.norm.weight" in done.stdout


def test_an_added_issue_explains_its_log(copy: Copy) -> None:
    add, explain = copy.follow("Add a known issue")
    added = copy.perform(add)
    file = copy.root / "matrix" / "diagnose" / "issues" / "my-engine-layout.toml"
    assert str(file) in added
    assert "ValueError: ⟦layout 'rows' of MyQuantizer is not supported⟧" in file.read_text()
    assert copy.perform(explain).startswith("MyEngine before 1.1 does not read")


def test_an_added_canary_is_judged(copy: Copy) -> None:
    commands = copy.follow("Add a canary for a known defect")
    assert copy.perform(commands[0])
    (copy.root / ".matrix").mkdir()  # which the run would make
    assert copy.perform(commands[-1])
    table = json.loads((copy.root / "reports" / "matrix.json").read_text())
    canaries = {cell["id"]: cell["canary"] for cell in table["cells"] if "canary" in cell}
    stock = "twin-untied/awq-4bit-g64/autoawq-0.2.9+transformers-4.51.3+stock/vllm-0.32.0"
    assert canaries[stock] == "garbage"
    assert canaries.keys() > {stock}
