"""How ``matrix run`` and ``blame`` end in a store in which nothing is left to be done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from matrix.cli import blame
from matrix.cli.app import app
from matrix.plan.cells import Cell
from matrix.run.context import Context
from matrix.search.blame import Square
from matrix.spec.loading import DEFAULT_SPEC
from tests.recorded import full_store

MADE = "awq-4bit-g64/autoawq-0.2.7+released/vllm-0.32.0"
WORKS, GARBAGE = f"twin-untied/{MADE}", f"twin-tied/{MADE}"
VOID = f"""
[profiles.times.canaries]
"{GARBAGE}" = "works"
"""


class Place:
    """A small profile, finished."""

    def __init__(self, folder: Path) -> None:
        self.spec, self.store = folder / "spec", folder / "store"
        shutil.copytree(DEFAULT_SPEC, self.spec)
        full_store.fill(self.store, "times", self.spec)

    def run(self, *arguments: str, command: str = "run") -> Result:
        options = ["--spec", str(self.spec), "--profile", "times", "--store", str(self.store)]
        return CliRunner().invoke(app, [command, *arguments, *options])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("finished"))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([WORKS], 0),
        (["--cell", WORKS], 0),
        ([GARBAGE], 1),
        ([WORKS, GARBAGE], 1),
        (["twin-untied/*"], 0),
        (["*"], 1),
        (["--environment", "vllm-*"], 0),
        (["--install-only"], 0),
        ([], 0),
    ],
    ids=str,
)
def test_what_does_not_work_is_a_status_of_named_cells_alone(
    place: Place, arguments: list[str], status: int
) -> None:
    done = place.run(*arguments)
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output


def test_one_cell_is_shown_whole_and_several_in_a_line_each(place: Place) -> None:
    whole = place.run(GARBAGE).stdout
    assert f"{GARBAGE}: garbage (blame: checkpoint)" in whole
    assert "  tied-embedding      notice " in whole
    lines = place.run("twin-*/awq*").stdout.splitlines()
    assert lines[0].startswith("these cells are done; nothing is run again")
    assert len(lines) == 5
    assert f"  works          {WORKS}" in lines


def test_a_whole_run_says_how_to_see_its_results(place: Place) -> None:
    line = "is done: `matrix report --profile "
    assert line in place.run().stdout
    assert line not in place.run(WORKS).stdout + place.run("--environment", "vllm-*").stdout


def test_nothing_is_believed_where_the_canaries_are_void(place: Place) -> None:
    file = place.spec / "profiles" / "smaller.toml"
    before = file.read_text()
    file.write_text(before + VOID)
    try:
        for arguments in ([WORKS], [GARBAGE], []):
            done = place.run(*arguments)
            assert done.exit_code == 3, done.output
            assert "the canaries are void: trust no verdict" in done.stderr
        assert place.run("--environment", "vllm-*").exit_code == 0, "a part of a run by nox"
    finally:
        file.write_text(before)


def test_blame_answers_programs_in_json_and_persons_beside_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = [name.replace("+released", "+today") for name in (GARBAGE, WORKS)]
    four = (GARBAGE, later[0], WORKS, later[1])

    def square(context: Context, _cell: Cell) -> Square:
        cells = {cell.id: cell for cell in context.plan.cells}
        return Square(*(cells[name] for name in four))

    monkeypatch.setattr(blame, "_square", square)
    done = place.run(GARBAGE, "--format", "json", command="blame")
    assert done.exit_code == 0
    assert done.stderr == "of four cells, 0 have no evidence yet and are run now\n"
    document = json.loads(done.stdout)
    assert document["culprit"] == "the quantizer environment"
    assert document["to_blame"] == "the quantizer environment, autoawq-0.2.7+released"
    assert [cell["verdict"] for cell in document["cells"]] == ["garbage"] * 2 + ["works"] * 2
    words = place.run(GARBAGE, command="blame").stdout
    assert words.endswith("To blame: the quantizer environment, autoawq-0.2.7+released\n")
