"""A store's history: which runs it holds, what is compared with what, and what nights came to."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from matrix.history.changes import ChangeKind, PastVerdict
from matrix.history.folder import History
from matrix.history.remembering import Remembered, remember
from matrix.history.snapshots import pack
from matrix.history.states import SCHEMA_VERSION, Snapshot
from matrix.judge.results import CanaryState
from matrix.pipeline.outcomes import Verdict
from matrix.store import store as stores
from tests.unit.made_snapshots import cell, snapshot

A, B = "m/s/q/a", "m/s/q/b"


def night(day: int, verdicts: str, canaries: CanaryState = CanaryState.ESTABLISHED) -> Snapshot:
    """Return a night by a letter for each cell: works, broken, infra, not there."""
    words = {"w": Verdict.WORKS, "b": Verdict.BROKEN, "i": Verdict.INFRA}
    cells = [
        cell(name, verdict=words[letter], evidence=f"of {day}", at=f"2026-11-{day:02}")
        for name, letter in zip((A, B), verdicts, strict=True)
        if letter in words
    ]
    return snapshot(*cells, day=f"2026-11-{day:02}", run=f"r{day}", canaries=canaries)


def after(store: Path, *nights: Snapshot) -> Remembered:
    """Return what is remembered when the last of some nights is over."""
    remembered = [remember(store, made, {}) for made in nights]
    return remembered[-1]


def kinds(remembered: Remembered) -> dict[str, ChangeKind]:
    assert remembered.changes is not None
    return {change.cell: change.kind for change in remembered.changes.cells}


def test_a_first_run_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    remembered = after(tmp_path, night(1, "wb"))
    assert remembered.changes is None
    assert [n.counts for n in remembered.nights] == [{Verdict.WORKS: 1, Verdict.BROKEN: 1}]
    assert remembered.past == {}
    assert [file.name for file in tmp_path.rglob("*.parquet")] == ["r1.parquet"]


def test_runs_are_compared_with_the_last_one(tmp_path: Path) -> None:
    remembered = after(tmp_path, night(1, "bb"), night(2, "wb"), night(3, "bw"))
    assert remembered.changes is not None
    assert (remembered.changes.old, remembered.changes.new) == ("2026-11-02 r2", "2026-11-03 r3")
    assert kinds(remembered) == {A: ChangeKind.REGRESSED, B: ChangeKind.FIXED}
    assert [(n.day, n.believed) for n in remembered.nights] == [
        ("2026-11-01", True), ("2026-11-02", True), ("2026-11-03", True),
    ]  # fmt: skip
    assert remembered.past == {
        A: [PastVerdict("2026-11-01", "r1", Verdict.BROKEN),
            PastVerdict("2026-11-02", "r2", Verdict.WORKS)],
        B: [PastVerdict("2026-11-01", "r1", Verdict.BROKEN)],
    }  # fmt: skip


def test_a_void_run_is_in_the_history_and_nothing_is_compared_with_it(tmp_path: Path) -> None:
    void = night(2, "ww", CanaryState.VOID)
    remembered = after(tmp_path, night(1, "bb"), void)
    assert remembered.changes is None
    remembered = after(tmp_path, night(3, "wb"))
    assert remembered.changes is not None
    assert remembered.changes.old == "2026-11-01 r1"
    assert [n.believed for n in remembered.nights] == [True, False, True]
    assert {name: len(turns) for name, turns in remembered.past.items()} == {A: 1, B: 1}


def test_a_cell_is_compared_with_its_last_answer(tmp_path: Path) -> None:
    """Trouble of the machine hides no regression."""
    nights = [night(1, "ww"), night(2, "iw"), night(3, "i-"), night(4, "bb")]
    remembered = after(tmp_path, *nights)
    assert kinds(remembered) == {A: ChangeKind.REGRESSED, B: ChangeKind.REGRESSED}
    works = [PastVerdict("2026-11-01", "r1", Verdict.WORKS)]
    assert remembered.past == {A: works, B: works}  # that it had no answer is no turn


def test_that_a_cell_has_no_answer_any_more_is_told_once(tmp_path: Path) -> None:
    nights = [night(1, "ww"), night(2, "iw")]
    assert kinds(after(tmp_path, *nights)) == {A: ChangeKind.NOT_RUN, B: ChangeKind.UNCHANGED}
    assert kinds(after(tmp_path, night(3, "iw"))) == dict.fromkeys((A, B), ChangeKind.UNCHANGED)


def test_a_report_without_news_leaves_no_snapshot_and_still_says_what_changed(
    tmp_path: Path,
) -> None:
    second = night(2, "ww")
    first = after(tmp_path, night(1, "bb"), second)
    files = {file: file.read_bytes() for file in tmp_path.rglob("*.parquet")}
    later = second._replace(day="2026-11-03", run="r3")
    later = later._replace(head=msgspec.structs.replace(later.head, commit="other", judging="x"))
    again = after(tmp_path, later)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.parquet")} == files
    assert kinds(again) == kinds(first) == {A: ChangeKind.FIXED, B: ChangeKind.FIXED}
    assert again.nights == first.nights
    assert again.past == first.past


def test_a_run_that_is_reported_twice_has_one_snapshot(tmp_path: Path) -> None:
    remembered = after(tmp_path, night(1, "bb"), night(2, "iw"), night(2, "ww"))
    assert [n.run for n in remembered.nights] == ["r1", "r2"]
    assert kinds(remembered) == {A: ChangeKind.FIXED, B: ChangeKind.FIXED}


def test_a_night_without_news_is_kept_as_the_same_as_the_night_before(tmp_path: Path) -> None:
    after(tmp_path, night(1, "ww"), night(2, "bb"))
    history = History(tmp_path, "cpu")
    history.repeat_last("2026-11-02", "same day")
    assert [entry.run for entry in history.entries] == ["r1", "r2"]
    history.repeat_last("2026-11-03", "r3")
    assert [entry.run for entry in History(tmp_path, "cpu").entries] == ["r1", "r2", "r3"]
    last = history.read(history.entries[-1])
    assert last is not None
    assert last.cells == night(2, "bb").cells
    assert kinds(after(tmp_path, night(4, "ww"))) == {A: ChangeKind.FIXED, B: ChangeKind.FIXED}


def test_another_profile_is_another_history(tmp_path: Path) -> None:
    other = night(1, "bb")
    other = other._replace(head=msgspec.structs.replace(other.head, profile="gpu"))
    assert after(tmp_path, other, night(2, "ww")).changes is None
    assert len(History(tmp_path, "gpu").entries) == 1


def test_what_cannot_be_read_is_told_and_passed_over(tmp_path: Path) -> None:
    after(tmp_path, night(1, "bb"))
    folder = tmp_path / "history" / "cpu" / "2026-11-02"
    folder.mkdir()
    (folder / "torn.parquet").write_bytes(b"PAR1")
    (folder / "folder.parquet").mkdir()
    newer = night(2, "ww")
    newer = newer._replace(head=msgspec.structs.replace(newer.head, schema=SCHEMA_VERSION + 1))
    stores.write_atomically(folder / "newer.parquet", pack(newer.head, newer.cells))
    (tmp_path / "history" / "cpu" / "notes").mkdir()
    (tmp_path / "history" / "cpu" / "notes" / "x.parquet").write_text("mine")
    remembered = after(tmp_path, night(3, "ww"))
    assert kinds(remembered) == {A: ChangeKind.FIXED, B: ChangeKind.FIXED}
    assert [n.run for n in remembered.nights] == ["r1", "r3"]
    assert len(remembered.troubles) == 3
    assert sum("newer version" in line for line in remembered.troubles) == 1


def test_a_full_disk_keeps_no_report_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after(tmp_path, night(1, "bb"))

    def full(_file: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matrix.history.snapshots.write_atomically", full)
    remembered = after(tmp_path, night(2, "ww"))
    assert remembered.troubles == ["no snapshot of this run is kept: No space left on device"]
    assert kinds(remembered) == {A: ChangeKind.FIXED, B: ChangeKind.FIXED}
    assert [n.run for n in remembered.nights] == ["r1", "r2"]


def test_many_nights_make_objects_only_of_what_turned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(1, 29):
        made = night(day, "wb" if day < 20 else "bb")
        History(tmp_path, "cpu").add(made)

    def no_rows(file: Path) -> Snapshot:
        raise AssertionError(f"{file} is read by rows")

    monkeypatch.setattr("matrix.history.folder.read", no_rows)
    history = History(tmp_path, "cpu")
    assert len(history.nights()) == 28
    past = history.past(history.entries)
    assert {name: len(turns) for name, turns in past.items()} == {A: 2, B: 1}


def test_two_profiles_of_one_run_do_not_take_each_others_place(tmp_path: Path) -> None:
    made = night(1, "ww")
    names = ["cpu", "a/b", "..", "cpu.today"]
    for name in names:
        head = msgspec.structs.replace(made.head, profile=name)
        after(tmp_path, made._replace(head=head))
    for name in names:
        assert [entry.head.profile for entry in History(tmp_path, name).entries] == [name]
    files = list(tmp_path.rglob("*.parquet"))
    assert len(files) == len(list((tmp_path / "history").glob("*/*/*.parquet"))) == len(names)


def part_of(run: str, made: Snapshot, *, unfinished: bool) -> Snapshot:
    head = msgspec.structs.replace(made.head, runs=["r0", run], unfinished=unfinished)
    return made._replace(head=head)


def test_a_report_in_the_middle_of_a_night_is_no_base(tmp_path: Path) -> None:
    middle = part_of("r3", night(2, "bi"), unfinished=True)
    end = part_of("r3-again-3", night(3, "bb"), unfinished=False)
    remembered = after(tmp_path, night(1, "ww"), middle, end)
    assert kinds(remembered) == {A: ChangeKind.REGRESSED, B: ChangeKind.REGRESSED}
    # The middle of another run is one like any other: some machines never finish.
    remembered = after(tmp_path, part_of("r5", night(4, "wi"), unfinished=True))
    remembered = after(tmp_path, part_of("r6", night(5, "bb"), unfinished=True))
    assert kinds(remembered)[A] is ChangeKind.REGRESSED
    assert remembered.changes is not None
    assert remembered.changes.old == "2026-11-04 r4"
