"""Results in which whatever came out of a package, a model or a log is hostile text."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, get_args

import msgspec
from hypothesis import strategies as st

from matrix.diagnose.catalogue import Confidence, Effect
from matrix.history.changes import Change, ChangeGroup, ChangeKind, Changes, Night, PastVerdict
from matrix.judge.results import (
    CanaryState,
    CellResult,
    EnvironmentResult,
    Install,
    KnownIssue,
    MatrixResult,
    Measures,
    RunVerdict,
    Side,
    Standing,
)
from matrix.pipeline.outcomes import Finding, Judgement, Reason, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.report.material import Material
from matrix.spec.tables import Resolution
from tests.unit.report_results import stages_until
from tests.unit.report_standings import hostile_specifier

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>x</script>",
    "{{ 7 * 7 }}{% raw %}",
    "a|b\n| c | `d`",
    "[x](javascript:alert(1)) <!-- --> ***",
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "＝1",
    "\x1b[31mred\x07\x00\r\n",
    "\u202egnp.exe\u2066\u200b\ufeff\u2028",
    "\ud800lone",
    "&amp;&#x3c;script&#x3e;",
    "'; rm -rf / #",
    "x" * 9000,
    "",
    "\\|\\`\\",
    "https://example.org www.example.org",
    "@name owner/name#1 `@x` 0123456789abcdef0123456789abcdef01234567",
]
hostile = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40)).map(str)
number = st.one_of(st.none(), st.floats())


@st.composite
def sides(draw: st.DrawFn) -> Side:
    return Side(
        name=draw(hostile),
        environment=draw(hostile),
        packages=draw(st.dictionaries(hostile, hostile, max_size=2)),
        torch=draw(hostile),
        python=draw(hostile),
        options=draw(st.dictionaries(hostile, st.one_of(hostile, st.booleans()), max_size=1)),
        axes=draw(st.dictionaries(hostile, hostile, max_size=2)),
    )


@st.composite
def measures(draw: st.DrawFn) -> Measures:
    number = st.one_of(st.none(), st.floats(min_value=0))
    return Measures(
        kernel=draw(hostile),
        tokens_per_second=draw(number),
        peak_bytes=draw(st.one_of(st.none(), st.integers(0, 2**50))),
        perplexity=draw(number),
        nats=draw(number),
        divergence=draw(number),
        high_divergence=draw(number),
        same_top=draw(number),
    )


@st.composite
def cells(draw: st.DrawFn) -> CellResult:
    stage = draw(st.one_of(st.none(), st.sampled_from(Stage)))
    finding = st.builds(
        Finding,
        hostile,
        st.sampled_from(Stage),
        st.sampled_from(Judgement),
        number,
        number,
        hostile,
    )
    return CellResult(
        id=draw(hostile),
        model=draw(hostile),
        scheme=draw(hostile),
        quantizer=draw(sides()),
        engine=draw(sides()),
        verdict=draw(st.sampled_from(Verdict)),
        blame=draw(st.sampled_from(Blame)),
        stage=stage,
        reason=draw(st.sampled_from(Reason)),
        message=draw(hostile),
        stages=stages_until(stage, Reason.EXCEPTION, draw(hostile)),
        findings=draw(st.lists(finding, max_size=2)),
        departures=draw(st.lists(hostile, max_size=2)),
        timings={"load": draw(st.floats(min_value=0))},
        device=draw(st.one_of(hostile, st.sampled_from(["cpu", "cpu x86-64-v4, avx512_bf16"]))),
        parts=draw(st.lists(hostile, max_size=1)),
        made_on=draw(hostile),
        at=draw(st.one_of(hostile, st.just("2026-11-30T03:52:35.533+00:00"))),
        runs=draw(st.lists(hostile, max_size=2)),
        measures=draw(measures()),
        flaky=draw(st.booleans()),
        elsewhere=draw(st.dictionaries(hostile, st.one_of(hostile, st.just("works")), max_size=2)),
        output=draw(hostile),
        expected=draw(hostile),
        issue=draw(st.sampled_from(["", "made-up", "unlisted"])),
        looks_like=draw(st.sampled_from(["", "made-up", "unlisted"])),
        group=draw(hostile),
        canary=draw(st.one_of(st.none(), st.sampled_from(Verdict))),
        command=draw(hostile),
    )


@st.composite
def known_issues(draw: st.DrawFn) -> KnownIssue:
    return KnownIssue(
        title=draw(hostile),
        effect=draw(st.sampled_from(Effect)),
        cause=draw(hostile),
        fix=draw(hostile),
        repair=draw(hostile),
        sources=draw(st.lists(hostile, min_size=1, max_size=2)),
        confidence=draw(st.sampled_from(Confidence)),
        cells=draw(st.integers(0, 9)),
    )


@st.composite
def installs(draw: st.DrawFn) -> Install:
    versions = st.dictionaries(hostile, hostile, max_size=2)
    return Install(
        python=draw(st.one_of(hostile, st.just("3.11"))),
        pins=draw(versions),
        overrides=draw(st.lists(hostile, max_size=2)),
        build_requirements=draw(st.dictionaries(hostile, st.lists(hostile, max_size=1))),
        environ=draw(versions),
        instead=draw(versions),
        left_out=draw(st.lists(hostile, max_size=2)),
    )


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    return Standing(
        resolution=draw(st.sampled_from(get_args(Resolution))),
        cutoff=draw(hostile),
        declared=draw(st.sampled_from(["allowed", "forbidden", "not said", "unknown"])),
        declared_by=draw(hostile),
        resolves=draw(st.sampled_from(["yes", "no", "not asked"])),
        refusal=draw(hostile),
        packages=draw(st.dictionaries(hostile, hostile, max_size=2)),
        others=draw(st.integers(0, 3)),
        works=draw(st.sampled_from(RunVerdict)),
        stage=draw(hostile),
        message=draw(hostile),
        same_as=draw(hostile),
        yanked=draw(st.dictionaries(hostile, hostile, max_size=1)),
    )


@st.composite
def results(draw: st.DrawFn) -> MatrixResult:
    failed = stages_until(Stage.QUANTIZER_IMPORT, Reason.EXCEPTION, draw(hostile))[:3]
    environment = EnvironmentResult(
        name=draw(st.one_of(hostile, st.just("vllm-0.32.0"))),
        role=draw(st.sampled_from(["quantizer", "engine"])), packages={},
        stages=failed, cells=2, departures=draw(st.lists(hostile, max_size=1)),
        install=draw(st.one_of(st.none(), installs())),
        standings=draw(st.lists(standings(), max_size=3)),
        differences=draw(st.lists(hostile, max_size=2)),
        axes=draw(st.dictionaries(hostile, hostile, max_size=2)),
    )  # fmt: skip
    return MatrixResult(
        profile=draw(hostile),
        runs=draw(st.lists(hostile, max_size=2)),
        finished=draw(hostile),
        machine=draw(st.dictionaries(hostile, hostile, max_size=2)),
        departures=draw(st.dictionaries(hostile, hostile, max_size=2)),
        canaries=draw(st.sampled_from(CanaryState)),
        canary_troubles=draw(st.lists(hostile, max_size=2)),
        issues={"made-up": draw(known_issues())},
        issue_troubles=draw(st.lists(hostile, max_size=2)),
        going_on=draw(hostile),
        environments=[environment],
        cells=draw(st.lists(cells(), max_size=4, unique_by=lambda cell: cell.id)),
        specifiers=[hostile_specifier(text) for text in draw(st.lists(hostile, max_size=2))],
        new_releases=draw(st.dictionaries(hostile, hostile, max_size=2)),
        budget=draw(st.lists(hostile, max_size=2)),
    )


@st.composite
def changes(draw: st.DrawFn) -> Changes:
    kind, verdict = st.sampled_from(ChangeKind), st.one_of(st.none(), st.sampled_from(Verdict))
    change = st.builds(
        Change, cell=hostile, kind=kind, old=verdict, new=verdict, cause=hostile,
        inputs=st.lists(hostile, max_size=2), flaky=st.booleans(),
    )  # fmt: skip
    named = st.lists(hostile, min_size=1, max_size=5)
    group = st.builds(ChangeGroup, kind=kind, title=hostile, cells=named)
    return Changes(
        old=draw(hostile), new=draw(hostile), cells=draw(st.lists(change, max_size=3)),
        groups=draw(st.lists(group, max_size=3)),
    )  # fmt: skip


@st.composite
def materials(draw: st.DrawFn) -> Material:
    """Return a hostile result with a hostile history."""
    runs = draw(st.lists(hostile, min_size=2, max_size=3))
    past = st.builds(PastVerdict, hostile, st.sampled_from(runs), st.sampled_from(Verdict))
    night = st.builds(
        Night, st.one_of(hostile, st.just("2026-11-30")), st.sampled_from(runs),
        st.dictionaries(st.sampled_from(Verdict), st.integers(0, 9)), st.booleans(),
    )  # fmt: skip
    return Material(
        result=draw(results()),
        changes=draw(st.one_of(st.none(), changes())),
        nights=draw(st.lists(night, max_size=3)),
        past=draw(st.dictionaries(hostile, st.lists(past, min_size=2, max_size=3), max_size=2)),
    )


CHOICES = {"role", "declared", "resolves", "resolution", "method"}
"""Fields whose words are of a closed set."""


def planted(value: Any, text: str) -> Any:
    """Return plain data or structs with a text in place of each text that is not of a set."""
    match value:
        case msgspec.Struct():
            fields = {name: getattr(value, name) for name in value.__struct_fields__}
            changed = {
                name: inner if name in CHOICES else planted(inner, text)
                for name, inner in fields.items()
            }
            return msgspec.structs.replace(value, **changed)
        case StrEnum():
            return value
        case str():
            return text
        case list():
            return [planted(inner, text) for inner in value]
        case dict():
            return {planted(key, text): planted(inner, text) for key, inner in value.items()}
        case _:
            return value
