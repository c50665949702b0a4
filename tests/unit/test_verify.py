"""Whatever is changed in a store, put there or moved within it is named, and can be taken away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from matrix.cli import verify as command
from matrix.environments.locks import Lock, keep_lock
from matrix.history import snapshots
from matrix.history.states import folder_of
from matrix.index.hub import Pin, file_of
from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import Step
from matrix.run.verifying import damage_in_short, damages, remove
from matrix.store.identity import digest, key_of
from matrix.store.observations import Observation
from matrix.store.sealing import seal, seal_text
from matrix.store.store import FILES, REFERENCE, Store, write_json
from matrix.store.taking import take_over
from tests.unit.made_evidence import REFERENCE as ANSWERS
from tests.unit.made_snapshots import cell, snapshot

INPUTS = {"lock": "a lock"}
INDEX = {"schema": 1, "answer": {"package": "maker", "asked": "then"}}
REQUIRES = ["maker", "1.0", "abc"]
EDGES = 12
"""Of a long file, each of the bytes at its ends is changed, and every twenty-ninth between."""


def encoded(value: object) -> bytes:
    return msgspec.json.encode(value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a small store that has something of each kind."""
    store = Store(tmp_path / "store", "run-1")
    for step in (Step.INSTALL, Step.BUILD, Step.QUANTIZE):
        key = key_of(step, INPUTS, [])
        store.keep(
            Observation(Outcome.PASSED, key=key, inputs=INPUTS, step=step, subject="s")
        )  # fmt: skip
    for step, parts in ((Step.BUILD, ("models", "model")), (Step.QUANTIZE, ("checkpoints",
                        "checkpoint"))):  # fmt: skip
        folder = store.path(parts[0], key_of(step, INPUTS, []), "x").parent
        made = store.path("made", "config.json").parent
        (made / "config.json").write_text("{}")
        write_json(folder / FILES, take_over(made, folder / parts[1], 100))
        shutil.rmtree(made)
    reference = encoded(msgspec.structs.replace(ANSWERS, held_out=ANSWERS.held_out[:1]))
    store.path("models", key_of(Step.BUILD, INPUTS, []), REFERENCE).write_bytes(seal(reference))
    provenance = store.path("checkpoints", key, "provenance.json")
    provenance.write_bytes(seal(encoded({"id": "s", "key": key})))
    lock = Lock("# inputs: {}\n# as of: 2026\ntorch==2.1\n")
    keep_lock(store.path("locks", f"{digest({'as of': '2026'})}.txt"), lock)
    keep_lock(store.path("locks", "near", "any.txt"), lock)
    write_json(store.path("locks", "models", file_of("a/b")), Pin(1, "a/b", "c" * 40, "then"))
    store.path("index", "maker.json").write_bytes(seal(encoded(INDEX)))
    store.path("index", "requires", f"{digest(REQUIRES)}.json").write_bytes(
        seal(encoded({"of": REQUIRES, "requires": []}))
    )
    made_snapshot = snapshot(cell())
    place = folder_of(store.root, made_snapshot.head.profile) / "2026-11-30" / "run.parquet"
    snapshots.write(place, made_snapshot.head, made_snapshot.cells)
    for name in (("established", "p.json"), ("report.json",)):
        store.path(*name).write_bytes(seal(b'{"at":""}'))
    store.path("suites", "maker-1.0").write_bytes(seal_text(b"a digest"))
    return store.root


def files_of(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.is_file())


def test_a_sound_store_has_no_damage(root: Path) -> None:
    store = Store(root)
    store.path("use.lock").touch()
    store.path("locks", "models", "a--b.lock").touch()
    store.path("observations", "load", ".k.json-abcd_123").touch()  # being written
    store.path("work", "job-1-x", "y")
    store.path("environments", "e", "anything").touch()
    assert not list(damages(root))


def test_every_changed_byte_is_named_with_its_file(root: Path) -> None:
    files = files_of(root)
    assert len(files) == 19
    for file in files:
        whole = file.read_bytes()
        middle = range(EDGES, len(whole) - EDGES, 29 if len(whole) > 500 else 1)
        for place in {*range(min(EDGES, len(whole))), *middle, *range(-EDGES, 0)}:
            if place < -len(whole):
                continue
            changed = bytearray(whole)
            changed[place] ^= 1
            file.write_bytes(changed)
            (damage,) = damages(root) if file.suffix != ".jsonl" else list(damages(root))[:1]
            beside = file.parent / "model", file.parent / "checkpoint"  # for their list of files
            assert damage.path == file or damage.path in (file.parent, *beside), (file, place)
        file.write_bytes(whole)
    assert not list(damages(root))


