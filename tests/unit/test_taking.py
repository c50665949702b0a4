"""What a step left is copied as regular files within bounds, or refused in a line that says why."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from matrix.store import taking
from matrix.store.store import FILES, write_json
from matrix.store.taking import damage_of, take_over
from matrix.untrusted.reading import UnreadableError

BYTES = 1000


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a folder as a step leaves it."""
    folder = tmp_path / "output"
    (folder / "deeper" / "empty").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "deeper" / "naïve name.json").write_bytes(b"{}")
    (folder / "model.safetensors").chmod(0o4777)
    return folder


def test_files_are_copied_with_sizes_digests_and_rights_of_our_own(
    made: Path, tmp_path: Path
) -> None:
    taken = take_over(made, tmp_path / "copy", BYTES).files
    assert {name: file.size for name, file in taken.items()} == {
        "model.safetensors": 7, "deeper/naïve name.json": 2,
    }  # fmt: skip
    for name, file in taken.items():
        copy = tmp_path / "copy" / name
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == file.sha256
        assert stat.S_IMODE(copy.stat().st_mode) == 0o644
    assert not [path for path in made.rglob("*") if path.is_file()], "room is given back"


def test_a_hole_takes_no_room_in_the_copy_and_reads_the_same(made: Path, tmp_path: Path) -> None:
    with (made / "sparse").open("wb") as file:
        file.seek(50_000_000)
        file.write(b"end")
        file.truncate(60_000_000)
    digest = hashlib.sha256((made / "sparse").read_bytes()).hexdigest()
    taken = take_over(made, tmp_path / "copy", 100_000_000).files["sparse"]
    copy = tmp_path / "copy" / "sparse"
    assert (taken.size, taken.sha256) == (60_000_000, digest)
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == digest
    assert copy.stat().st_blocks * 512 < 10_000_000


def test_a_file_that_is_held_open_changes_no_copy(made: Path, tmp_path: Path) -> None:
    with (made / "model.safetensors").open("r+b") as held:
        taken = take_over(made, tmp_path / "copy", BYTES)
        held.write(b"others!")
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == b"weights"
    write_json(tmp_path / FILES, taken)
    assert damage_of(tmp_path / "copy", tmp_path / FILES) == ""


def nest(place: Path) -> None:
    place.joinpath(*["d"] * (taking.DEEPEST + 1)).mkdir(parents=True)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (lambda place: place.symlink_to("model.safetensors"), "output/x is a link"),
    "a link outwards": (lambda place: place.symlink_to("/etc/passwd"), "output/x is a link"),
    "a link to a folder": (lambda place: place.symlink_to("/etc"), "output/x is a link"),
    "a pipe": (os.mkfifo, "output/x is neither a file nor a folder"),
    "a socket": (lambda place: os.mknod(place, stat.S_IFSOCK),
                 "output/x is neither a file nor a folder"),
    "a hard link": (lambda place: place.hardlink_to(place.with_name("model.safetensors")),
                    "has a second name elsewhere"),
    "folders without end": (nest, "lies deeper than 10 folders"),
    "a line break": (lambda place: place.with_name("a\nb").touch(), "has a name that is no plain"),
    "no UTF-8": (lambda place: place.with_name(os.fsdecode(b"a\xff")).touch(), "is no plain text"),
    "an escape": (lambda place: place.with_name("a\x1b[31m").touch(), "is no plain text"),
    "too much": (lambda place: place.write_bytes(b"x" * BYTES), "more than 1,000 bytes"),
    "a hole": (lambda place: os.truncate(place.open("w").name, 2**40), "more than 1,000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_all_else_is_refused_with_what_it_is(
    made: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    make, message = REFUSED[what]
    make(made / "x")
    with pytest.raises(UnreadableError, match=message) as raised:
        take_over(made, tmp_path / "copy", BYTES)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("spread", [True, False])
def test_too_many_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spread: bool
) -> None:
    monkeypatch.setattr(taking, "MAX_FILES", 3)
    for number in range(4):
        folder = tmp_path / "output" / str(number % 2 if spread else 0)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).touch()
    with pytest.raises(UnreadableError, match="has more than 3 files"):
        take_over(tmp_path / "output", tmp_path / "copy", BYTES)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "output").symlink_to(tmp_path)
    with pytest.raises(UnreadableError, match="output is no folder"):
        take_over(tmp_path / "output", tmp_path / "copy", BYTES)
    with pytest.raises(FileNotFoundError):
        take_over(tmp_path / "none", tmp_path / "another", BYTES)


def remade(place: Path) -> None:
    data = place.read_bytes()
    place.unlink()
    elsewhere = place.parents[1] / "elsewhere"
    elsewhere.write_bytes(data)
    place.symlink_to(elsewhere)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed byte": (lambda file: file.write_bytes(b"Weights"), "is not what was written"),
    "a byte more": (lambda file: file.write_bytes(b"weights!"), "more bytes"),
    "a byte less": (lambda file: file.write_bytes(b"weight"), "is not what was written"),
    "missing": (lambda file: file.unlink(), "is missing"),
    "a file more": (lambda file: file.with_name("new").touch(), "new was not there"),
    "a link": (remade, "is a link"),
    "no list": (lambda file: (file.parents[1] / FILES).unlink(), FILES),
    "another list": (lambda file: (file.parents[1] / FILES).write_text('{"files": {}}'),
                     "has no digest"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES)
def test_every_later_change_is_noticed(made: Path, tmp_path: Path, what: str) -> None:
    write_json(tmp_path / FILES, take_over(made, tmp_path / "copy", BYTES))
    assert damage_of(tmp_path / "copy", tmp_path / FILES) == ""
    change, message = DAMAGES[what]
    change(tmp_path / "copy" / "model.safetensors")
    assert message in damage_of(tmp_path / "copy", tmp_path / FILES)
