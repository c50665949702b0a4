"""Who can share an environment, as the command and the page show it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from matrix.cli import pairs as command
from matrix.environments.resolving import Resolved
from matrix.report import files
from matrix.report.material import Material
from matrix.report.pairs import FILE, state, table
from matrix.report.pairs_page import pairs_page
from matrix.report.rendering import page
from matrix.spec.pairs import PAIRS, encode
from matrix.spec.tables import Environment
from tests.unit import small_spec
from tests.unit.made_pairs import PAIRS_MADE, TAKEN, resolver, write
from tests.unit.report_results import realistic


def ask(folder: Path, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(command.pairs)
    given = ["--spec", str(folder / "spec.toml"), "--store", str(folder / "store")]
    return CliRunner().invoke(app, [*given, *arguments])


@pytest.fixture
def uv(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Have a made-up uv answer; return the names of the environments that are in trouble."""
    troubles: set[str] = set()

    def resolve_all(environments: Iterable[Environment], *_: object) -> Iterator[Resolved]:
        return resolver(TAKEN, troubles)[0](environments)

    monkeypatch.setattr(command, "resolve_all", resolve_all)
    return troubles


@pytest.mark.usefixtures("uv")
def test_what_is_taken_is_kept_and_shown(tmp_path: Path) -> None:
    write(tmp_path)
    shown = ask(tmp_path, "--take")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "2 of 4 pairs resolve, as of 2026-11-30" in shown.stdout
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    why = "runner wants torch==2.1, maker wants torch>=2.2"
    assert f"maker 2.0 runner 3.0 refused, and each older {why}" in lines
    assert f"runner 3.0 maker 2.0 refused, 1.0 resolves {why}" in lines
    assert "runner 2.0 maker 2.0 resolves" in lines
    assert (tmp_path / PAIRS).is_file()
    assert ask(tmp_path).stdout == shown.stdout


def test_one_package_and_json(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / PAIRS).write_bytes(encode(PAIRS_MADE))
    kept = json.loads(ask(tmp_path, "runner", "--format", "json").stdout)
    assert [pair["package"] for pair in kept["pairs"]] == ["runner"]
    assert "'x' is none of maker, runner\n" in ask(tmp_path, "x").stderr
    assert ask(tmp_path, "Run-ner").stderr.endswith("maker, runner. Did you mean runner?\n")


def test_trouble_of_uv_is_told_and_ends_with_status_1(tmp_path: Path, uv: set[str]) -> None:
    write(tmp_path)
    uv.add("maker-1.0+runner-3.0")
    shown = ask(tmp_path, "--take")
    assert shown.exit_code == 1
    assert "warning: maker-1.0+runner-3.0: the index is down" in shown.stderr
    assert "1 of 3 pairs resolve" in shown.stdout


def test_where_nothing_is_kept_or_asked_for_it_is_said(tmp_path: Path) -> None:
    small_spec.write(tmp_path)
    assert "Ask uv: matrix pairs --take" in ask(tmp_path).stderr
    assert "it has no [pairs]" in ask(tmp_path, "--take").stderr


def test_the_newest_stand_first_and_what_was_not_answered_is_not_asked() -> None:
    laid_out = table(PAIRS_MADE)
    assert [(row.package, row.release) for row in laid_out.newest] == [
        ("maker", "2.0"), ("runner", "3.0"),
    ]  # fmt: skip
    maker = laid_out.rows["maker"]
    assert [row.release for row in maker] == ["2.0", "1.0"]
    assert [state(row.beside["runner"]) for row in maker] == ["refused", "resolves"]
    assert state(maker[0].beside["maker"]) == "not asked"


def test_the_report_shows_the_newest_and_leads_to_all_of_them() -> None:
    material = Material(realistic(), pairs=PAIRS_MADE)
    shown = page(material, [])
    assert 'href="#pairs"' in shown
    section = shown[shown.index('<section id="pairs"') :]
    assert f'href="{FILE}"' in section
    assert "2.0" in section
    assert FILE in dict(files(material))
    without = Material(realistic())
    assert '<section id="pairs"' not in page(without, [])
    assert FILE not in dict(files(without))


def test_the_page_of_pairs_gives_reasons_as_text() -> None:
    shown = pairs_page(PAIRS_MADE)
    assert "maker wants &lt;b&gt;torch&lt;/b&gt;" in shown
    assert "<bdi>1.0</bdi> in its place" in shown
    assert "none since <bdi>2.0</bdi>" in shown
