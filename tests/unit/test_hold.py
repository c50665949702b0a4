"""A folder that is held open: what is put in its place leads nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.store.taking import take_over
from matrix.untrusted.reading import UnreadableError, hold
from matrix.untrusted.removing import remove


@pytest.fixture
def bait(tmp_path: Path) -> Path:
    """Return a folder of the user's that looks like a job's."""
    bait = tmp_path / "bait"
    (bait / "output").mkdir(parents=True)
    (bait / "output" / "file").write_text("of the user")
    return bait


def test_what_is_taken_and_removed_is_in_the_folder_that_was_held(
    tmp_path: Path, bait: Path
) -> None:
    work = tmp_path / "work"
    (work / "output").mkdir(parents=True)
    (work / "output" / "mine").write_text("of the job")
    with hold(work) as inside:
        work.rename(tmp_path / "moved")
        work.symlink_to(bait)
        assert list(take_over(inside / "output", tmp_path / "taken", 100).files) == ["mine"]
        remove(inside / "output")
    assert not (tmp_path / "moved" / "output").exists()
    assert (bait / "output" / "file").read_text() == "of the user"


def test_a_link_and_a_file_are_not_held(tmp_path: Path, bait: Path) -> None:
    (tmp_path / "link").symlink_to(bait)
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with (
            pytest.raises(UnreadableError, match=f"{name} is a link or no folder"),
            hold(tmp_path / name),
        ):
            pass
