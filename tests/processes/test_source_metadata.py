"""What source archives require, read in parts from an index on the loopback that may lie."""

from __future__ import annotations

import gzip
import tarfile
from random import Random

import pytest

from matrix.index import byte_ranges, source_metadata
from matrix.index.client import Index
from matrix.spec.snapshot import Release, SourceMetadata
from tests.processes import index_server as served
from tests.processes.index_server import Member, Server, file, page

SDIST = "made_up-1.0.tar.gz"
ROOT = "made_up-1.0"
HEAD = "Metadata-Version: {}\nName: Made_Up\nVersion: 1.0\n"
EGG = "made_up.egg-info/requires.txt"


def pkg_info(*requirements: str, version: str = "2.1", more: str = "") -> str:
    lines = [f"Requires-Dist: {requirement}\n" for requirement in requirements]
    return "".join([HEAD.format(version), more, *lines])


def tar(*members: Member, kind: bytes = tarfile.REGTYPE) -> bytes:
    return served.tar(ROOT, *members, kind=kind)


def sdist(*members: Member) -> bytes:
    return served.sdist(ROOT, *members)


def read(server: Server, index: Index, body: bytes) -> Release:
    server.serve("made-up", page("made-up", file(SDIST)))
    server.answers[f"/files/{SDIST}"] = served.in_parts(body)
    answer = index.ask({"made-up": "0"})["made-up"]
    assert answer.trouble == ""
    assert server.paths()[-1] == f"/files/{SDIST}"
    return answer.releases[0]


SETUPTOOLS = 'torch>=2\n\n[:python_version < "3.14"]\nnumpy==2.2.6\n\n[test]\npytest\n'
STATIC = '[project]\nname = "made-up"\ndependencies = ["torch>=2", "Numpy"]\n'

