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

from matrix.outcomes import Blame, Verdict
from matrix.results import Side
from matrix.specifiers import (
    Fact,
    compute,
    constraints,
    declared_specifier,
    facts,
    spans,
    specifiers,
)
from tests.unit.report_results import judged, realistic


@st.composite
def versions(draw: st.DrawFn) -> Version:
    minor = draw(st.integers(0, 6))
    text = draw(st.sampled_from(["4.{}", "4.{}.0", "5.{}.1", "4.{}.2", "{}", "1!4.{}.1"]))
    text = text.format(minor)
    return Version(text + draw(st.sampled_from(["", "rc1", ".post1", ".dev2", "a1"])))


def at(*texts: str) -> list[Version]:
    return [Version(text) for text in texts]


@given(st.dictionaries(versions(), st.booleans(), min_size=1))
def test_it_contains_all_that_worked_and_nothing_that_did_not(tried: dict[Version, bool]) -> None:
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


EXAMPLES = [
    # autoawq 0.2.7 on transformers: metadata refuses 4.44, 4.48 breaks its import.
    ("4.45.2 4.46.3 4.47.1", "4.42.4 4.44.2 4.48.3 5.23.0", ">=4.45,<4.48"),
    # With gaps, what was not tried stays outside of the bounds.
    ("4.46.3 4.47.1", "4.42.4 4.51.3", ">=4.46,<4.48"),
    # autoawq 0.2.9: broken in the middle.
    ("4.46.3 4.51.3 5.23.0", "4.42.4 4.57.6", ">=4.46,!=4.57.*"),
    ("4.46.3 4.51.3 4.57.0", "4.57.6 4.57.3", ">=4.46,<=4.57.0"),
    ("4.46.1 4.46.3 4.47.0", "4.46.2", ">=4.46,!=4.46.2"),
    ("4.46.3", "4.46.2", ">=4.46.3"),
    ("4.47.0", "4.48.0rc1", ">=4.47,<4.48"),
    ("4.42.4 4.57.6", "", ">=4.42"),
    ("5.0.0rc1 5.0.0", "", ">=5.0.0rc1"),
    ("5.23.0", "", "==5.23.0"),
    ("", "5.23.0", ""),
]


@pytest.mark.parametrize(("good", "bad", "holds"), EXAMPLES)
def test_examples(good: str, bad: str, holds: str) -> None:
    assert compute(at(*good.split()), at(*bad.split())).holds == holds


def test_minors_of_which_nothing_is_known_are_named() -> None:
    released = at("4.44.0", "4.45.2", "4.48.3", "4.49.0", "4.51.0", "4.57.0", "5.1.0")
    computed = compute(at("4.46.3", "4.47.1"), at("4.42.4", "4.51.3", "4.57.6"), released)
    assert computed.untried == ["4.44", "4.45", "4.48", "4.49"]


def test_nothing_is_claimed_untried_between_two_that_worked() -> None:
    assert compute(at("4.42.4", "4.46.3"), at("4.47.0"), at("4.44.0", "4.45.2")).untried == []


