"""What wheels require, read in parts from an index on the loopback that may lie."""

from __future__ import annotations

import hashlib
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from matrix.index import byte_ranges as parts
from matrix.index.client import Index, IndexAnswer, IndexLimits
from matrix.index.fetching import Limits
from matrix.index.settings import IndexSettings
from matrix.index.wheel_metadata import declared
from tests.processes import index_server as served
from tests.processes.index_server import WHEEL, Handler, Server, file, page


def ask(index: Index, since: str = "0") -> IndexAnswer:
    (answer,) = index.ask({"made-up": since}).values()
    return answer


def declares(index: Index, since: str = "0") -> list[str] | None:
    return ask(index, since).releases[-1].declares


REQUIRES = (
    "torch==2.1.2", "Made-Up-Too>=1", "requests", 'numpy<2; extra == "all"',
    'Tokenizers (>=0.19); python_version >= "3.8"',
)  # fmt: skip
DECLARED = ['tokenizers>=0.19; python_version >= "3.8"', "torch==2.1.2"]


@pytest.mark.parametrize("padding", [0, 100, 16_000, 3_000_000])
def test_a_wheel_says_what_it_requires_without_being_downloaded(
    server: Server, index: Index, padding: int
) -> None:
    body = served.wheel("made_up", "1.0", *REQUIRES, padding=padding)
    server.serve("made-up", page("made-up", file(WHEEL)))
    server.answers[f"/files/{WHEEL}"] = served.in_parts(body)
    requirements = declares(index)
    assert requirements is not None
    assert sorted(requirement.lower() for requirement in requirements) == DECLARED
    parts = [part for path, part in server.asked if path.endswith(".whl")]
    assert parts
    assert all(part.startswith("bytes=") for part in parts)
    assert len(parts) <= 3


def test_a_wheel_is_asked_once_for_ever(server: Server, index: Index) -> None:
    server.serve("made-up", page("made-up", file(WHEEL)))
    server.answers[f"/files/{WHEEL}"] = served.in_parts(served.wheel("made_up", "1.0", "torch"))
    assert declares(index) == ["torch"]
    del server.answers[f"/files/{WHEEL}"]
    assert declares(index) == ["torch"]


def test_two_packages_that_claim_one_hash_are_asked_both(server: Server, index: Index) -> None:
    """Else a page that lies about a hash would have what another's wheel requires."""
    same = {"sha256": "0" * 64}
    for package, requires in (("made-up", "torch"), ("other", "numpy")):
        name = f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
        server.serve(package, page(package, file(name, hashes=same)))
        body = served.wheel(package.replace("-", "_"), "1.0", requires)
        server.answers[f"/files/{name}"] = served.in_parts(body)
    answers = [index.ask({package: "0"})[package].releases for package in ("made-up", "other")]
    assert [[release.declares for release in releases] for releases in answers] == [
        [["torch"]],
        [["numpy"]],
    ]


def test_metadata_that_is_offered_spares_the_wheel(server: Server, index: Index) -> None:
    server.serve("made-up", page("made-up", file(WHEEL, core_metadata=True)))
    text = b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\nRequires-Dist: torch>=2\n"
    server.answers[f"/files/{WHEEL}.metadata"] = lambda on: on.send(text, "text/plain")
    assert declares(index) == ["torch>=2"]
    assert f"/files/{WHEEL}" not in server.paths()


def test_metadata_that_is_offered_and_not_there_is_read_from_the_wheel(
    server: Server, index: Index
) -> None:
    server.serve("made-up", page("made-up", file(WHEEL, core_metadata={"sha256": "00"})))
    server.answers[f"/files/{WHEEL}"] = served.in_parts(served.wheel("made_up", "1.0", "torch"))
    assert declares(index) == ["torch"]


def test_only_files_that_matter_are_read(server: Server, index: Index) -> None:
    names = ["made_up-1.0-py3-none-any.whl", "made_up-2.0-cp310-cp310-manylinux1_x86_64.whl",
             "made_up-2.0-cp311-cp311-manylinux1_x86_64.whl", "made_up-2.0-cp311-cp311-win32.whl",
             "made_up-3.0.tar.gz"]  # fmt: skip
    server.serve("made-up", page("made-up", *map(file, names)))
    ask(index, since="2.0")
    ask(index, since="")
    assert {path for path in server.paths() if path.startswith("/files/")} == {
        "/files/made_up-2.0-cp311-cp311-manylinux1_x86_64.whl",
        "/files/made_up-3.0.tar.gz",  # of which there is no wheel
    }


def bomb() -> bytes:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        text = b"Name: made-up\nVersion: 1.0\nRequires-Dist: torch\n\n" + b" " * 100_000_000
        archive.writestr("made_up-1.0.dist-info/METADATA", text)
    return packed.getvalue()


def twice() -> bytes:
    packed = BytesIO(served.wheel("made_up", "1.0", "torch"))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("evil-1.0.dist-info/METADATA", "")
    return packed.getvalue()