BELIEVED = {
    "PKG-INFO of before Metadata 2.2": (
        [("PKG-INFO", pkg_info("torch>=2", 'numpy ; python_version<"3.14"', 'a; extra == "b"'))],
        SourceMetadata(["torch>=2", 'numpy ; python_version<"3.14"'], "PKG-INFO"),
    ),
    "static PKG-INFO": (
        [("PKG-INFO", pkg_info("torch>=2", version="2.4", more="Dynamic: version\n"))],
        SourceMetadata(["torch>=2"], "PKG-INFO"),
    ),
    "PKG-INFO that says it may be built otherwise, as autoawq 0.2.9's": (
        [("PKG-INFO", pkg_info("torch", version="2.4", more="Dynamic: requires-dist\n"))],
        SourceMetadata(["torch"], "PKG-INFO"),
    ),
    "PKG-INFO before an egg-info": (
        [(EGG, "numpy"), ("PKG-INFO", pkg_info("torch"))], SourceMetadata(["torch"], "PKG-INFO"),
    ),
    "an egg-info, as auto-gptq 0.3.2's": (
        [("PKG-INFO", pkg_info()), (EGG, SETUPTOOLS), ("pyproject.toml", STATIC)],
        SourceMetadata(["torch>=2", 'numpy==2.2.6; python_version < "3.14"'], EGG),
    ),
    "an egg-info below src": (
        [("src/" + EGG, "torch"), ("PKG-INFO", pkg_info())],
        SourceMetadata(["torch"], "src/" + EGG),
    ),
    "a static pyproject.toml": (
        [("PKG-INFO", pkg_info('a; extra == "b"')), ("pyproject.toml", STATIC)],
        SourceMetadata(["torch>=2", "Numpy"], "pyproject.toml"),
    ),
    "a pyproject.toml that requires nothing": (
        [("PKG-INFO", pkg_info()), ("pyproject.toml", '[project]\nname = "made-up"\n')],
        SourceMetadata([], "pyproject.toml"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("where", BELIEVED)
def test_a_source_archive_says_what_it_requires(server: Server, index: Index, where: str) -> None:
    members, expected = BELIEVED[where]
    release = read(server, index, sdist(*members))
    assert release.source == expected
    assert release.requires == expected.requires_dist
    assert release.declares is None


def test_an_archive_is_read_no_further_than_its_pkg_info(server: Server, index: Index) -> None:
    noise = Random(0).randbytes(1_600_000)
    body = sdist(("PKG-INFO", pkg_info("torch")), ("weights.bin", noise))
    assert len(body) > 1_000_000
    assert read(server, index, body).requires == ["torch"]
    ranges = [part for path, part in server.asked if path.endswith(".tar.gz")]
    assert ranges == ["bytes=0-65535"]


def test_what_lies_behind_large_files_is_read_in_parts(server: Server, index: Index) -> None:
    noise = Random(0).randbytes(320_000)
    body = sdist(("data.bin", noise), ("PKG-INFO", pkg_info("torch")))
    assert read(server, index, body).requires == ["torch"]
    ranges = [part for path, part in server.asked if path.endswith(".tar.gz")]
    assert len(ranges) > 3
    assert all(part.startswith("bytes=") for part in ranges)


def test_an_archive_is_asked_once_for_ever(server: Server, index: Index) -> None:
    assert read(server, index, sdist(INFO)).requires == ["torch"]
    del server.answers[f"/files/{SDIST}"]
    again = index.ask({"made-up": "0"})["made-up"].releases[0]
    assert again.source == SourceMetadata(["torch"], "PKG-INFO")


def test_a_wheel_is_believed_before_a_source_archive(server: Server, index: Index) -> None:
    server.serve("made-up", page("made-up", file(SDIST), file(served.WHEEL)))
    body = served.wheel("made_up", "1.0", "numpy")
    server.answers[f"/files/{served.WHEEL}"] = served.in_parts(body)
    release = index.ask({"made-up": "0"})["made-up"].releases[0]
    assert (release.declares, release.source) == (["numpy"], None)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(f"{ROOT}/{name}")
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


INFO = ("PKG-INFO", pkg_info("torch"))
NONE = ("PKG-INFO", pkg_info())
HOSTILE = {
    "another release": sdist(("PKG-INFO", pkg_info("torch").replace("1.0", "2.0"))),
    "another package": sdist(("PKG-INFO", pkg_info("torch").replace("Made_Up", "evil"))),
    "no PKG-INFO": sdist((EGG, "torch"), ("pyproject.toml", STATIC)),
    "PKG-INFO of something within": sdist(("vendored/PKG-INFO", pkg_info("torch"))),
    "PKG-INFO beside the folder": gzip.compress(served.tar(f"{ROOT}/..", INFO)),
    "no gzip": b"x" * 5000,
    "a tar": tar(INFO),
    "no tar": gzip.compress(b"x" * 5000),
    "empty": b"",
    "an empty gzip": gzip.compress(b""),
    "truncated": sdist(INFO)[:-30],
    "truncated in PKG-INFO": gzip.compress(tar(INFO)[:520]),
    "a damaged header": gzip.compress(b"y" + tar(INFO)[1:]),
    "a damaged gzip": sdist(INFO)[:10] + b"\xff" * 50,
    "PKG-INFO is a link": gzip.compress(tar(INFO, kind=tarfile.SYMTYPE)),
    "PKG-INFO is a hard link": gzip.compress(tar(INFO, kind=tarfile.LNKTYPE)),
    "PKG-INFO is a folder": gzip.compress(tar(INFO, kind=tarfile.DIRTYPE)),
    "a large PKG-INFO": sdist(("PKG-INFO", pkg_info("torch") + "\n" + " " * 1_100_000)),
    "PKG-INFO of gigabytes": gzip.compress(header("PKG-INFO", 1 << 40)),
    "a member of gigabytes": gzip.compress(header("data.bin", 1 << 40)),
    "a member of less than nothing": gzip.compress(header("data.bin", -1024) + tar(INFO)),
    "a name of gigabytes": gzip.compress(header("@LongLink", 1 << 40, tarfile.GNUTYPE_LONGNAME)),
    "an extended header of gigabytes": gzip.compress(header("x", 1 << 40, tarfile.XHDTYPE)),
    "a bomb": gzip.compress(header("zeros", 35_000_320) + bytes(35_000_320) + tar(INFO)),
    "a bomb within a bomb": gzip.compress(gzip.compress(bytes(10_000_000))),
    "too many members": gzip.compress(header("empty", 0) * 20_001 + tar(INFO)),
    "no requirement": sdist(("PKG-INFO", pkg_info("torch", "what is this?"))),
    "a requirement with an address": sdist(("PKG-INFO", pkg_info("torch @ file:///etc/passwd"))),
    "a requirement that is not shown": sdist(("PKG-INFO", pkg_info("torch ===\x1b[31m"))),
    "a long requirement": sdist(("PKG-INFO", pkg_info("torch>=1" + ",>=1" * 200))),
    "a thousand requirements": sdist(("PKG-INFO", pkg_info(*["torch"] * 1000))),
    "an egg-info that is none": sdist(NONE, (EGG, "what is this?\n")),
    "two lies": sdist(NONE, (EGG, b"\xff\xfe"), ("pyproject.toml", b"\xff")),
    "nothing to be believed": sdist(NONE, (EGG, "[all]\ntorch\n")),
    "requirements that only a setup.py reads": sdist(
        ("PKG-INFO", pkg_info('a; extra == "b"', version="2.4")),
        ("requirements.txt", "torch"), ("setup.py", "raise SystemExit('it was run')"),
    ),
    "dynamic dependencies": sdist(
        NONE, ("pyproject.toml", '[project]\nname = "made-up"\ndynamic = ["dependencies"]\n')
    ),
    "a large pyproject.toml": sdist(NONE, ("pyproject.toml", STATIC + "#" * 1_100_000)),
    "a pyproject.toml that is a link": gzip.compress(
        tar(NONE)[:1024] + tar(("pyproject.toml", STATIC), kind=tarfile.SYMTYPE)
    ),
    "no project": sdist(NONE, ("pyproject.toml", "[build-system]\nrequires = []\n")),
    "a project that is none": sdist(NONE, ("pyproject.toml", "project = 3\n")),
    "dynamic that is none": sdist(NONE, ("pyproject.toml", "[project]\ndynamic = 3\n")),
    "dependencies that are none": sdist(
        NONE, ("pyproject.toml", "[project]\ndependencies = [1]\n")
    ),
    "deep TOML": sdist(NONE, ("pyproject.toml", "a = " + "[" * 100_000)),
}  # fmt: skip


@pytest.mark.parametrize("bad", HOSTILE)
def test_an_archive_that_cannot_be_believed_requires_nothing_known(
    server: Server, index: Index, bad: str
) -> None:
    release = read(server, index, HOSTILE[bad])
    assert (release.source, release.requires) == (None, None)


def test_only_so_much_of_an_archive_is_downloaded(
    server: Server, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = Random(0).randbytes(160_000)
    body = sdist(("data.bin", noise), ("PKG-INFO", pkg_info("torch")))
    monkeypatch.setattr(byte_ranges, "READ_BYTES", 100_000)
    assert read(server, index, body).requires is None
    monkeypatch.setattr(byte_ranges, "READ_BYTES", 200_000)
    assert read(server, index, body).requires == ["torch"]


def test_only_so_much_is_unpacked(
    server: Server, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = sdist(("zeros", bytes(50_000)), ("PKG-INFO", pkg_info("torch")))
    monkeypatch.setattr(source_metadata, "UNPACKED_BYTES", 50_000)
    assert read(server, index, body).requires is None
    monkeypatch.setattr(source_metadata, "UNPACKED_BYTES", 60_000)
    assert read(server, index, body).requires == ["torch"]


def test_an_archive_that_is_no_tar_gz_is_not_asked_for(server: Server, index: Index) -> None:
    server.serve("made-up", page("made-up", file("made_up-1.0.zip")))
    assert index.ask({"made-up": "0"})["made-up"].releases[0].requires is None
    assert server.paths() == ["/simple/made-up/"]
