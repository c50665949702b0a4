"""What strangers wrote is removed, whatever it is. Tools of the system are started for some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from matrix.store.store import Store
from matrix.untrusted.removing import remove


def deep(folder: Path) -> None:
    """Make folders within each other, more than Python follows."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(3_000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def closed(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "file").write_text("text")
    (folder / "inner").chmod(0)


@pytest.mark.parametrize("fill", [deep, closed, lambda folder: folder.rmdir()])
def test_a_folder_goes_whatever_is_in_it(tmp_path: Path, fill: object) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert callable(fill)
    fill(folder)
    remove(folder)
    assert not list(tmp_path.iterdir())


def test_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    file, link = tmp_path / "there" / "file", tmp_path / "link"
    file.parent.mkdir()
    file.write_text("text")
    link.symlink_to(file.parent)
    (file.parent / "out").symlink_to(tmp_path)
    remove(link)
    assert (link.is_symlink(), file.read_text()) == (False, "text")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link").symlink_to(file.parent)
    remove(inner)
    assert (inner.exists(), file.read_text()) == (False, "text")


def test_what_a_run_leaves_in_a_store_goes_however_deep_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    left = store.path("work", f"job-{2**22 + 1}-abc", "file").parent
    deep(left)
    store.sweep()
    with store.work("job") as mine:
        deep(mine)
    assert not list((tmp_path / "work").iterdir())
