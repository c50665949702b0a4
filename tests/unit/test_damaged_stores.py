"""Whatever becomes of a stored file, the report is written, and a damaged answer is made again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from matrix.environments.locks import Lock, keep_lock, own_name
from matrix.environments.virtualenvs import installed, is_built
from matrix.judge.canaries import Established, keep_established, read_established
from matrix.machine.hardware import Machine
from matrix.pipeline.outcomes import Verdict
from matrix.plan.keys import Key, lock_inputs
from matrix.run import suites
from matrix.run.context import Context, Settings
from matrix.run.estimates import choice_of, estimate
from matrix.run.unchanged import digest_of_report, note_report, unchanged_summary
from matrix.store.identity import digest
from matrix.store.sealing import seal, unseal
from matrix.untrusted.reading import DEEPEST, is_deep
from tests.unit.made_evidence import REFERENCE
from tests.unit.made_history import Ends, Facts, History
from tests.unit.made_world import GOOD, World
from tests.unit.report_results import render

MACHINE = Machine(processor="made up", cores=4, memory=2**34, system="Linux", note="no driver")
DEEP = b"[" * 100_000


class Kept(History):
    """A history that is kept in a store, with what its steps made."""

    def __init__(self, context: Context) -> None:
        super().__init__(context.plan)
        self.keys, self._store = context.keys, context.store

    def observe(self, key: Key | None, ends: Ends, facts: Facts) -> None:
        super().observe(key, ends, facts)
        if key is None:
            return
        if key.step == "build":
            file = self._store.path("models", key.value, "reference.json")
            file.write_bytes(seal(msgspec.json.encode(REFERENCE)))
        if key.step == "quantize":
            self._store.path("checkpoints", key.value, "checkpoint", "x")
        self._store.keep(self.observations[key.step, key.value])


def opened(folder: Path, store: Path) -> Context:
    run_settings = Settings.of({}, spec=folder / "spec.toml", profile="all", store=store)
    return Context(run_settings, {"HOME": str(folder)}, MACHINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a spec lies, and beside it a store in which all of it was observed."""
    place = tmp_path_factory.mktemp("made")
    world = World(place)
    context = opened(place, place / "store")
    for name, environment in context.plan.environments.items():
        lock = context.store.path("locks", own_name(environment))
        inputs = msgspec.json.encode(lock_inputs(environment), order="sorted").decode()
        text = f"# Lock of {name}, made by uv.\n# inputs: {inputs}\ntorch==2.1\n"
        keep_lock(lock, Lock(text))
        context.store.path("suites", name).write_text("a digest")
    context = opened(place, place / "store")
    Kept(context).finish(facts=world.facts)
    for name in context.plan.environments:
        suites.note_run(context, name)
    return place


def files_of(store: Path) -> list[Path]:
    return sorted(file for file in store.rglob("*") if file.is_file())


def report_of(folder: Path, store: Path) -> dict[str, str]:
    """Return the report of a store, having looked at all else that a run looks at."""
    context = opened(folder, store)
    for name in context.plan.environments:
        suites.is_current(context, name)
        context.unfinished(name)
        is_built(store / "environments" / name, "key")
    if not files_of(store / "records")[0].samefile(files_of(folder / "store" / "records")[0]):
        choice_of(context, estimate(context, {"HOME": str(folder)}), minutes=1e6, disk_gb=None)
    return render(context.table_judge().table())


def kinds(folder: Path) -> dict[str, Path]:
    """Return a file of each kind that the store holds, by the folder it lies in."""
    store = folder / "store"
    files: dict[str, Path] = {}
    for file in files_of(store):
        parts = file.relative_to(store).parts
        files.setdefault("/".join(parts[: 2 if parts[0] == "observations" else 1]), file)
    return files


def damaged(folder: Path, tmp_path: Path, kind: str, change: Callable[[bytes], bytes]) -> Path:
    """Return a copy of the store in which the files of a kind were changed."""
    store = tmp_path / "store"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(folder / "store", store, copy_function=os.link)
    for file in files_of(store / kind):
        data = change(file.read_bytes())
        file.unlink()  # it is a link to the whole one
        file.write_bytes(data)
    return store


KINDS = [
    *(f"observations/{step}" for step in ("resolve", "install", "import", "build", "quantize")),
    *(f"observations/{step}" for step in ("inspect", "load", "generate")),
    "locks", "models", "records", "suites",
]  # fmt: skip


def test_there_is_a_file_of_each_kind_and_the_whole_store_works(folder: Path) -> None:
    assert set(kinds(folder)) == set(KINDS)
    table = opened(folder, folder / "store").table_judge().table()
    assert {cell.verdict for cell in table.cells} == {Verdict.WORKS, Verdict.GARBAGE}


WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "not UTF-8": lambda data: data[:40] + b"\xff\xfe" + data[40:],
    "nested deep": lambda _: DEEP,
    "deep within": lambda data: data.replace(b"{", b'{"x": ' + DEEP + b",", 1),
    "NUL": lambda data: data + b"\0",
    "a list": lambda _: b"[1]",
    "null": lambda _: b"null",
    "cut": lambda data: data[: len(data) // 2],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WHOLE)
def test_a_file_that_cannot_be_read_keeps_no_report_back(
    folder: Path, tmp_path: Path, kind: str, way: str
) -> None:
    store = damaged(folder, tmp_path, kind, WHOLE[way])
    assert "matrix.json" in report_of(folder, store)
    if kind not in ("locks", "records", "suites"):
        context = opened(folder, store)
        cell = context.judge.cell(GOOD)
        assert cell.verdict is Verdict.NOT_RUN, "it counts as not observed"
        assert context.unfinished("runner-3.0"), "and is made again"


IN_PLACE: dict[str, Callable[[Path], None]] = {
    "a folder": lambda file: file.mkdir(),
    "a pipe": os.mkfifo,
    "a link to itself": lambda file: file.symlink_to(file.name),
}


def put_in_place(file: Path, way: str) -> None:
    file.unlink(missing_ok=True)
    IN_PLACE[way](file)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", IN_PLACE)
def test_what_is_no_file_keeps_no_report_back(
    folder: Path, tmp_path: Path, kind: str, way: str
) -> None:
    store = damaged(folder, tmp_path, kind, lambda data: data)
    for file in files_of(store / kind):
        put_in_place(file, way)
    context = opened(folder, store)
    suites.is_current(context, "runner-3.0")
    context.unfinished("runner-3.0")
    digest_of_report(context)
    assert "matrix.json" in render(context.table())


@pytest.mark.parametrize("content", [DEEP, b'{"digest": "\xff"}', b"[]", b""])
def test_a_note_of_the_report_that_cannot_be_read_is_none(
    folder: Path, tmp_path: Path, content: bytes
) -> None:
    context = opened(folder, damaged(folder, tmp_path, "locks", lambda data: data))
    context.store.path("report.json").write_bytes(content)
    assert unchanged_summary(context) is None


@pytest.mark.parametrize("way", IN_PLACE)
def test_notes_that_are_no_files_keep_no_report_back(
    folder: Path, tmp_path: Path, way: str
) -> None:
    context = opened(folder, damaged(folder, tmp_path, "locks", lambda data: data))
    put_in_place(context.store.path("report.json"), way)
    assert unchanged_summary(context) is None
    note_report(context, "a digest", [], "a summary")
    put_in_place(context.store.path("established", f"{digest('all')}.json"), way)
    assert read_established(context.store, "all") is None
    with suppress(OSError):  # which the report passes over
        keep_established(context.store, "all", Established("", {}))
    context.table()


SHAPES: list[tuple[str, dict[str, Any]]] = [
    ("resolve", {"lock": ["a"]}),
    ("install", {"versions": ["maker"]}),
    ("install", {"versions": {"maker": 1}}),
    ("install", {"python": {}, "torch": 3}),
    ("install", {"machine": "made up"}),
    ("build", {"tensors_sha256": 5}),
    ("inspect", {"problems": {"where": 1}}),
    ("inspect", {"modules": None}),
    ("load", {"kernels": [1], "machine": 5}),
    ("load", {"tensors": {"x": -(10**300)}}),
    ("generate", {"outputs": 5}),
    ("generate", {"held_out": [[10**400]]}),
    ("generate", {"text_ids": [[-1]]}),
    ("generate", {"tokens_per_second": "many"}),
]


@pytest.mark.parametrize(("step", "facts"), SHAPES)
@pytest.mark.parametrize("with_machine", [True, False])
def test_facts_of_a_wrong_shape_keep_no_report_back(
    folder: Path, tmp_path: Path, step: str, facts: dict[str, Any], with_machine: bool
) -> None:
    def change(data: bytes) -> bytes:
        observation = json.loads(unseal(data))
        observation["facts"] |= facts
        observation["machine"] = {"processor": "made up"} if with_machine else {}
        return seal(json.dumps(observation).encode())

    store = damaged(folder, tmp_path, f"observations/{step}", change)
    report_of(folder, store)
    assert opened(folder, store).judge.cell(GOOD).verdict is not Verdict.WORKS


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("observations/")])
def test_an_end_for_a_reason_that_is_not_its_own_counts_as_not_observed(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    def change(data: bytes) -> bytes:
        otherwise = {"outcome": "passed", "reason": "oom"}
        return seal(json.dumps(json.loads(unseal(data)) | otherwise).encode())

    store = damaged(folder, tmp_path, kind, change)
    report_of(folder, store)
    assert opened(folder, store).judge.cell(GOOD).verdict is Verdict.NOT_RUN
    assert opened(folder, store).unfinished("runner-3.0"), "and is made again"


def test_records_of_anything_are_no_trouble(folder: Path, tmp_path: Path) -> None:
    def change(data: bytes) -> bytes:
        lines = [unseal(line).replace(b'"subject":"tied', b'"subject":"').replace(b"/", b"")
                 for line in data.splitlines()]  # fmt: skip
        return b"".join(seal(line) + b"\n" for line in lines)

    store = damaged(folder, tmp_path, "records", change)
    report_of(folder, store)


def test_what_one_level_of_nesting_too_many_is_depends_on_nothing_else() -> None:
    value: Any = 1
    for _ in range(DEEPEST - 1):
        value = {"a": [], "b": value}
    assert not is_deep(value)
    assert is_deep([[value]])


def test_a_package_whose_metadata_is_no_text_is_not_installed(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, content in (("good", b"Name: Good\nVersion: 1.0\n"), ("bad", b"Name: \xff\xfe\n"),
                          ("half", b"Name: half\n")):  # fmt: skip
        (site / f"{name}-1.0.dist-info").mkdir(parents=True)
        (site / f"{name}-1.0.dist-info" / "METADATA").write_bytes(content)
    assert installed(tmp_path) == {"good": "1.0", "half": ""}
