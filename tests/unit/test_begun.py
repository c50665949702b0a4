"""A step's note stays where its process is gone at once, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.store.begun import BegunSteps


def of_run(folder: Path, run: str, boot: str = "b1") -> BegunSteps:
    return BegunSteps(folder / "begun", run, boot)


def test_there_is_a_note_while_a_step_is_done_and_none_afterwards(tmp_path: Path) -> None:
    notes = of_run(tmp_path, "r1")
    with notes.noting("load", "k"):
        assert of_run(tmp_path, "r2").ended_in("load", "k") == ["r1"]
        assert notes.ended_in("load", "other") == notes.ended_in("generate", "k") == []
    assert notes.ended_in("load", "k") == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_who_leaves_a_step_by_an_exception_leaves_no_note(
    tmp_path: Path, error: type[BaseException]
) -> None:
    notes = of_run(tmp_path, "r1")
    with pytest.raises(error), notes.noting("load", "k"):
        raise error
    assert notes.ended_in("load", "k") == []


def test_ends_are_counted_until_the_step_is_left_once(tmp_path: Path) -> None:
    (tmp_path / "begun" / "load").mkdir(parents=True)
    (tmp_path / "begun" / "load" / "k").write_text("b1 r1\nb1 r2\n")
    assert of_run(tmp_path, "r3").ended_in("load", "k") == ["r1", "r2"]
    with of_run(tmp_path, "r3").noting("load", "k"):
        assert of_run(tmp_path, "r4").ended_in("load", "k") == ["r1", "r2", "r3"]
    assert of_run(tmp_path, "r4").ended_in("load", "k") == []


def test_what_ended_when_the_machine_did_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "begun" / "load").mkdir(parents=True)
    (tmp_path / "begun" / "load" / "k").write_text("b1 r1\nb2 r2\n")
    assert of_run(tmp_path, "r3", "b2").ended_in("load", "k") == ["r2"]


def test_two_at_once_need_one_note(tmp_path: Path) -> None:
    first, second = of_run(tmp_path, "r1"), of_run(tmp_path, "r2")
    with first.noting("load", "k"):
        with second.noting("load", "k"):
            pass
        assert second.ended_in("load", "k") == ["r1"]


@pytest.mark.parametrize("content", [b"\xff", b"", b"x" * 20_000])
def test_a_damaged_note_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "begun" / "load").mkdir(parents=True)
    (tmp_path / "begun" / "load" / "k").write_bytes(content)
    assert of_run(tmp_path, "r1").ended_in("load", "k") == []


def test_what_is_forgotten_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "begun" / "load").mkdir(parents=True)
    (tmp_path / "begun" / "load" / "k").write_text("b1 r1\n")
    notes = of_run(tmp_path, "r2")
    notes.forget("load", "k")
    notes.forget("load", "none")
    assert notes.ended_in("load", "k") == []
