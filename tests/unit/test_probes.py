"""What the harness sees to before it starts a probe's server."""

from __future__ import annotations

from pathlib import Path

from matrix.run.probes import remove_stale_locks


def touched(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def test_locks_of_compilations_that_were_cut_off_are_removed_and_nothing_else(
    tmp_path: Path,
) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside" / "torch_extensions"
    stale = [
        touched(home / ".cache/gptqmodel/torch_extensions/pack_block_cpu/aa3e/lock"),
        touched(home / "cache/torch_extensions/py311_cpu/awq_ext/lock"),
    ]
    kept = [
        touched(stale[0].with_name("build.ninja")),
        touched(home / "cache/other/lock"),
        touched(outside / "lock"),
    ]
    (home / "link").symlink_to(outside.parent)
    (home / "torch_extensions").symlink_to(outside)
    remove_stale_locks(home)
    assert not any(file.exists() for file in stale)
    assert all(file.exists() for file in kept)


def test_a_home_that_is_not_there_yet_or_nests_has_none(tmp_path: Path) -> None:
    remove_stale_locks(tmp_path / "none")
    deep = tmp_path.joinpath(*["d"] * 400)
    deep.mkdir(parents=True)
    remove_stale_locks(tmp_path)
