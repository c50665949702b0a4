"""What removing folders frees, counted as the file system does."""

from __future__ import annotations

import os
from pathlib import Path

from matrix.cli.clean import BLOCK, freed, remove, size
from matrix.store.store import Store

BYTES = 300_000


def written(file: Path) -> int:
    """Write a file to the disk; return the bytes that it takes there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.write(os.urandom(BYTES))
        stream.flush()
        os.fsync(stream.fileno())
    return file.stat().st_blocks * BLOCK


def blocks(*folders: Path) -> int:
    return sum(folder.stat().st_blocks * BLOCK for folder in folders)


def test_a_file_with_a_name_elsewhere_frees_nothing(tmp_path: Path) -> None:
    folder, cache = tmp_path / "environment", tmp_path / "cache"
    own = written(folder / "own")
    written(cache / "shared")
    os.link(cache / "shared", folder / "shared")
    assert own >= BYTES
    assert freed([folder]) == own + blocks(folder)


def test_a_file_all_of_whose_names_go_is_freed_once(tmp_path: Path) -> None:
    environment, pool = tmp_path / "environment", tmp_path / "bytecode"
    taken = written(environment / "a.pyc")
    pool.mkdir()
    os.link(environment / "a.pyc", pool / "a.pyc")
    assert freed([environment]) == blocks(environment)
    assert freed([environment, pool]) == taken + blocks(environment, pool)
    assert size(tmp_path) == taken + blocks(tmp_path, environment, pool)


def test_links_are_not_followed_and_what_is_gone_counts_nothing(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    written(outside / "large")
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "broken").symlink_to(tmp_path / "nowhere")
    assert freed([folder, tmp_path / "gone"]) < BYTES


def test_what_is_removed_is_gone_at_once_and_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = store.path("models", "k1", "model", "x").parent
    written(folder / "x")
    kept = store.path("models", "k1", "reference.json")
    kept.write_text("{}")
    remove(store, [folder, folder])
    assert not folder.exists()
    assert kept.exists()
    assert list((store.root / "work").iterdir()) == []
