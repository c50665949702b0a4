"""``matrix culprit`` on small real packages, whose releases a made-up quantizer stumbles over."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from matrix.cli import culprit as command
from matrix.environments.locks import Locks
from matrix.run.context import Context, Settings
from matrix.run.trying import nearest_lock
from matrix.spec.loading import load
from matrix.spec.snapshot import Release, Snapshot, encode
from tests.provoked.runs import SPEC

RELEASES = ["1.0.0", "1.0.1", "1.1.0", "1.1.1", "1.9.9", "2.0.0", "2.1.0"]
"""Of iniconfig; the index has no 1.9.9."""

ENVIRONMENTS = """
[[environments]]
name = "builder"
requirements = ["iniconfig==2.0.0"]

[[environments]]
name = "reader"
requirements = ["iniconfig==2.0.0"]

[[environments]]
name = "maker-{iniconfig}-{pluggy}"
axes.iniconfig = ["1.0.0", "1.1.1", "2.1.0"]
axes.pluggy = ["1.3.0", "1.5.0"]
requirements = ["iniconfig=={iniconfig}", "pluggy=={pluggy}"]
pins = ["packaging==25.0"]

[models.made-up]
environment = "builder"
adapter = "./builder.py"
tied = true

[schemes.awq]
format = "awq"
bits = 4
group_size = 64

[[quantizers]]
environments = "maker-*"
adapter = "./maker.py"

[[quantizers]]
environments = "maker-1.0.0-1.3.0"
adapter = "./maker.py"
suffix = "other-options"
options = { any = 1 }

[[engines]]
environments = "reader"
adapter = "./behaviours.py"
options = { behaviour = "good", at = "nowhere" }

[profiles.all]
title = "All"
models = ["made-up"]
schemes = ["awq"]
quantizers = ["none", "maker-*"]
engines = ["reader"]
"""
MAKER = """
import shutil
from importlib.metadata import version

def import_package(options):
    pass

def quantize(job):
    if version("iniconfig") >= "{iniconfig}" and version("pluggy") >= "{pluggy}":
        raise RuntimeError("these two do not go together")
    shutil.copytree(job["model"], job["output"])
    return {{}}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def write(folder: Path, iniconfig: str, pluggy: str) -> Path:
    """Write a spec whose quantizer breaks from two releases on."""
    spec = folder / "spec.toml"
    text = SPEC.read_text()
    spec.write_text(text[: text.index("[[environments]]")] + ENVIRONMENTS)
    for name in ("builder.py", "behaviours.py"):
        (folder / name).write_text((SPEC.parent / name).read_text())
    (folder / "maker.py").write_text(MAKER.format(iniconfig=iniconfig, pluggy=pluggy))
    releases = [Release(version, sdist=True) for version in RELEASES]
    snapshot = Snapshot(1, "2026-11-22T00:00:00Z", {"iniconfig": releases})
    (folder / "releases.json").write_bytes(encode(snapshot))
    return spec


