"""Damaged data: valid values changed in a few places, and bytes that were hit anywhere."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

from hypothesis import strategies as st


def nested(depth: int) -> Any:
    """Return lists within each other."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


TEXTS = [
    "", " ", "\0", "\n", "\ud800", "\u202egnp\u2066", "\u200b\ufeff\u2028", "\x1b[31m\x07", "İ",
    "१", "../../x", "/", ".", "~", "%", "*", "[", "{x}", "{0.__class__}", "a b", "-1", "1e999",
    "1!99", "9" * 400, "x" * 3000, "a." * 300, "===", ">=", "==1.*", "==1,==1,", "; x", "/etc",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**40, 10**400, 0.5, -0.0,
    1e300, -1e300, math.inf, -math.inf, math.nan,
]  # fmt: skip
ODD: list[Any] = [None, True, False, *NUMBERS, *TEXTS, [], {}, [[]], {"": {}}, nested(150)]
TOKENS = [
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b'"', b"\\",
    b"\n", b"\r", b"null", b"NaN", b"-1", b"1e999", b"9" * 400, b"9" * 5000, b"{}", b"[]", b"[[",
    b"[" * 800 + b"]" * 800, b"[" * 20_000, b'{"a":' * 20_000, b"<", b">", b"<b>" * 2000, b"&#0;",
    b"=", b"a." * 2000, b"1979-05-27", b"'''", b"#", b"\xe2\x80\xae", b"{x}", b"'", b"inf",
]  # fmt: skip
MOST_BYTES = 200_000
"""Of damaged data: a few pieces that are repeated multiply."""


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """Give a copy of plain data in which a few places hold something else."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        value = _changed_within(draw, value, value)
    return value


def _changed_within(draw: st.DrawFn, value: Any, whole: Any) -> Any:
    if not value or not isinstance(value, (dict, list)) or draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(ODD) | st.text(max_size=8) | st.integers() | _part_of(whole))
    places = sorted(value) if isinstance(value, dict) else range(len(value))
    place = draw(st.sampled_from(places))
    match draw(st.sampled_from(["within", "within", "within", "within", "drop", "repeat", "name"])):
        case "drop":
            del value[place]
        case "repeat" if isinstance(value, list):
            value[place:place] = [value[place]] * draw(st.sampled_from([1, 2, 40, 400]))
        case "name" if isinstance(value, dict):
            name = draw(st.sampled_from(TEXTS) | st.text(max_size=5))
            value[name] = copy.deepcopy(value[place])
        case _:
            value[place] = _changed_within(draw, value[place], whole)
    return value


@st.composite
def _part_of(draw: st.DrawFn, value: Any) -> Any:
    """Give some part of a value, of another type perhaps than where it is put."""
    while value and isinstance(value, (dict, list)) and draw(st.integers(0, 3)):
        value = draw(st.sampled_from(list(value.values()) if isinstance(value, dict) else value))
    return copy.deepcopy(value)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Give bytes that were flipped, cut, doubled or overwritten in a few places."""
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(st.integers(0, len(data))), draw(st.sampled_from([0, 1, 1, 2, 8, 60]))
        part = data[start : start + length]
        match draw(st.sampled_from(["flip", "cut", "drop", "repeat", "token", "token", "bytes"])):
            case "flip" if part:
                part = bytes([part[0] ^ 1 << draw(st.integers(0, 7))]) + part[1:]
            case "cut":
                return data[:start]
            case "drop":
                part = b""
            case "repeat":
                part *= draw(st.sampled_from([2, 3, 100, 1000]))
            case "bytes":
                part = draw(st.binary(max_size=8))
            case _:
                part = draw(st.sampled_from(TOKENS))
        data = data[:start] + part + data[start + length :]
    return data[:MOST_BYTES]


def maybe_damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy of some bytes as they are, or damaged."""
    return st.just(data) | damaged(data)


def as_json(value: Any) -> bytes:
    """Return plain data as JSON; odd numbers as Python writes them, lone surrogates as bytes."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def like(*samples: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy of bytes that are nearly one of some samples, or anything."""
    return st.sampled_from(samples).flatmap(damaged) | st.binary(max_size=60)


def like_json(*samples: Any) -> st.SearchStrategy[bytes]:
    """Return a strategy of JSON that is nearly one of some values, and of bytes like it."""
    written = st.sampled_from(samples).flatmap(changed).map(as_json)
    return written | written.flatmap(damaged) | like(*map(as_json, samples))
