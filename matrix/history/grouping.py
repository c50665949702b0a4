"""Changes grouped by what they have in common: most cells by the fewest differences. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from matrix.history.changes import Change, ChangeGroup, ChangeKind
from matrix.history.inputs import MACHINE, NOT_KNOWN, NOTHING, OUR_CHECKS, OUR_SPEC, UNEXPLAINED
from matrix.history.states import CellState
from matrix.pipeline.outcomes import Verdict
from matrix.untrusted.text import counted, visible

ORDER = (
    ChangeKind.REGRESSED, ChangeKind.CHANGED_MACHINE, ChangeKind.CHANGED_CHECKS,
    ChangeKind.CHANGED_CAUSE, ChangeKind.FIXED, ChangeKind.NEW, ChangeKind.GONE,
    ChangeKind.NOT_RUN,
)  # fmt: skip
"""The gravest first; of what stayed as it was there are no groups."""
CAUSE_CHARS = 160
_Part = tuple[int, str, str]


def groups(
    changes: list[Change], old: Mapping[str, CellState], titles: Mapping[str, str]
) -> list[ChangeGroup]:
    """Return the changed cells of each kind, grouped by the difference that most of them share.

    What known issues explained before, and is fixed, stands by issue: an expected failure that
    stopped. ``titles`` are those of issues, by id.
    """
    parts: dict[_Part, list[Change]] = {}
    for change in changes:
        if change.kind in ORDER:
            parts.setdefault(_part(change, old), []).append(change)
    grouped: list[ChangeGroup] = []
    for part in sorted(parts, key=lambda part: (part[0], *_first(parts[part]))):
        kind, issue = ORDER[part[0]], part[1]
        for since, cells in _by_difference(parts[part]):
            title = _title(kind, issue, since, cells, titles)
            grouped.append(ChangeGroup(kind=kind, title=title, cells=[c.cell for c in cells]))
    return grouped


def _part(change: Change, old: Mapping[str, CellState]) -> _Part:
    """Return what must not be put together: kinds, issues that stopped, what new cells are."""
    place = ORDER.index(change.kind)
    match change.kind:
        case ChangeKind.FIXED:
            issue = old[change.cell].issue if change.cell in old else ""
            return place, issue, ""
        case ChangeKind.NEW:
            return place, "", f"{_badness(change)} {change.new} {change.before}"
        case _:
            return place, "", ""


def _badness(change: Change) -> int:
    """Return where a new cell stands: worse than the release before, then bad, then good."""
    is_good = change.new is Verdict.WORKS
    return 2 if is_good else 0 if change.before is Verdict.WORKS else 1


def _first(part: list[Change]) -> tuple[int, int]:
    return _badness(part[0]) if part[0].kind is ChangeKind.NEW else 0, -len(part)


def _by_difference(changes: list[Change]) -> Iterator[tuple[str, list[Change]]]:
    """Yield a difference of inputs and the cells that have it, the one that most have first.

    Cells whose inputs tell nothing are put together by their cause.
    """
    reasons = {change.cell: dict.fromkeys(_reasons(change)) for change in changes}
    having: dict[str, list[Change]] = {}
    for change in changes:
        for line in reasons[change.cell]:
            having.setdefault(line, []).append(change)
    counts = Counter({line: len(cells) for line, cells in having.items()})
    while reasons:
        since = max(counts, key=lambda line: counts[line])  # of as many the first, as inputs stand
        cells = [change for change in having[since] if change.cell in reasons]
        for change in cells:
            counts.subtract(list(reasons.pop(change.cell)))
        if since in UNEXPLAINED and cells[0].kind is not ChangeKind.GONE:
            by_cause: dict[str, list[Change]] = {}
            for change in cells:
                by_cause.setdefault(change.cause, []).append(change)
            yield from ((since, same) for same in by_cause.values())
        else:
            yield since, cells


def _reasons(change: Change) -> list[str]:
    """Return the differences that can explain a change; that nothing is known only if none can."""
    explaining = [line for line in change.inputs if line not in UNEXPLAINED]
    return explaining or change.inputs or [NOTHING]


def _title(
    kind: ChangeKind, issue: str, since: str, cells: list[Change], titles: Mapping[str, str]
) -> str:
    number = counted(len(cells), "cell")
    because = _because(kind, since) + _beside_the_machine(kind, since, cells)
    match kind:
        case ChangeKind.FIXED if issue:
            title = titles.get(issue, "")
            named = f"{issue} ({title})" if title else issue
            return visible(f"{number}: known issue {named} shows no more{because}", 500)
        case ChangeKind.FIXED | ChangeKind.GONE:
            return f"{number}{because}"
        case ChangeKind.NEW:
            change = cells[0]
            worse = change.before is not None and change.before is not change.new
            than = f", and {change.before} with the release before" if worse else ""
            regressed = f"{ChangeKind.REGRESSED}: " if change.is_regression else ""
            tells = change.new is not Verdict.WORKS and change.new is not Verdict.NOT_RUN
            causes = _causes(cells, titles) if tells else ""
            return f"{number}: {regressed}{change.new}{than}{causes}{because}"
        case _:
            return f"{number}{_causes(cells, titles)}{because}"


def _causes(cells: list[Change], titles: Mapping[str, str]) -> str:
    causes = Counter(change.cause for change in cells if change.cause)
    if not causes:
        return ""
    first = next(iter(causes))
    if len(causes) == 1:
        return f", one cause: {visible(titles.get(first, first), CAUSE_CHARS)}"
    return f", {len(causes)} causes"


def _beside_the_machine(kind: ChangeKind, since: str, cells: list[Change]) -> str:
    """Return what else changed for all of some cells, where the machine alone is not the cause."""
    if kind is ChangeKind.CHANGED_MACHINE or not since.startswith(f"{MACHINE}: "):
        return ""
    others = (line for line in cells[0].inputs if not line.startswith(MACHINE))
    shared = (line for line in others if all(line in change.inputs for change in cells))
    return f", and {next(shared, 'packages too')}"


def _because(kind: ChangeKind, since: str) -> str:
    match since:
        case _ if since == NOTHING:
            unknown = kind in (ChangeKind.NEW, ChangeKind.GONE, ChangeKind.NOT_RUN)
            return "" if unknown else ", and nothing that went in has changed"
        case _ if since == NOT_KNOWN:
            return ", and what went in is not known"
        case _ if since in (OUR_CHECKS, OUR_SPEC):
            return f", since {since} changed"
        case _ if since.startswith(f"{MACHINE}: "):
            return f", since the machine changed ({since.removeprefix(f'{MACHINE}: ')})"
        case _:
            return f", since {since}"
