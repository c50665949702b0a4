"""A known issue in lines for a terminal. Light to import: ``explain`` is to answer at once."""

from __future__ import annotations

import shutil
import sys
import textwrap

from matrix.diagnose.catalogue import Issue

WIDTH = 96


def describe(issue: Issue) -> list[str]:
    """Return lines on why an issue is, what to do, and who says so."""
    lines = [*wrapped("cause", issue.cause), *wrapped("fix", issue.fix)]
    lines += wrapped("repair", issue.repair) if issue.repair else []
    return lines + [f"  {'source':8}{source}" for source in issue.sources]


def proof(issue: Issue) -> str:
    """Return what the account of an issue rests on."""
    return "reproduced" if issue.is_reproduced else issue.confidence.value


def versions_in_words(issue: Issue) -> str:
    """Return in which versions an issue is."""
    rows = [
        " with ".join(
            [f"{name} {text}" for name, text in versions.packages.items()]
            + [f"{name} {text} as its maker" for name, text in versions.maker.items()]
        )
        for versions in issue.versions
    ]
    return "; or ".join(rows) or "any version"


def wrapped(label: str, text: str) -> list[str]:
    """Return a labelled text in lines of a terminal's width; addresses and names stay whole."""
    width = min(WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else WIDTH
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    wrapper.initial_indent, wrapper.subsequent_indent = f"  {label:8}", " " * 10
    return wrapper.wrap(" ".join(text.split()))