BAD_WHEELS = {
    "another release": served.wheel("made_up", "2.0", "torch"),
    "another package": served.wheel("evil", "1.0", "torch"),
    "no zip": b"x" * 5000,
    "empty": b"",
    "a truncated zip": served.wheel("made_up", "1.0", "torch")[:-10],
    "no METADATA": served.wheel("made_up", "1.0").replace(b"METADATA", b"METADATE"),
    "METADATA twice": twice(),
    "a bomb": bomb(),
    "a directory of gigabytes": b"PK\x05\x06"
    + bytes(6)
    + b"\xff\xff"
    + b"\xff" * 7
    + b"\x7f\x00\x00",
}


@pytest.mark.parametrize("bad", BAD_WHEELS)
def test_a_wheel_that_cannot_be_believed_declares_nothing_known(
    server: Server, index: Index, bad: str
) -> None:
    server.serve("made-up", page("made-up", file(WHEEL)))
    server.answers[f"/files/{WHEEL}"] = served.in_parts(BAD_WHEELS[bad])
    answer = ask(index, since="0")
    assert (answer.trouble, answer.releases[0].declares) == ("", None)
    assert server.paths()[-1] == f"/files/{WHEEL}"


def metadata_first() -> bytes:
    packed = BytesIO(served.wheel("made_up", "1.0", "torch"))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("made_up/data.bin2", bytes(100_000))
    return packed.getvalue()


def test_only_so_much_of_a_wheel_is_read(
    server: Server, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve("made-up", page("made-up", file(WHEEL)))
    server.answers[f"/files/{WHEEL}"] = served.in_parts(metadata_first())
    monkeypatch.setattr(parts, "READ_BYTES", 20_000)
    assert declares(index) is None
    monkeypatch.setattr(parts, "READ_BYTES", 40_000)
    assert declares(index) == ["torch"]


def test_a_wheel_that_changes_while_it_is_read_declares_nothing_known(
    server: Server, index: Index
) -> None:
    body = metadata_first()
    parts = [served.in_parts(body), served.in_parts(body + b"x")]
    server.serve("made-up", page("made-up", file(WHEEL)))
    server.answers[f"/files/{WHEEL}"] = lambda on: parts.pop(0)(on)
    assert declares(index) is None
    assert parts == []


def test_parts_are_asked_for_as_they_lie_in_the_file(server: Server, index: Index) -> None:
    """A part of a packed file is no part of the file."""
    parts = served.in_parts(served.wheel("made_up", "1.0", "torch"))
    server.serve("made-up", page("made-up", file(WHEEL)))
    server.answers[f"/files/{WHEEL}"] = lambda on: (
        parts(on) if on.headers.get("Accept-Encoding") == "identity" else on.send(b"", status=500)
    )
    assert declares(index) == ["torch"]


def send_whole(on: Handler) -> None:
    on.send(served.wheel("made_up", "1.0", "torch"), status=200)


def send_other_part(on: Handler) -> None:
    on.send(served.wheel("made_up", "1.0", "torch")[:50], status=206, Content_Range="bytes 0-49/90")


def send_no_size(on: Handler) -> None:
    on.send(served.wheel("made_up", "1.0", "torch"), status=206)


@pytest.mark.parametrize("respond", [send_whole, send_other_part, send_no_size, served.drip])
def test_a_server_that_does_not_send_parts_is_not_listened_to(
    server: Server, tmp_path: Path, respond: served.Respond
) -> None:
    seconds = 0.3 if respond is served.drip else 600.0
    limits = IndexLimits(file=Limits(seconds=seconds, megabytes=1), files_seconds=2 * seconds)
    index = Index(IndexSettings([server.address]), tmp_path, limits)
    server.serve("made-up", page("made-up", file(WHEEL)))
    server.answers[f"/files/{WHEEL}"] = respond
    assert declares(index) is None


def test_requirements_that_are_none_are_passed_over(server: Server, index: Index) -> None:
    server.serve("made-up", page("made-up", file(WHEEL)))
    body = served.wheel("made_up", "1.0", "torch ===\x1b[31m", "torch?!", "", "torch<3")
    server.answers[f"/files/{WHEEL}"] = served.in_parts(body)
    assert declares(index) == ["torch<3"]


@pytest.mark.parametrize(("digest_of", "is_right"), [(b"", True), (b"other", False)])
def test_metadata_must_have_the_digest_that_its_page_says(
    server: Server, index: Index, digest_of: bytes, is_right: bool
) -> None:
    text = b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\nRequires-Dist: torch\n"
    digest = hashlib.sha256(digest_of or text).hexdigest()
    listed = file(WHEEL, core_metadata={"sha256": digest})
    server.serve("made-up", page("made-up", listed))
    server.answers[f"/files/{WHEEL}.metadata"] = lambda on: on.send(text)
    assert declares(index) == (["torch"] if is_right else None)


def test_a_requirement_of_thousands_of_letters_is_passed_over() -> None:
    assert declared(["torch>=1", f"torch=={'9' * 5000}"], {"torch"}) == ["torch>=1"]
