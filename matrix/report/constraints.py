"""How specifiers are shown: in short for a reader, and as a constraints file of pip or uv. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from matrix.judge.results import Specifier
from matrix.spec.versions import next_minor, parsed
from matrix.untrusted.text import visible

EVIDENCE_CHARS = 2000
SPELLED_OUT = 3
"""More minors left out than these are shown as runs."""


def runs_of_minors(minors: Iterable[str]) -> list[str]:
    """Return minors with those that follow each other as one: ``4.48-4.50``."""
    runs: list[list[str]] = []
    for minor in minors:
        last = parsed(runs[-1][-1]) if runs else None
        if last is not None and next_minor(last) == minor:
            runs[-1].append(minor)
        else:
            runs.append([minor])
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else run[0] for run in runs]


def in_short(holds: str) -> str:
    """Return a specifier for a reader: ``>=4.51,<5.24 without 4.52-4.57, 5.0-5.22``."""
    clauses = holds.split(",")
    left_out = [text for text in clauses if text.startswith("!=") and text.endswith(".*")]
    if len(left_out) <= SPELLED_OUT:
        return holds
    kept = ",".join(text for text in clauses if text not in left_out)
    runs = runs_of_minors(text.removeprefix("!=").removesuffix(".*") for text in left_out)
    return f"{kept} without {', '.join(runs)}"


def not_tried(specifier: Specifier) -> list[str]:
    """Return what nobody tried of a partner: minors, and what lies beyond where that worked."""
    good, bad, unknown = (
        [version for text in texts if (version := parsed(text))]
        for texts in (specifier.worked, specifier.failed, specifier.unknown)
    )
    ranges = runs_of_minors(specifier.untried)
    if good and min(good) <= min([*good, *bad]):
        ranges.insert(0, f"older than {min([*good, *unknown])}")
    if good and max(good) >= max([*good, *bad]):
        ranges.append(f"newer than {max([*good, *unknown])}")
    return ranges


def declared_bounds(specifier: Specifier) -> str:
    """Return what metadata says of a partner."""
    if specifier.declared is None:
        return "not known"
    return f"{specifier.partner}{specifier.declared}" if specifier.declared else "no bound"


def held_bounds(specifier: Specifier) -> str:
    """Return what really holds of a partner."""
    return (
        f"{specifier.partner}{in_short(specifier.holds)}"
        if specifier.holds
        else f"no {specifier.partner} tried works"
    )


def tried(specifier: Specifier) -> list[tuple[str, str]]:
    """Return the evidence of a specifier: what each group of versions came to, and the versions."""
    versions_by_word = {
        "worked": specifier.worked,
        "did not work": specifier.failed,
        "no answer here, or flaky": specifier.unknown,
        "not tried": not_tried(specifier),
    }
    return [(word, ", ".join(versions)) for word, versions in versions_by_word.items() if versions]


def constraints(specifiers: Iterable[Specifier], date: str, *, active: bool) -> str:
    """Return text for a constraints file of pip or uv, with its evidence in comments.

    Each release has a block of its own, and two of them contradict each other: they are commented
    out unless ``active``. ``date`` is that of the newest evidence.
    """
    lines = [
        "# Measured, not declared: python -m matrix specifiers --format constraints",
        f"# Evidence up to {date[:10] or 'no date'}.",
    ]
    if not active:
        lines.append("# A block for each release: take one, or ask for it with --package.")
    mark = "" if active else "# "
    by_release = groupby(specifiers, lambda specifier: (specifier.package, specifier.release))
    for (package, release), group in by_release:
        lines += ["", f"{mark}{package}=={release}"]
        for specifier in group:
            partner, holds = specifier.partner, specifier.holds
            # A declared ``===`` may hold any text.
            lines += [f"# {visible(line, EVIDENCE_CHARS)}" for line in _evidence(specifier)]
            lines.append(f"{mark}{partner}{holds}" if holds else f"# no {partner} works")
    return "\n".join(lines) + "\n"


def _evidence(specifier: Specifier) -> Iterator[str]:
    for word, versions in tried(specifier):
        where = f" (on {', '.join(specifier.devices)})" if word == "worked" else ""
        yield f"{specifier.partner} {word}{where}: {versions}"
    declared = "not known" if specifier.declared is None else specifier.declared or "no bound"
    yield f"declared: {declared}"
