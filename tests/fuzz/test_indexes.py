"""What an index sends is releases and requirements, or one FetchError."""

from __future__ import annotations

import gzip
import io
import zipfile
from contextlib import suppress

from hypothesis import strategies as st

from matrix.index.byte_ranges import Get
from matrix.index.engine_methods import SOURCES, lists_in
from matrix.index.fetching import Fetched, FetchError
from matrix.index.news import merge, news
from matrix.index.pages import read_page
from matrix.index.source_metadata import Sdist, source_metadata
from matrix.index.wheel_metadata import Wheel, declared, file_within, wheel_requirements
from matrix.spec.snapshot import EMPTY, encode
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.mutations import like, like_json, maybe_damaged
from tests.unit.test_source_metadata import EGG, PKG_INFO, PROJECT, tar

JSON, HTML = "application/vnd.pypi.simple.v1+json", "text/html"
ADDRESS = "https://index.example/simple/made-up/"
WHEEL = "made_up-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
FILE = {
    "filename": WHEEL, "url": f"../{WHEEL}", "hashes": {"sha256": "0" * 64}, "size": 1000,
    "requires-python": ">=3.9", "upload-time": "2026-01-01T00:00:00.5Z", "yanked": "broken",
    "core-metadata": {"sha256": "1" * 64},
}  # fmt: skip
SDIST = {"filename": "made_up-1.1.tar.gz", "url": "/a", "hashes": {}, "yanked": False}
PAGE = {"meta": {"api-version": "1.1"}, "name": "made-up", "files": [FILE, SDIST]}
HTML_PAGE = f"""<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.0">
<base href="https://files.example/"></head><body><a href="../{WHEEL}#sha256={"0" * 64}"
data-requires-python="&gt;=3.9" data-yanked="broken" data-core-metadata="sha256=1">{WHEEL}</a><br>
<a href="https://a:b@x/made_up-1.1.tar.gz">made_up-1.1.tar.gz</a></body></html>""".encode()
METADATA = PKG_INFO + b"Requires-Dist: torch (>=2)\nRequires-Dist: a; extra == 'x'\n"
IN_WHEEL = "*.dist-info/METADATA"
LISTS = b'AUTO_QUANTIZER_MAPPING = {"awq": A, "gptq": B}\nOTHERS: list = ["fp8"]\n'


def check_page(data: bytes, kind: str) -> None:
    with suppress(FetchError):
        page = read_page("made-up", Fetched(ADDRESS, kind, data))
        merged = merge(EMPTY, {"made-up": page.releases}, "2026-11-30T00:00:00Z")
        assert encode(merged).decode()
        assert {change.kind for change in news(merged, {"made-up": page.releases})} <= {"redated"}


@fuzzed("pages", like_json(PAGE))
def test_a_page_in_json(data: bytes) -> None:
    check_page(data, JSON)


@fuzzed("html", like(HTML_PAGE))
def test_a_page_in_html(data: bytes) -> None:
    check_page(data, HTML)


def send(data: bytes) -> Get:
    """Return a server of one file, whole or in parts."""

    def get(address: str, part: str) -> Fetched:
        first, _, last = part.rpartition("-")
        size = len(data)
        start = int(first) if first else max(0, size - int(last)) if part else 0
        end = min(int(last) + 1, size) if first else size
        return Fetched(address, "", data[start:end], size)

    return get


@fuzzed("metadata", like(METADATA))
def test_metadata_of_a_wheel(data: bytes) -> None:
    with suppress(FetchError):
        wheel = Wheel(ADDRESS, "it", metadata=ADDRESS)
        requires = wheel_requirements(wheel, send(data), "made-up", "1.0")
        for requirement in declared(requires, {"torch", "a"}):
            assert requirement.isascii()
            assert requirement.isprintable()


def zipped(metadata: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("made_up/__init__.py", b"")
        archive.writestr("made_up-1.0.dist-info/METADATA", metadata)
    return packed.getvalue()


@fuzzed("wheels", like(zipped(METADATA)))
def test_a_wheel_that_is_read_in_parts(data: bytes) -> None:
    with suppress(FetchError):
        assert isinstance(file_within(Wheel(ADDRESS, "it"), send(data), IN_WHEEL), bytes)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Give a source archive that is damaged in its files, as a tar, or as a gzip."""
    files = {"made_up.egg-info/requires.txt": EGG, "pyproject.toml": PROJECT, "PKG-INFO": PKG_INFO}
    whole = tar(*((name, draw(maybe_damaged(text))) for name, text in files.items()))
    return draw(maybe_damaged(gzip.compress(draw(maybe_damaged(whole)), 1)))


@fuzzed("sources", archives())
def test_a_source_archive(data: bytes) -> None:
    with suppress(FetchError):
        read = source_metadata(Sdist(ADDRESS, "it"), send(data), "made-up", "1.0")
        for requirement in read.requires_dist:
            assert requirement.isascii()
            assert requirement.isprintable()


@fuzzed("lists", like(LISTS))
def test_a_list_of_methods(data: bytes) -> None:
    with suppress(FetchError):
        assert lists_in(data, SOURCES["transformers"]).read is not None
