"""Whatever the bytes of a source archive are, they end in requirements or in a line of trouble."""

from __future__ import annotations

import gzip
import io
import tarfile

from hypothesis import example, given
from hypothesis import strategies as st

from matrix.index.fetching import Fetched, FetchError
from matrix.index.source_metadata import Sdist, source_metadata
from matrix.spec.snapshot import SourceMetadata

PKG_INFO = b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n"
EGG = b'torch>=2\n\n[:python_version < "3.14"]\nnumpy\n\n[all]\npytest\n'
PROJECT = b'[project]\nname = "made-up"\ndependencies = ["torch"]\n'


def tar(*members: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(f"made-up-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def read(body: bytes) -> SourceMetadata | None:
    def get(address: str, part: str) -> Fetched:
        first, last = map(int, part.split("-"))
        return Fetched(address, "", body[first : last + 1], len(body))

    try:
        return source_metadata(Sdist("somewhere", "it"), get, "made-up", "1.0")
    except FetchError:
        return None


def check(body: bytes) -> None:
    """What comes of it is fit for uv: requirements that can be read, each in a line of its own."""
    for requirement in (read(body) or SourceMetadata([], "")).requires_dist:
        assert requirement.isascii()
        assert requirement.isprintable()


WHOLE = tar(("made_up.egg-info/requires.txt", EGG), ("pyproject.toml", PROJECT),
            ("PKG-INFO", PKG_INFO))  # fmt: skip


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=20))
def test_a_damaged_archive(place: int, damage: bytes) -> None:
    check(gzip.compress(WHOLE[:place] + damage + WHOLE[place + len(damage) :], 1))


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100))
@example(b"Requires-Dist: torch\xff\n", b"[:\n]\ntorch\n[", b"\xef\xbb\xbf[project]")
@example(b"Dynamic: \xff\nName: evil\n", b"[a:b:c]\n\xff", b"project.dependencies = {}")
def test_files_that_hold_anything(info: bytes, egg: bytes, project: bytes) -> None:
    check(gzip.compress(tar(("made_up.egg-info/requires.txt", egg + EGG),
                            ("pyproject.toml", project + PROJECT),
                            ("PKG-INFO", PKG_INFO + info)), 1))  # fmt: skip


def test_an_undamaged_archive_is_believed() -> None:
    assert read(gzip.compress(WHOLE, 1)) == SourceMetadata(
        ["torch>=2", 'numpy; python_version < "3.14"'], "made_up.egg-info/requires.txt"
    )
