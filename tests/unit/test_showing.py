"""What is shown: plain off a terminal, and on one in colour, in tables that wrap."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable

import pytest

from matrix.cli.showing import Copied, Row, show
from matrix.pipeline.outcomes import Verdict

HOSTILE = "[bold]\x1b[2J\u202e[/nothing] :smile:"
COMMAND = "  cd folder && uv pip install " + "-r locks/environment.txt " * 8
LINES = [
    Row(f"{'cell':70} verdict", "cell", "verdict", is_head=True),
    Row(f"{'model/scheme/' + 'x' * 70:84} works", "model/scheme/" + "x" * 70, Verdict.WORKS),
    Row(f"{'another':70} not run", "another", Verdict.NOT_RUN),
    f"  fix: {'word ' * 30}".rstrip(),
    Copied(COMMAND),
    "7 cells in profile cpu: ✓ 3 works, · 4 not run",
]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], str]:
    """Return what shows lines on a terminal of 80 columns, and returns all that it gets."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def shown(lines: list[str]) -> str:
        stream = Terminal()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", stream)
            show(lines)
        return stream.getvalue()

    return shown


def plain(text: str) -> str:
    """Return text without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_off_a_terminal_lines_are_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show(LINES)
    assert capsys.readouterr().out.splitlines() == LINES


def test_on_a_terminal_everything_fits_but_what_is_copied(
    on_terminal: Callable[[list[str]], str],
) -> None:
    shown = plain(on_terminal(LINES))
    lines = shown.splitlines()
    assert COMMAND in lines
    assert max(len(line) for line in lines if line != COMMAND) <= 80
    fix = lines.index(next(line for line in lines if line.startswith("  fix: ")))
    assert lines[fix + 1].startswith("  word "), "it goes on below its beginning"
    assert "x" * 70 in re.sub(r"works|\s", "", shown), "a long word goes on in the next line"


def test_words_have_colours_unless_they_are_unwanted(
    on_terminal: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b[32mworks" in on_terminal(LINES)
    assert "\x1b[90m· 4 not run\x1b[0m" in on_terminal(LINES)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*[39][0-9]m", on_terminal(LINES))


@pytest.mark.parametrize(
    "line", [HOSTILE, Row(HOSTILE, HOSTILE, "x"), Copied(HOSTILE)], ids=["line", "row", "copied"]
)
def test_what_packages_say_is_text_and_nothing_else(
    on_terminal: Callable[[list[str]], str], line: str
) -> None:
    assert "[bold]␛[2J⟨U+202E⟩[/nothing] :smile:" in plain(on_terminal([line]))