def fact(version: str, worked: bool | None, **changes: str) -> Fact:
    return msgspec.structs.replace(
        Fact("autoawq", "0.2.8", "transformers", version, worked), **changes
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

    (one,) = specifiers(tried, declares, none_released)
    assert one.holds == ">=4.46"
    assert SpecifierSet(one.declared or "") == SpecifierSet(">=4.45.0,<=4.47.1")
    assert one.differs == [
        "allowed by metadata, but does not work: 4.45.0",
        "forbidden by metadata, but works: 4.51.3",
    ]


def test_without_metadata_nothing_differs() -> None:
    (one,) = specifiers([fact("4.46.3", True)], nothing, none_released)
    assert one.declared is None
    assert one.differs == []


def test_an_answer_that_was_not_had_counts_for_nothing() -> None:
    tried = [fact("4.46.3", True), fact("4.47.1", None), fact("4.48.0", False)]
    (one,) = specifiers(tried, nothing, none_released)
    assert (one.worked, one.failed, one.unknown) == (["4.46.3"], ["4.48.0"], ["4.47.1"])
    assert one.holds == ">=4.46,<4.47"
    assert specifiers([fact("4.47.1", None)], nothing, none_released) == []


def test_what_worked_once_works() -> None:
    (one,) = specifiers([fact("4.46.3", False), fact("4.46.3", True)], nothing, none_released)
    assert (one.worked, one.failed) == (["4.46.3"], [])


def test_facts_of_a_whole_result() -> None:
    found = specifiers(facts(realistic(), ["autoawq"]), nothing, none_released)
    holds = {f"{one.package} {one.release}": one for one in found}
    old = holds["autoawq 0.2.7"]
    assert old.worked == ["4.46.3", "4.47.1"]
    assert old.failed == ["4.42.4", "4.51.3", "4.57.6", "5.23.0"]
    assert old.holds == ">=4.46,<4.48"
    assert holds["autoawq 0.2.9"].holds == ">=4.46,!=4.57.*"


def verdicts(*said: tuple[Verdict, Blame]) -> list[Fact]:
    maker = Side("q", "q", {"autoawq": "0.2.7", "transformers": "4.47.1"})
    runner = Side("e", "e", {"vllm": "0.32.0", "transformers": "5.23.0"})
    cells = [
        msgspec.structs.replace(judged(maker, runner, "tied", None), verdict=verdict, blame=blame)
        for verdict, blame in said
    ]
    result = msgspec.structs.replace(realistic(), cells=cells)
    return facts(result, {"autoawq", "vllm"})


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


@pytest.mark.parametrize(("said", "maker", "runner"), CASES)
def test_the_other_sides_fault_says_nothing(
    said: list[tuple[Verdict, Blame]], maker: bool | None, runner: bool | None
) -> None:
    found = {(one.package, one.worked) for one in verdicts(*said)}
    assert found == {("autoawq", maker), ("vllm", runner)}


def test_a_float_model_says_nothing_of_a_package() -> None:
    engine = Side("e", "e", {"autoawq": "0.2.9", "transformers": "4.57.6"})
    cell = judged(Side("none", "models", {"transformers": "4.51.3"}), engine, "tied", None)
    assert facts(msgspec.structs.replace(realistic(), cells=[cell]), ["autoawq"]) == []


def test_only_packages_that_matter_are_told_of() -> None:
    assert {one.package for one in facts(realistic(), ["gptqmodel"])} <= {"gptqmodel"}
    assert facts(realistic(), []) == []


@pytest.mark.parametrize(
    ("minors", "shown"),
    [("", ""), ("4.1", "4.1"), ("4.8 4.9 4.10 4.12 5.0 5.1", "4.8-4.10 4.12 5.0-5.1"),
     ("1!4.1 1!4.2", "1!4.1-1!4.2")],
)  # fmt: skip
def test_minors_that_follow_each_other_are_told_as_one(minors: str, shown: str) -> None:
    assert spans(minors.split()) == shown.split()


def requirements_of(text: str) -> Iterable[str]:
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def test_constraints_are_text_that_pip_reads_with_evidence_in_comments() -> None:
    tried = [fact("4.46.3", True), fact("4.48.0", False), fact("4.51.0", None)]
    found = specifiers(tried, lambda *_: ["transformers>=4.45"], lambda _: ["4.47.1"])
    text = constraints(found, "2026-11-22", active=True)
    assert [str(Requirement(line)) for line in requirements_of(text)] == [
        "autoawq==0.2.8",
        "transformers<4.47,>=4.46",
    ]
    for said in ("2026-11-22", "worked (on cpu): 4.46.3", "did not work: 4.48.0",
                 "no answer here: 4.51.0", "not tried: 4.47", "declared: >=4.45"):  # fmt: skip
        assert said in text


def test_what_metadata_says_stays_in_its_comment() -> None:
    hostile = ["transformers===4\x1b[31mtorch"]
    found = specifiers([fact("4.46.3", True)], lambda *_: hostile, none_released)
    assert found[0].declared == "===4\x1b[31mtorch"
    text = constraints(found, "", active=True)
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
