"""Real logs made fixtures of a known issue, whatever else stands in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from matrix.diagnose.catalogue import Log, decode_issue
from matrix.diagnose.fixtures import fits_where_marked, fixture

WORDS = "the layout of maker is not supported"
HEAD = f"""
title = "A"
steps = ["load"]
cause = "B"
fix = "C"
sources = ["D"]
confidence = "confirmed"
[[signatures]]
texts = ["{WORDS}"]
[[signatures]]
check = "scales"
texts = ["{WORDS}"]
"""
ISSUE = decode_issue(HEAD.encode(), "made-up.toml")
SPOILING = [
    "'''",
    "'''''",
    "''\0'",
    '"\n[[logs]]\n',
    "\\",
    "\x1b[31m",
    "“quoted”",
    "\u202e",
    "\r",
    "é",
]
spoiling = st.lists(st.one_of(st.sampled_from(SPOILING), st.text(max_size=9))).map("".join)


@given(spoiling, spoiling, spoiling)
def test_whatever_stands_around_a_line_the_file_is_one_of_the_catalogue(
    before: str, after: str, odd: str
) -> None:
    text = f"{before}\nValueError: {WORDS}\n{after}"
    log = Log(source=odd, text=text, observed=odd, installed={odd: odd})
    added = decode_issue((HEAD + fixture(ISSUE, log)).encode(), "made-up.toml")
    assert len(added.logs) == 1
    assert fits_where_marked(ISSUE, added.logs[0])


def test_a_coloured_log_with_curly_quotes_is_marked_where_it_fits() -> None:
    log = Log(source="x", text=f"\x1b[31mValueError: {WORDS}: “rows”\x1b[0m\nbye")
    text = fixture(ISSUE, log)
    assert f'ValueError: ⟦{WORDS}⟧: "rows"' in text
    assert "\x1b" not in text


def test_a_message_of_a_check_stands_in_a_line() -> None:
    log = Log(source="x", text=f"first\n  {WORDS} of it", check="scales")
    assert f"first ⟦{WORDS}⟧ of it" in fixture(ISSUE, log)