def swap(kind: str) -> Callable[[Path], Path]:
    """Return what puts a file of a kind in the place of another one; it returns that."""

    def change(root: Path) -> Path:
        file = files_of(root / kind)[0]
        other = file.with_name(f"another{file.suffix}")
        shutil.copyfile(file, other)
        return other

    return change


def of_another_step(root: Path) -> Path:
    (file,) = files_of(root / "observations" / "install")
    other = Store(root).path("observations", "load", file.name)
    shutil.copyfile(file, other)
    return other


def of_another_profile(root: Path) -> Path:
    (file,) = files_of(root / "history")
    other = Store(root).path("history", "another", "2026-11-30", file.name)
    shutil.copyfile(file, other)
    return other


def a_link(root: Path) -> Path:
    (file,) = files_of(root / "observations" / "install")
    kept = file.rename(root.parent / "elsewhere")
    file.symlink_to(kept)
    return file


def of_another_key(root: Path) -> Path:
    (folder,) = (root / "checkpoints").iterdir()
    return shutil.copytree(folder, folder.with_name("another"))


def a_file_more(root: Path) -> Path:
    (folder,) = (root / "models").glob("*/model")
    (folder / "more").touch()
    return folder


def made(*parts: str) -> Callable[[Path], Path]:
    def change(root: Path) -> Path:
        place = Store(root).path(*parts)
        place.touch()
        return place

    return change


def a_folder(root: Path) -> Path:
    place = Store(root).path("records", "run-9.jsonl", "x").parent
    place.mkdir(exist_ok=True)
    return place


def a_pipe(root: Path) -> Path:
    place = Store(root).path("suites", "pipe")
    os.mkfifo(place)
    return place


FOREIGN: dict[str, Callable[[Path], Path]] = {
    **{f"another name in {kind}": swap(kind) for kind in (
        "observations/install", "locks/models", "index/requires")},
    "a lock of another name": lambda root: swap("locks")(root),
    "another step": of_another_step, "another profile": of_another_profile, "a link": a_link,
    "another checkpoint": of_another_key, "a file more": a_file_more, "a folder": a_folder,
    "a pipe": a_pipe, "a file": made("notes.txt"), "a step": made("observations", "weigh"),
    "a model": made("models", "x"), "a log": made("records", "x.log"),
    "beside a model": made("checkpoints", key_of(Step.QUANTIZE, INPUTS, []), "x.bin"),
    "observations as a file": made("observations", "load", "notes"),
}  # fmt: skip


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_foreign_or_surplus_is_named_and_can_be_taken_away(root: Path, what: str) -> None:
    place = FOREIGN[what](root)
    (damage,) = damages(root)
    assert damage.path == place
    remove(damage)
    assert not list(damages(root))
    assert not os.path.lexists(place)


def test_of_a_record_the_line_alone_is_taken_away(root: Path) -> None:
    (segment,) = files_of(root / "records")
    first, second, third = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(first + second.replace(b"passed", b"failed") + third[:-20])
    wrong = list(damages(root))
    assert [(damage.path, damage.line) for damage in wrong] == [(segment, 2), (segment, 3)]
    for damage in wrong:
        remove(damage)
    assert segment.read_bytes() == first
    assert not list(damages(root))


def verify(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(command.verify)
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, " ".join(done.output.split())


def test_the_command_names_what_is_wrong_and_takes_it_away(root: Path) -> None:
    options = ("--store", str(root))
    status, output = verify(*options)
    assert status == 0
    assert output.endswith("is what was written to it")
    for number in range(8):
        (root / "suites" / f"odd-\x1b[31m-{number}").write_text("x")
    status, output = verify(*options)
    assert status == 1
    assert output.count("has no digest: an earlier version wrote it, or it was damaged") == 6
    assert "suites: 3 more: has no digest" in output
    assert "8 things in" in output
    assert "`matrix verify --remove` takes it away" in output
    assert "\x1b" not in output
    with Store(root).use():
        assert verify(*options, "--remove")[0] == 2
    assert verify(*options, "--remove")[0] == 1
    assert verify(*options)[0] == 0


def test_where_there_is_no_store_the_command_says_so(tmp_path: Path) -> None:
    status, output = verify("--store", str(tmp_path / "none"))
    assert status == 2
    assert "there is no store here" in output


def test_where_a_run_begins_what_is_damaged_stands_in_one_line(root: Path) -> None:
    assert damage_in_short(root) == damage_in_short(root / "none") == []
    for number in range(5):
        (root / "suites" / f"odd-{number}").write_text("x")
    (line,) = damage_in_short(root)
    assert line.startswith(
        "the store has 5 things that nobody can rely on, and counts none (suites"
    )
    assert "odd-2: has no digest: an earlier version wrote it, or it was damaged; 2 more): " in line