def ask(spec: Path, store: Path, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(command.culprit)
    options = ["--spec", str(spec), "--profile", "all", "--store", str(store)]
    return CliRunner().invoke(app, [*arguments, *options])


def cell(maker: str) -> str:
    return f"made-up/awq/{maker}/reader"


OLD, NEW, BOTH = cell("maker-1.0.0-1.3.0"), cell("maker-2.1.0-1.3.0"), cell("maker-2.1.0-1.5.0")


def test_the_first_bad_release_is_named_and_the_same_question_runs_nothing(
    tmp_path: Path, store: Path
) -> None:
    spec = write(tmp_path, iniconfig="1.1.1", pluggy="0")
    done = ask(spec, store, OLD, NEW)
    assert done.exit_code == 0, done.output
    assert "First bad release: iniconfig 1.1.1; 1.1.0 is good" in done.stdout
    assert "these two do not go together" in done.stdout
    assert "fails in another way" not in done.stdout
    rounds = [line for line in done.stdout.splitlines() if "left" in line]
    assert rounds[0].startswith("at most 5 tries are left: iniconfig 1.0.0")
    assert len(rounds) <= 5
    again = ask(spec, store, OLD, NEW)
    assert again.exit_code == 0
    assert "quantize" not in again.stderr
    first = done.stdout[done.stdout.index("GOOD") :]
    assert again.stdout == first
    data = ask(spec, store, OLD, NEW, "--format", "json")
    assert data.exit_code == 0
    document = json.loads(data.stdout)
    assert (document["status"], document["good"]["verdict"]) == ("named", "degraded")
    assert document["bad"]["cell"] == NEW
    assert document["culprits"] == [
        {"side": "quantizer", "package": "iniconfig", "good": "1.1.0", "bad": "1.1.1"}
    ]


def test_what_the_bad_end_fails_by_is_told_where_the_first_bad_release_fails_otherwise(
    tmp_path: Path, store: Path
) -> None:
    spec = write(tmp_path, iniconfig="1.1.1", pluggy="0")
    maker = tmp_path / "maker.py"
    later = 'version("iniconfig") + " is worse" if version("iniconfig") > "2" else "a little"'
    maker.write_text(maker.read_text().replace('"these two do not go together"', later))
    done = ask(spec, store, OLD, NEW)
    assert done.exit_code == 0, done.output
    assert "First bad release: iniconfig 1.1.1; 1.1.0 is good" in done.stdout
    assert "2.1.0 fails in another way: broken: quantize: RuntimeError: 2.1.0 is" in done.stdout


def test_a_release_that_does_not_resolve_is_passed_over(tmp_path: Path, store: Path) -> None:
    done = ask(write(tmp_path, iniconfig="2.0.0", pluggy="0"), store, OLD, NEW)
    assert done.exit_code == 1, done.output
    assert "untestable: does not resolve" in done.stdout
    assert "Between iniconfig 1.1.1 and 2.0.0" in done.stdout


def test_the_last_bad_release_is_named_where_the_good_one_is_newer(
    tmp_path: Path, store: Path
) -> None:
    spec = write(tmp_path, iniconfig="1.1.0", pluggy="0")
    done = ask(spec, store, NEW, OLD)
    assert done.exit_code == 0, done.output
    assert "Last bad release: iniconfig 1.0.1; 1.1.0 is good" in done.stdout


def test_pins_that_are_bad_only_together_are_named(tmp_path: Path, store: Path) -> None:
    spec = write(tmp_path, iniconfig="1.1.1", pluggy="1.5")
    done = ask(spec, store, OLD, BOTH)
    assert done.exit_code == 0, done.output
    assert "To blame: 2 pins together: iniconfig 2.1.0, pluggy 1.5.0" in done.stdout
    assert "cannot be tested" not in done.stdout


def test_one_of_the_pins_is_named_alone(tmp_path: Path, store: Path) -> None:
    done = ask(write(tmp_path, iniconfig="0", pluggy="1.5"), store, OLD, BOTH)
    assert done.exit_code == 0, done.output
    assert "To blame: one pin: pluggy 1.5.0" in done.stdout


def test_a_package_may_be_chosen_that_is_not_to_blame(tmp_path: Path, store: Path) -> None:
    spec = write(tmp_path, iniconfig="0", pluggy="1.5")
    done = ask(spec, store, OLD, BOTH, "--package", "Iniconfig")
    assert done.exit_code == 1, done.output
    assert "None can be named: iniconfig 2.1.0 alone is good" in done.stdout


def test_locks_are_ends_of_a_search_like_cells(tmp_path: Path, store: Path) -> None:
    spec = write(tmp_path, iniconfig="1.1.1", pluggy="0")
    for name, pins in (("good", ["1.0.1", "1.3.0"]), ("bad", ["2.0.0", "1.5.0"])):
        lines = (f"{p}=={v}\n" for p, v in zip(("iniconfig", "pluggy"), pins, strict=True))
        (tmp_path / name).write_text("".join([*lines, "packaging==25.0\n"]))
    files = str(tmp_path / "good"), str(tmp_path / "bad")
    done = ask(spec, store, *files, "--cell", OLD)
    assert done.exit_code == 0, done.output
    assert "To blame: one pin: iniconfig 2.0.0" in done.stdout
    done = ask(spec, store, files[0], files[0], "--cell", OLD)
    assert done.exit_code == 1, done.output


def test_several_tries_run_at_once(tmp_path: Path) -> None:
    spec = write(tmp_path, iniconfig="1.1.1", pluggy="0")
    done = ask(spec, tmp_path / "store", OLD, NEW, "--jobs", "3", "--repeat", "2")
    assert done.exit_code == 0, done.output
    assert "First bad release: iniconfig 1.1.1; 1.1.0 is good" in done.stdout


def test_answers_that_come_and_go_are_too_flaky(tmp_path: Path) -> None:
    spec = write(tmp_path, iniconfig="2.0.0", pluggy="0")
    flaky = tmp_path / "behaviours.py"
    flaky.write_text(
        flaky.read_text().replace(
            '    misbehave("load", job)\n',
            "    times = Path.home() / 'times'\n"
            "    times.write_text((times.read_text() if times.exists() else '') + 'x')\n"
            "    if len(times.read_text()) > 2 and 'maker-1.0' not in job['checkpoint']:\n"
            "        raise RuntimeError('this time it does not')\n",
        )
    )
    done = ask(spec, tmp_path / "store", OLD, NEW, "--repeat", "4")
    assert done.exit_code == 3, done.output
    assert "Too flaky: iniconfig 1.0.0 comes out in different ways" in done.stdout


@pytest.mark.parametrize(
    ("good", "bad", "options", "problem"),
    [
        (OLD, OLD, [], "stand on the same environments"),
        (OLD, cell("nix"), [], "has no cell"),
        (OLD, f"{cell('maker-1.0.0-1.3.0+other-options')}", [], "differ in more than packages"),
        (OLD, NEW, ["--package", "pluggy"], "does not have two versions"),
        (OLD, NEW, ["--package", "nix"], "What differs: iniconfig"),
        ("nix.txt", "nix.txt", ["--cell", OLD], "no lock can be read"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, store: Path, good: str, bad: str, options: list[str], problem: str
) -> None:
    done = ask(write(tmp_path, iniconfig="1.1.1", pluggy="0"), store, good, bad, *options)
    assert done.exit_code == 2, done.output
    error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert problem in error[0]


def test_ends_that_do_not_differ_name_nobody(tmp_path: Path, store: Path) -> None:
    done = ask(write(tmp_path, iniconfig="9", pluggy="9"), store, OLD, NEW)
    assert done.exit_code == 1, done.output
    assert "None can be named" in done.stdout


@pytest.mark.parametrize(
    ("preferred", "locked"),
    [({"packaging": "24.0"}, "24.0"), ({"packaging": "21.0"}, "25.0"), ({}, "25.0")],
)
def test_a_made_up_environment_keeps_to_the_good_ones_pins_where_it_can(
    tmp_path: Path, store: Path, preferred: dict[str, str], locked: str
) -> None:
    spec = write(tmp_path, iniconfig="9", pluggy="9")
    context = Context(Settings.of({}, spec=spec, profile="all", store=store))
    good = context.plan.environments["maker-1.0.0-1.3.0"]
    requirements = [*good.requirements[:2], "packaging>=22,<=25.0"]
    environment = msgspec.structs.replace(good, requirements=requirements)
    for _ in range(2):  # the second time from the store
        assert nearest_lock(context, environment, preferred).pins["packaging"] == locked


def test_locks_of_tries_are_not_taken_for_those_of_the_spec(tmp_path: Path, store: Path) -> None:
    """A try keeps to the good end's pins, and so is another lock than the spec's own."""
    spec = write(tmp_path, iniconfig="1.1.1", pluggy="0")
    ask(spec, store, OLD, NEW)
    locks = Locks(tmp_path / "locks", store / "locks")
    environment = load(spec).environments["maker-1.1.1-1.3.0"]
    assert locks.find(environment) is None
