"""Untrusted text made fit to be shown: bounded, visible, and inert in each format.

Package names, exception messages and model output all reach the report. Whatever they hold, a
terminal, a browser, a Markdown viewer and a spreadsheet must show it as text and nothing else.
HTML itself is escaped by jinja2's autoescape.
"""

from __future__ import annotations

import re
import unicodedata

CONTROL_PICTURES = 0x2400
"""Unicode's block of pictures for the C0 control characters."""

MARKDOWN_ACTIVE = re.compile(r"[\\`*_\[\]|~$]")
GITHUB_ACTIVE = re.compile(
    r"(?ix)(?: @[a-z0-9-]+ | \#[0-9]+ | \bGH-[0-9]+ | \b(?=[0-9]*[a-f])[0-9a-f]{7,40}\b"
    r" | (?:https?|ftp|mailto|xmpp)(?=:) | www(?=\.) )+"
)
"""What GitHub makes a link of, or tells somebody of: people, issues, commits, addresses.

It looks for most of them after Markdown is made, so that neither a backslash nor ``&#64;`` helps,
and never in code: https://github.com/github/cmark-gfm/issues/181.
"""
FORMULA_START = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What makes a spreadsheet compute a text: OWASP "CSV injection", with the full-width forms."""


def visible(text: str, limit: int = 400, *, lines: bool = False) -> str:
    """Return ``text`` with nothing invisible left in it, at most about ``limit`` characters long.

    Control characters become their pictures; direction marks, zero-width characters, surrogates
    and unassigned code points become ``⟨U+202E⟩``. Line feeds are kept only where ``lines``.
    """
    kept = text[:limit]
    shown = ("\n" if lines else " ↵ ").join(map(_visible_line, kept.split("\n")))
    left = len(text) - len(kept)
    return f"{shown} … ({left} more characters)" if left else shown


def _visible_line(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    return "".join(map(_visible_character, line))


def _visible_character(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(CONTROL_PICTURES + code)
    if code == 0x7F:
        return "␡"
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
        return f"⟨U+{code:04X}⟩"
    return character


def markdown(text: str, limit: int = 200) -> str:
    """Return ``text`` as plain words inside a cell of a Markdown table."""
    shown = visible(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = MARKDOWN_ACTIVE.sub(lambda match: "\\" + match.group(), shown)
    return GITHUB_ACTIVE.sub(r"`\g<0>`", escaped).strip()


def markdown_code(text: str, limit: int = 300) -> str:
    """Return ``text`` as a code span inside a cell of a Markdown table."""
    shown = visible(text, limit).strip()
    if not shown or "`" in shown or "\\" in shown:
        return markdown(text, limit)
    return "`" + shown.replace("|", "\\|") + "`"


def csv_text(text: str, limit: int = 2000) -> str:
    """Return ``text`` so that a spreadsheet shows it and never computes it."""
    shown = visible(text, limit)
    return "'" + shown if shown.lstrip().startswith(FORMULA_START) else shown


def counted(number: int, thing: str) -> str:
    """Return ``1 cell``, ``1,234 cells``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key under which ``0.2.9`` comes before ``0.2.10``."""
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+|[0-9]+", text)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
