"""The two-by-two by which one side of a cell is blamed, and ``matrix blame``."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from matrix.checkpoint.formats import Format
from matrix.cli import blame as command
from matrix.pipeline.outcomes import Verdict
from matrix.plan.cells import Cell, Checkpoint, Model, Role
from matrix.search.blame import Culprit, Square, culprit, square_of
from matrix.spec.tables import SchemeTable
from tests.unit.small_spec import write

WORKS, DEGRADED, GARBAGE, BROKEN, UNSUPPORTED, UNTESTED, INFRA, NOT_RUN = Verdict


@pytest.mark.parametrize(
    ("verdicts", "blamed"),
    [
        ((GARBAGE, GARBAGE, WORKS, WORKS), Culprit.QUANTIZER),
        ((BROKEN, WORKS, BROKEN, DEGRADED), Culprit.ENGINE),
        ((UNSUPPORTED, WORKS, UNSUPPORTED, WORKS), Culprit.ENGINE),
        ((BROKEN, WORKS, DEGRADED, WORKS), Culprit.PAIR),
        ((BROKEN, GARBAGE, BROKEN, WORKS), Culprit.BOTH),
        ((BROKEN, BROKEN, BROKEN, BROKEN), Culprit.MODEL),
        ((DEGRADED, BROKEN, BROKEN, BROKEN), Culprit.NOTHING),
        ((BROKEN, WORKS, BROKEN, BROKEN), Culprit.UNCLEAR),
        ((BROKEN, WORKS, WORKS, GARBAGE), Culprit.UNCLEAR),
    ],
)
def test_the_guilty_side_follows_from_four_verdicts(
    verdicts: tuple[Verdict, Verdict, Verdict, Verdict], blamed: Culprit
) -> None:
    assert culprit(*verdicts) is blamed


def test_nothing_is_blamed_where_a_cell_has_no_verdict() -> None:
    for this, other, another, good in product(Verdict, repeat=4):
        if {UNTESTED, INFRA} & {this, other, another, good}:
            assert culprit(this, other, another, good) is Culprit.UNCLEAR


MODEL = Model("m", "twins", Path("model.py"), tied=True, recipe={})
SCHEME = SchemeTable(format=Format.AWQ, bits=4, group_size=64)
RELEASES = {
    "awq-1": {"awq": "1", "lib": "1"},
    "awq-2": {"awq": "2", "lib": "1"},
    "awq-2-lib-2": {"awq": "2", "lib": "2"},
    "other": {"other": "1"},
    "vllm-1": {"vllm": "1"},
    "vllm-2": {"vllm": "2"},
    "hf": {"lib": "3"},
}
MAKERS, READERS = list(RELEASES)[:4], list(RELEASES)[4:]


def cell(maker: str, reader: str, scheme: str = "s") -> Cell:
    quantizer, engine = Role(maker, maker, Path("q.py")), Role(reader, reader, Path("e.py"))
    return Cell(Checkpoint(MODEL, scheme, SCHEME, quantizer), engine, ["All"])


def partners(this: Cell, working: set[tuple[str, str]]) -> tuple[str, str] | None:
    """Return the good quantizer and engine of a cell's square."""
    cells = [cell(*pair) for pair in product(MAKERS, READERS)]
    cells += [cell(*pair, scheme="another") for pair in product(MAKERS, READERS)]

    def works(other: Cell) -> bool:
        pair = other.checkpoint.quantizer.name, other.engine.name
        return other.checkpoint.scheme_name == "another" or pair in working

    square = square_of(this, cells, works, RELEASES)
    if square is None:
        return None
    maker, reader = square.good.checkpoint.quantizer.name, square.good.engine.name
    own = this.checkpoint.quantizer.name, this.engine.name
    assert square == Square(
        *(cell(*pair) for pair in (own, (own[0], reader), (maker, own[1]), (maker, reader)))
    )
    return maker, reader


@pytest.mark.parametrize(
    ("working", "pair"),
    [
        # Another version of the same package, and nearest by what else differs.
        ({("awq-2", "vllm-2"), ("awq-2-lib-2", "vllm-2"), ("other", "hf")}, ("awq-2", "vllm-2")),
        # Of the same package, that which works in this engine.
        (
            {("awq-2", "vllm-2"), ("awq-2-lib-2", "vllm-1"), ("awq-2-lib-2", "vllm-2")},
            ("awq-2-lib-2", "vllm-2"),
        ),
        # Those that work together, though another engine is nearer.
        ({("other", "vllm-2"), ("awq-2", "hf")}, ("awq-2", "hf")),
        ({("other", "hf")}, ("other", "hf")),
        # Each is good somewhere, and nobody has seen them together.
        ({("awq-1", "hf"), ("other", "vllm-1")}, ("other", "hf")),
        # Of other schemes nothing is learned; the cell's own sides are no partners.
        (set(), None),
        ({("awq-1", "vllm-1")}, None),
        ({("awq-1", "vllm-2")}, None),
    ],
)
def test_partners_are_the_nearest_that_work(
    working: set[tuple[str, str]], pair: tuple[str, str] | None
) -> None:
    assert partners(cell("awq-1", "vllm-1"), working) == pair


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nix", "has no cell 'nix'"),
        ("tied/float/none/runner-3.0", "is the float model's"),
        ("tied/awq/maker-1.0/runner-3.0", "nothing good to compare with"),
    ],
)
def test_a_cell_that_cannot_be_set_beside_others_is_one_line(
    tmp_path: Path, name: str, problem: str
) -> None:
    app = typer.Typer()
    app.command()(command.blame)
    options = ["--spec", str(write(tmp_path)), "--profile", "all", "--store", str(tmp_path / "s")]
    done = CliRunner().invoke(app, [name, *options])
    assert done.exit_code == 2
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
