"""Damaged data: valid values changed in a few places, and bytes that were hit anywhere."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
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
ODD: list[Any] = [
    None, True, False, *NUMBERS, *TEXTS, [], {}, [[]], {"": {}}, nested(150), nested(600),
]  # fmt: skip
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
    """Give a copy of plain data in which a few places, however deep, hold something else."""
    whole = [copy.deepcopy(value)]
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(whole))
        container, place = draw(st.sampled_from(places))
        match draw(st.sampled_from(["odd", "odd", "other", "drop", "repeat", "name"])):
            case "other":
                other, at = draw(st.sampled_from(places))
                container[place] = copy.deepcopy(other[at])
            case "drop" if container is not whole:
                del container[place]
            case "repeat" if isinstance(container, list) and container is not whole:
                times = draw(st.sampled_from([1, 2, 40, 400]))
                container[place:place] = [container[place]] * times
            case "name" if isinstance(container, dict):
                name = draw(st.sampled_from(TEXTS) | st.text(max_size=5))
                container[name] = copy.deepcopy(container[place])
            case _:
                odd = st.sampled_from(ODD).map(copy.deepcopy)  # it may be changed in its turn
                container[place] = draw(odd | st.text(max_size=8) | st.integers())
    return whole[0]


def _places(container: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in nested lists and objects: what it is in, and its index or name."""
    places = list(container) if isinstance(container, dict) else range(len(container))
    for place in places:
        yield container, place
        if isinstance(container[place], (dict, list)):
            yield from _places(container[place])


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


@st.composite
def like_json(draw: st.DrawFn, *samples: Any) -> bytes:
    """Give JSON that is nearly one of some values; sometimes what is nearly JSON."""
    sample = draw(st.sampled_from(samples))
    match draw(st.integers(0, 9)):
        case 0:
            return draw(like(as_json(sample)))
        case 1:
            return draw(damaged(as_json(draw(changed(sample)))))
        case _:
            return as_json(draw(changed(sample)))
