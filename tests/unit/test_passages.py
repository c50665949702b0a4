"""What is kept of a log, however long and broken it is, and texts that are looked for in it."""

from __future__ import annotations

import random
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.diagnose import passages
from matrix.diagnose.passages import Excerpt, excerpt_of_text, read_excerpt
from matrix.diagnose.patterns import Pattern, PatternError

LITERAL = "object has no attribute 'rotary_emb'"
LINE = f"AttributeError: 'Qwen2Model' {LITERAL}"


def excerpt(data: bytes) -> Excerpt:
    return read_excerpt(BytesIO(data), [LITERAL, "unrelated words"])


@given(
    before=st.integers(0, 3 * passages.BLOCK // 2),
    after=st.integers(0, 3 * passages.BLOCK // 2),
    newlines=st.booleans(),
)
def test_a_line_is_found_whole_wherever_blocks_are_cut(
    before: int, after: int, newlines: bool
) -> None:
    filler = b"INFO all is well\n" if newlines else b"x"
    head = (filler * before)[:before]
    position = len(head) + (head[-1:] not in (b"", b"\n"))
    data = head + (b"\n" if position > len(head) else b"") + LINE.encode() + b"\n" + filler * after
    (passage,) = excerpt(data[: 4 * passages.BLOCK]).passages
    assert (passage.line, passage.position) == (LINE, position)


def test_a_text_that_lies_across_two_blocks_is_found() -> None:
    for cut in range(1, len(LINE)):
        data = b"x" * (passages.BLOCK - cut - 1) + b"\n" + LINE.encode()
        assert [passage.line for passage in excerpt(data).passages] == [LINE]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_logs_of_windows_are_read(encoding: str, ending: str) -> None:
    data = ending.join(["first", LINE, "last"]).encode(encoding)
    assert [passage.line for passage in excerpt(data).passages] == [LINE]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"\x1b[1;36m(EngineCore pid=7)\x1b[0;0m ERROR \x1b[31m{LINE}\x1b[0m",
         f"(EngineCore pid=7) ERROR {LINE}"),
        (LINE.replace(" ", "\x1b[0m \x1b[38;5;196m"), LINE),
        (f"\x1b[?25l\x1b[2K\x1b(B{LINE}", LINE),
        (f"\x1b]8;;file:///x.py\x1b\\{LINE}\x1b]8;;\x07", LINE),
    ],
)  # fmt: skip
def test_what_is_meant_for_a_terminal_is_left_out(line: str, shown: str) -> None:
    (passage,) = excerpt(f"{line}\n".encode()).passages
    assert passage.line == shown
    assert passage.in_exception


@given(st.binary(max_size=5000))
def test_any_bytes_are_read(data: bytes) -> None:
    assert all(isinstance(passage.line, str) for passage in excerpt(data).passages)


class Trickle(BytesIO):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 100, 100))


def test_a_log_that_trickles_is_read_as_one_that_is_there() -> None:
    data = f"{'filler ' * 2000}\n{LINE}\n{'filler ' * 2000}".encode()
    assert read_excerpt(Trickle(data), [LITERAL]) == excerpt(data)


def test_bytes_of_no_text_hide_nothing_beside_them() -> None:
    noise = random.Random(7).randbytes(1 << 16).replace(b"\n", b"")
    (passage,) = excerpt(noise + b"\n" + LINE.encode() + b"\n" + noise).passages
    assert passage.line == LINE


def test_of_a_line_that_comes_a_million_times_a_few_are_kept() -> None:
    lines = excerpt(f"{LINE}\n".encode() * 100_000).passages
    assert len(lines) == passages.FIRST + passages.LAST
    assert [line.position for line in lines[:2]] == [0, len(LINE) + 1]
    assert len(excerpt(LITERAL.encode() * 100_000).passages) <= passages.FIRST + passages.LAST


def test_a_line_that_holds_a_text_often_takes_one_place() -> None:
    lines = [LITERAL * 10, *(f"{number} {LINE}" for number in range(5))]
    kept = excerpt("\n".join(lines).encode()).passages
    assert [passage.line for passage in kept] == lines


def test_a_line_without_an_end_is_cut() -> None:
    (passage,) = excerpt(b"y" * 50_000 + LINE.encode() + b"z" * 50_000).passages
    assert LINE in passage.line
    assert len(passage.line) <= 2 * passages.LINE + len(LITERAL)


@pytest.mark.parametrize(
    ("before", "line"),
    [
        ('  File "/awq/quantizer.py", line 79, in scale\n', f"    assert {LITERAL}"),
        (
            "File ~/awq/quantizer.py:79, in scale(self)\n     78 x\n",
            f"---> 79     assert {LITERAL}",
        ),
        ("│ /awq/quantizer.py:79 in scale │\n", f"│ ❱   79 │   assert {LITERAL} │"),
        ("", f"ERROR {LITERAL}: Traceback (most recent call last):"),
    ],
)
def test_the_source_that_a_traceback_shows_belongs_to_the_exception(before: str, line: str) -> None:
    (passage,) = excerpt_of_text(f"{before}{line}\nAssertionError\n", [LITERAL]).passages
    assert passage.in_exception


def test_quotes_of_web_pages_and_chats_are_those_of_the_log() -> None:
    for quotes in ("‘’", ["&#39;", "&#39;"], ["&#x27;", "&#x27;"]):
        text = f"AttributeError: object has no attribute {quotes[0]}rotary_emb{quotes[1]}"
        (passage,) = excerpt_of_text(text, [LITERAL]).passages
        assert passage.line == f"AttributeError: {LITERAL}"


def test_a_line_after_a_warning_is_in_no_exception() -> None:
    (passage,) = excerpt_of_text(f"WARNING: module {LITERAL}\n", [LITERAL]).passages
    assert not passage.in_exception


def test_what_an_exception_says_may_have_several_lines() -> None:
    text = f"pydantic.ValidationError: 1 validation error for VllmConfig\n  Value error, {LITERAL}"
    (passage,) = excerpt_of_text(text, [LITERAL]).passages
    assert passage.in_exception


@pytest.mark.parametrize(
    ("text", "line", "fits"),
    [
        ("'*Model' object has no attribute", "'Qwen2Model' object has no attribute 'x'", True),
        ("'*Model' object has no attribute", "'Qwen2 Model' object has no attribute 'x'", False),
        ("tensor a (*) must match the size", "tensor a (12) must match the size", True),
        ("a.b.c.d.e is (missing)", "aXbXcXdXe is (missing)", False),
        ("requires `optimum`, and", "ImportError: requires `optimum`, and gptqmodel", True),
        ("requires `optimum`, and", "ImportError: requires optimum, and gptqmodel", True),
        ("requires `optimum`, and", "ImportError: requires ``optimum``, and gptqmodel", False),
    ],
)
def test_a_star_stands_for_at_most_one_word(text: str, line: str, fits: bool) -> None:
    assert (Pattern.of(text).expression.search(line) is not None) is fits


@pytest.mark.parametrize(
    "text", ["error", "*", "a*bc*d", "", "first line\nsecond line", "`error`, of `x`"]
)
def test_a_text_that_would_be_in_every_log_is_refused(text: str) -> None:
    with pytest.raises(PatternError):
        Pattern.of(text)


@given(st.text(max_size=200))
def test_where_a_text_fits_its_literal_stands(line: str) -> None:
    pattern = Pattern.of("must * match the size of")
    if pattern.expression.search(line):
        assert pattern.literal in line
