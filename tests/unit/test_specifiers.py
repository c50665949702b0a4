"""The specifiers that really hold: all that worked, nothing that did not; and what is declared."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from matrix.judge.results import Side
from matrix.judge.specifiers import Trial, compute, declared_specifier, specifiers, trials
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Blame
from matrix.report.constraints import constraints, in_short, not_tried, runs_of_minors
from tests.unit.report_results import cell_result, realistic


@st.composite
def versions(draw: st.DrawFn) -> Version:
    minor = draw(st.integers(0, 6))
    text = draw(st.sampled_from(["4.{}", "4.{}.0", "5.{}.1", "4.{}.2", "{}", "1!4.{}.1"]))
    text = text.format(minor)
    return Version(text + draw(st.sampled_from(["", "rc1", ".post1", ".dev2", "a1"])))


def at(*texts: str) -> list[Version]:
    return [Version(text) for text in texts]


@given(st.dictionaries(versions(), st.booleans(), min_size=1))
def test_a_specifier_contains_all_that_worked_and_nothing_else(tried: dict[Version, bool]) -> None:
    good = [version for version, worked in tried.items() if worked]
    bad = [version for version, worked in tried.items() if not worked]
    computed = compute(good, bad, tried)
    if not good:
        assert computed.holds == ""
        return
    bounds = SpecifierSet(computed.holds)
    for version, worked in tried.items():
        assert bounds.contains(version, prereleases=True) is worked, (version, computed.holds)


@given(st.dictionaries(versions(), st.booleans(), min_size=1), st.lists(versions()))
def test_a_contiguous_range_needs_no_exclusions(
    tried: dict[Version, bool], released: list[Version]
) -> None:
    good = sorted(version for version, worked in tried.items() if worked)
    bad = [version for version, worked in tried.items() if not worked]
    computed = compute(good, bad, released)
    inside = [version for version in bad if good and good[0] < version < good[-1]]
    assert ("!=" in computed.holds) == bool(inside)


def minor(version: Version) -> tuple[int, int, int]:
    return version.epoch, version.major, version.minor


@given(st.dictionaries(versions(), st.booleans(), min_size=1), st.lists(versions()))
def test_no_minor_is_claimed_but_where_it_or_both_its_tried_neighbours_worked(
    tried: dict[Version, bool], released: list[Version]
) -> None:
    good = [version for version, worked in tried.items() if worked]
    computed = compute(good, [version for version in tried if not tried[version]], released)
    bounds = SpecifierSet(computed.holds)
    for version in (v for v in released if good and minor(v) not in map(minor, tried)):
        older = max((other for other in tried if other < version), default=None)
        newer = min((other for other in tried if other > version), default=None)
        sides = [neighbour is not None and tried[neighbour] for neighbour in (older, newer)]
        assert bounds.contains(version, prereleases=True) is all(sides), computed.holds
        if older is not None and newer is not None:
            name = f"{version.major}.{version.minor}"
            name = f"{version.epoch}!{name}" if version.epoch else name
            assert (name in computed.untried) == any(sides)


@given(st.lists(versions(), min_size=1), versions())
def test_nothing_is_claimed_beyond_what_worked(good: list[Version], other: Version) -> None:
    holds = SpecifierSet(compute(set(good), [], []).holds)
    if not minor(min(good)) <= minor(other) <= minor(max(good)):
        assert not holds.contains(other, prereleases=True)


EXAMPLES = [
    # autoawq 0.2.7 on transformers: metadata refuses 4.44, 4.48 breaks its import.
    ("4.45.2 4.46.3 4.47.1", "4.42.4 4.44.2 4.48.3 5.23.0", ">=4.45,<4.48"),
    # With gaps, what was not tried stays outside of the bounds.
    ("4.46.3 4.47.1", "4.42.4 4.51.3", ">=4.46,<4.48"),
    # autoawq 0.2.9: broken in the middle.
    ("4.46.3 4.51.3 5.23.0", "4.42.4 4.57.6", ">=4.46,<5.24,!=4.57.*"),
    ("4.46.3 4.51.3 4.57.0", "4.57.6 4.57.3", ">=4.46,<=4.57.0"),
    ("4.46.1 4.46.3 4.47.0", "4.46.2", ">=4.46,<4.48,!=4.46.2"),
    ("4.46.3", "4.46.2", ">=4.46.3,<4.47"),
    ("4.47.0", "4.48.0rc1", ">=4.47,<4.48"),
    ("4.42.4 4.57.6", "", ">=4.42,<4.58"),
    ("5.0.0rc1 5.0.0", "", ">=5.0.0rc1,<5.1"),
    ("5.23.0", "", "==5.23.0"),
    ("", "5.23.0", ""),
]


@pytest.mark.parametrize(("good", "bad", "holds"), EXAMPLES)
def test_examples(good: str, bad: str, holds: str) -> None:
    assert compute(at(*good.split()), at(*bad.split()), []).holds == holds


def test_what_was_not_tried_between_runs_is_left_out() -> None:
    released = at("4.52.4", "4.53.3", "4.57.6", "5.0.0", "5.1.0", "5.2.0", "5.24.0")
    computed = compute(at("4.51.3", "5.2.0"), at("4.46.3", "4.57.6"), released)
    assert computed.holds == ">=4.51,<5.3,!=4.52.*,!=4.53.*,!=4.57.*,!=5.0.*,!=5.1.*"
    assert computed.untried == ["4.52", "4.53", "5.0", "5.1"]


def test_a_major_in_which_nothing_worked_is_left_out_whole() -> None:
    released = at("1.1", "2.0", "2.1", "3.0", "3.1")
    assert compute(at("1.0", "3.0"), at("2.1"), released).holds == ">=1.0,<3.1,!=1.1.*,!=2.*"


def test_minors_of_which_nothing_is_known_are_named() -> None:
    released = at("4.44.0", "4.45.2", "4.48.3", "4.49.0", "4.51.0", "4.57.0", "5.1.0")
    computed = compute(at("4.46.3", "4.47.1"), at("4.42.4", "4.51.3", "4.57.6"), released)
    assert computed.untried == ["4.44", "4.45", "4.48", "4.49"]


def test_what_lies_between_two_that_worked_is_named_though_inside() -> None:
    computed = compute(at("4.42.4", "4.46.3"), at("4.47.0"), at("4.44.0", "4.45.2"))
    assert computed == (">=4.42,<4.47", ["4.44", "4.45"])


def fact(version: str, worked: bool | None, **changes: str) -> Trial:
    return msgspec.structs.replace(
        Trial("autoawq", "0.2.8", "transformers", version, worked), **changes
    )


def nothing(_package: str, _version: str) -> None:
    return None


def none_released(_package: str) -> list[str]:
    return []


def test_declared_is_set_against_what_holds() -> None:
    tried = [fact("4.46.3", True), fact("4.51.3", True), fact("4.45.0", False)]

    def declares(package: str, version: str) -> list[str]:
        assert (package, version) == ("autoawq", "0.2.8")
        return ["torch", "transformers<=4.47.1,>=4.45.0", 'transformers>=9; extra == "new"']

    (specifier,) = specifiers(tried, declares, none_released)
    assert specifier.holds == ">=4.46,<4.52"
    assert SpecifierSet(specifier.declared or "") == SpecifierSet(">=4.45.0,<=4.47.1")
    assert specifier.differs == [
        "allowed by metadata, but does not work: 4.45.0",
        "forbidden by metadata, but works: 4.51.3",
    ]


def test_without_metadata_nothing_differs() -> None:
    (specifier,) = specifiers([fact("4.46.3", True)], nothing, none_released)
    assert specifier.declared is None
    assert specifier.differs == []


def test_an_answer_that_was_not_had_counts_for_nothing() -> None:
    tried = [fact("4.46.3", True), fact("4.47.1", None), fact("4.48.0", False)]
    (specifier,) = specifiers(tried, nothing, none_released)
    assert (specifier.worked, specifier.failed, specifier.unknown) == (
        ["4.46.3"],
        ["4.48.0"],
        ["4.47.1"],
    )
    assert specifier.holds == ">=4.46,<4.47"
    (specifier,) = specifiers(tried, nothing, lambda _: ["4.47.1", "4.47.0"])
    assert specifier.untried == []  # it was tried
    assert specifiers([fact("4.47.1", None)], nothing, none_released) == []


def test_what_worked_once_works() -> None:
    (specifier,) = specifiers([fact("4.46.3", False), fact("4.46.3", True)], nothing, none_released)
    assert (specifier.worked, specifier.failed) == (["4.46.3"], [])


def test_facts_of_a_whole_result() -> None:
    computed = specifiers(trials(realistic(), ["autoawq"], {}), nothing, none_released)
    holds = {f"{specifier.package} {specifier.release}": specifier for specifier in computed}
    old = holds["autoawq 0.2.7"]
    assert old.worked == ["4.46.3", "4.47.1"]
    assert old.failed == ["4.42.4", "4.51.3", "4.57.6", "5.23.0"]
    assert old.holds == ">=4.46,<4.48"
    assert holds["autoawq 0.2.9"].holds == ">=4.46,<5.24,!=4.57.*"


def verdicts(*pairs: tuple[Verdict, Blame]) -> list[Trial]:
    maker = Side("q", "q", {"autoawq": "0.2.7", "transformers": "4.47.1"})
    runner = Side("e", "e", {"vllm": "0.32.0", "transformers": "5.23.0"})
    cells = [
        msgspec.structs.replace(
            cell_result(maker, runner, "tied", None), verdict=verdict, blame=blame
        )
        for verdict, blame in pairs
    ]
    result = msgspec.structs.replace(realistic(), cells=cells)
    return trials(result, {"autoawq", "vllm"}, {})


BROKEN, WORKS = Verdict.BROKEN, Verdict.WORKS
CASES: list[tuple[list[tuple[Verdict, Blame]], bool | None, bool | None]] = [
    ([(WORKS, Blame.NOBODY), (Verdict.GARBAGE, Blame.CHECKPOINT)], True, True),
    ([(BROKEN, Blame.QUANTIZER)], False, None),
    ([(BROKEN, Blame.ENGINE)], None, False),
    ([(Verdict.GARBAGE, Blame.CHECKPOINT)], False, None),
    ([(BROKEN, Blame.PAIR)], False, False),
    ([(Verdict.UNTESTED, Blame.NOBODY), (Verdict.INFRA, Blame.NOBODY)], None, None),
    ([(Verdict.DEGRADED, Blame.CHECKPOINT)], True, None),
]


@pytest.mark.parametrize(("pairs", "maker", "runner"), CASES)
def test_the_other_sides_fault_says_nothing(
    pairs: list[tuple[Verdict, Blame]], maker: bool | None, runner: bool | None
) -> None:
    answers = {(trial.package, trial.worked) for trial in verdicts(*pairs)}
    assert answers == {("autoawq", maker), ("vllm", runner)}


def test_evidence_is_from_where_it_was_made() -> None:
    maker = Side("q", "q", {"autoawq": "0.2.7", "transformers": "4.47.1"})
    runner = Side("e", "e", {"vllm": "0.32.0", "transformers": "5.23.0"})
    ran = msgspec.structs.replace(cell_result(maker, runner, "tied", None), device="cuda 8.0")
    other = msgspec.structs.replace(ran, verdict=Verdict.UNTESTED, device="cuda")
    result = msgspec.structs.replace(realistic(), cells=[ran, other])

    def devices(made_on: dict[str, str]) -> dict[str, str]:
        return {
            trial.package: trial.device for trial in trials(result, ["autoawq", "vllm"], made_on)
        }

    assert devices({"q": "cpu", "e": "cpu"}) == {"autoawq": "cpu", "vllm": "cuda 8.0"}
    assert devices({}) == {"autoawq": "cuda 8.0", "vllm": "cuda 8.0"}
    result = msgspec.structs.replace(result, cells=[other])
    assert devices({"q": "cpu"}) == {"autoawq": "", "vllm": ""}


def test_a_float_model_says_nothing_of_a_package() -> None:
    engine = Side("e", "e", {"autoawq": "0.2.9", "transformers": "4.57.6"})
    cell = cell_result(Side("none", "models", {"transformers": "4.51.3"}), engine, "tied", None)
    assert trials(msgspec.structs.replace(realistic(), cells=[cell]), ["autoawq"], {}) == []


def test_only_packages_that_matter_are_told_of() -> None:
    assert {trial.package for trial in trials(realistic(), ["gptqmodel"], {})} <= {"gptqmodel"}
    assert trials(realistic(), [], {}) == []


@pytest.mark.parametrize(
    ("minors", "shown"),
    [("", ""), ("4.1", "4.1"), ("4.8 4.9 4.10 4.12 5.0 5.1", "4.8-4.10 4.12 5.0-5.1"),
     ("1!4.1 1!4.2", "1!4.1-1!4.2")],
)  # fmt: skip
def test_minors_that_follow_each_other_are_told_as_one(minors: str, shown: str) -> None:
    assert runs_of_minors(minors.split()) == shown.split()


@pytest.mark.parametrize(
    ("holds", "shown"),
    [
        (">=4.46,<4.48", ">=4.46,<4.48"),
        (">=4.46,<5.24,!=4.51.2,!=4.57.*", ">=4.46,<5.24,!=4.51.2,!=4.57.*"),
        (">=4.1,<6.1,!=4.1.2,!=4.2.*,!=4.3.*,!=4.5.*,!=5.*",
         ">=4.1,<6.1,!=4.1.2 without 4.2-4.3, 4.5, 5"),
    ],
)  # fmt: skip
def test_many_minors_left_out_are_told_as_runs(holds: str, shown: str) -> None:
    assert in_short(holds) == shown


@pytest.mark.parametrize(
    ("worked", "failed", "unknown", "shown"),
    [
        ("4.46.3", "4.45.2 4.48.0", "", ["4.47"]),
        ("4.46.3", "4.45.2", "", ["newer than 4.46.3"]),
        ("4.46.3", "4.48.0", "4.44.1", ["older than 4.44.1", "4.47"]),
        ("4.46.3 4.51.3", "", "5.1.0", ["older than 4.46.3", "4.47", "newer than 5.1.0"]),
        ("", "4.46.3", "", []),
    ],
)
def test_a_bound_beyond_which_nothing_was_tried_says_so(
    worked: str, failed: str, unknown: str, shown: list[str]
) -> None:
    tried = [
        *(fact(version, True) for version in worked.split()),
        *(fact(version, False) for version in failed.split()),
        *(fact(version, None) for version in unknown.split()),
    ]
    (specifier,) = specifiers(tried, nothing, lambda _: ["4.47.1"])
    assert not_tried(specifier) == shown


def requirements_of(text: str) -> Iterable[str]:
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def test_constraints_are_text_that_pip_reads_with_evidence_in_comments() -> None:
    tried = [fact("4.46.3", True), fact("4.48.0", False), fact("4.51.0", None)]
    computed = specifiers(tried, lambda *_: ["transformers>=4.45"], lambda _: ["4.47.1"])
    text = constraints(computed, "2026-11-22", active=True)
    assert [str(Requirement(line)) for line in requirements_of(text)] == [
        "autoawq==0.2.8",
        "transformers<4.47,>=4.46",
    ]
    for words in ("2026-11-22", "worked (on cpu): 4.46.3", "did not work: 4.48.0",
                 "no answer here, or flaky: 4.51.0", "not tried: older than 4.46.3, 4.47",
                 "declared: >=4.45"):  # fmt: skip
        assert words in text


def test_what_metadata_says_stays_in_its_comment() -> None:
    hostile = ["transformers===4\x1b[31mtorch"]
    computed = specifiers([fact("4.46.3", True)], lambda *_: hostile, none_released)
    assert computed[0].declared == "===4\x1b[31mtorch"
    text = constraints(computed, "", active=True)
    assert "\x1b" not in text
    assert list(requirements_of(text)) == ["autoawq==0.2.8", "transformers==4.46.3"]


def test_blocks_of_several_releases_are_commented_out() -> None:
    tried = [fact("4.46.3", True), fact("4.51.3", False), fact("5.1.0", True, release="0.2.9")]
    text = constraints(specifiers(tried, nothing, none_released), "", active=False)
    assert list(requirements_of(text)) == []
    assert "# autoawq==0.2.9\n" in text
    assert "# transformers>=4.46,<4.47\n" in text


def test_a_release_with_which_nothing_works_constrains_nothing() -> None:
    text = constraints(specifiers([fact("4.46.3", False)], nothing, none_released), "", active=True)
    assert list(requirements_of(text)) == ["autoawq==0.2.8"]
    assert "no transformers works" in text


@pytest.mark.parametrize(
    ("requires", "declared"),
    [
        (None, None),
        ([], ""),
        (["torch"], ""),
        (["Transformers>=4.45", "not a requirement !!"], ">=4.45"),
        (['transformers<4; python_version < "3.9"'], ""),
        (['transformers>=4; sys_platform == "linux"', "transformers<5"], "<5,>=4"),
    ],
)
def test_declared_bounds(requires: list[str] | None, declared: str | None) -> None:
    assert declared_specifier(requires, "transformers") == declared
