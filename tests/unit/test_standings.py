"""Three answers in three resolutions, and what they differ in."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.judge.declarations import PackageMetadata, declared
from matrix.judge.results import NOT_RUN, CellResult, Side, Standing
from matrix.judge.standings import Ran, Solution, differences, new_releases, standing, works
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.spec.requirements import named_releases
from matrix.spec.snapshot import Release, Snapshot
from matrix.spec.tables import Environment, MetadataTable, Resolution
from tests.unit.report_results import cell_result

AUTOAWQ = [
    Release("0.2.7", declares=["torch>=2.2", "transformers>=4.45.0"], requires_python=">=3.8"),
    Release("0.2.8", declares=["torch", "transformers<=4.47.1,>=4.45.0"]),
    Release("0.2.9"),
    Release("0.1.0", declares=["transformers"], requires_python="<3.11"),
]
TRANSFORMERS = [
    Release("4.46.3", declares=[]),
    Release("4.47.1", declares=['torch>=2; extra == "torch"']),
    Release("4.51.3", declares=[]),
    Release("5.23.0", declares=[]),
]
IPEX = [Release("2.4.0", yanked="for security"), Release("2.8.0")]
SNAPSHOT = Snapshot(
    1,
    "2026-11-22T00:00:00Z",
    {
        "vllm": [Release("0.32.0", declares=["torch==2.13.0+cpu"])],
        "autoawq": AUTOAWQ,
        "transformers": TRANSFORMERS,
        "intel-extension-for-pytorch": IPEX,
    },
)
METADATA = PackageMetadata(SNAPSHOT)


def environment(
    *requirements: str,
    resolution: Resolution = "pinned",
    name: str = "e",
    overrides: tuple[str, ...] = (),
    environ: dict[str, str] | None = None,
) -> Environment:
    return Environment(
        name=name,
        python="3.11",
        resolution=resolution,
        requirements=list(requirements),
        constraints=[],
        overrides=list(overrides),
        build_requirements={},
        environ=environ or {},
        departures=[],
    )


FORBIDDEN = "autoawq 0.2.8 wants transformers<=4.47.1,>=4.45.0, not 4.51.3"


@pytest.mark.parametrize(
    ("requirements", "overrides", "answer", "by"),
    [
        (["autoawq==0.2.8", "transformers==4.47.1"], [], "allowed", "transformers<=4.47.1"),
        (["AutoAWQ==0.2.8", "transformers==4.51.3"], [], "forbidden", FORBIDDEN),
        (["autoawq==0.2.9", "transformers==4.51.3"], [], "unknown", "no metadata of autoawq 0.2.9"),
        (["transformers==4.51.3"], [], "not said", ""),
        (["transformers==4.47.1", "torch==1.0"], [], "unknown", "no metadata of torch 1.0"),
        (["autoawq==0.2.7", "torch==2.1"], [], "forbidden", "wants torch>=2.2, not 2.1"),
        (["autoawq==0.2.7"], ["torch==2.1"], "forbidden", "wants torch>=2.2, not 2.1"),
        (["autoawq==0.2.7"], ['torch==2.1 ; sys_platform == "never"'], "not said", ""),
        (["vllm==0.32.0", "torch==2.13.0"], [], "allowed", "wants torch==2.13.0+cpu"),
        (["vllm==0.32.0", "torch==2.12.0"], [], "forbidden", "torch==2.13.0+cpu, not 2.12.0"),
        (["autoawq==0.1.0", "transformers==4.51.3"], [], "forbidden", "Python <3.11, not 3.11"),
        (["autoawq==0.2.7", "torch>=2"], [], "not said", ""),
    ],
)
def test_declared(requirements: list[str], overrides: list[str], answer: str, by: str) -> None:
    declaration = declared(environment(*requirements, overrides=tuple(overrides)), METADATA)
    assert declaration[0] == answer
    assert by in declaration[1]
    assert bool(by) == bool(declaration[1])


@pytest.mark.parametrize(
    ("wanted", "python", "answer"),
    [
        (">=3.8,!=3.11.0", "3.11", "not said"),
        (">=3.11.4", "3.11", "not said"),
        (">=3.8,!=3.11.*", "3.11", "forbidden"),
        ("<3.11", "3.11", "forbidden"),
        (">=3.8,!=3.11.0", "3.11.0", "forbidden"),
        (">=3.11.4", "3.11.3", "forbidden"),
    ],
)
def test_a_python_of_two_parts_is_any_patch_of_it(wanted: str, python: str, answer: str) -> None:
    snapshot = Snapshot(1, "", {"a": [Release("1.0", declares=[], requires_python=wanted)]})
    with_python = msgspec.structs.replace(environment("a==1.0"), python=python)
    assert declared(with_python, PackageMetadata(snapshot))[0] == answer


def test_the_specs_metadata_stands_in_for_a_release_without_a_wheel() -> None:
    table = MetadataTable(
        package="autoawq", version="0.2.9", requires_dist=["transformers<=4.51.3"], source="tag"
    )
    declaration = declared(
        environment("autoawq==0.2.9", "transformers==5.23.0"), PackageMetadata(SNAPSHOT, [table])
    )
    assert declaration == ("forbidden", "autoawq 0.2.9 wants transformers<=4.51.3, not 5.23.0")


def test_a_release_is_named_exactly_or_not_at_all() -> None:
    texts = "a==1.0", "B_c==2.0", "d>=3", "e==1.*", "not a requirement!", "f"
    named = environment(*texts, overrides=("g==3.0", "a==1.5"))
    assert named_releases(named) == {"a": "1.0", "b-c": "2.0"}
    assert named_releases(named, overrides=True) == {"a": "1.5", "b-c": "2.0", "g": "3.0"}


# ------------------------------------------------------------------------------- resolves, works

OLD = {"autoawq": "0.2.7", "transformers": "4.46.2", "torch": "2.5.1", "numpy": "1.26"}
NEW = {"autoawq": "0.2.7", "transformers": "5.23.0", "torch": "2.15.0", "numpy": "2.4"}


def test_what_was_resolved_is_told_in_short() -> None:
    outcome = standing(environment("autoawq==0.2.7"), Solution(OLD), [], METADATA)
    assert (outcome.resolves, outcome.works, outcome.others) == ("yes", NOT_RUN, 1)
    assert outcome.packages == {"autoawq": "0.2.7", "transformers": "4.46.2", "torch": "2.5.1"}


def test_a_refusal_and_a_question_not_asked() -> None:
    refused = standing(environment("a==1"), Solution({}, "because"), [], METADATA)
    assert (refused.resolves, refused.refusal, refused.works) == ("no", "because", NOT_RUN)
    assert standing(environment("a==1"), None, [], METADATA).resolves == "not asked"


def test_evidence_of_the_same_set_counts_wherever_it_was_built() -> None:
    pinned = environment("autoawq==0.2.7", "transformers==4.46.2")
    evidence = [Ran(pinned, OLD, "works"), Ran(pinned, NEW, "broken", "quantize", "no")]
    today = msgspec.structs.replace(pinned, resolution="today")
    outcome = standing(today, Solution(OLD), evidence, METADATA)
    assert (outcome.works, outcome.same_as) == ("works", "pinned")
    outcome = standing(today, Solution(NEW), evidence, METADATA)
    assert (outcome.works, outcome.stage, outcome.message) == ("broken", "quantize", "no")
    other = msgspec.structs.replace(today, name="other")
    assert standing(other, Solution(OLD), evidence, METADATA).same_as == "e (pinned)"
    assert standing(pinned, Solution(OLD), evidence, METADATA).same_as == ""


packages = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2"]), max_size=4)


@given(packages, st.lists(st.tuples(packages, st.sampled_from(["works", NOT_RUN]))))
def test_no_evidence_but_of_the_same_set(
    resolved: dict[str, str], ran: list[tuple[dict[str, str], str]]
) -> None:
    evidence = [Ran(environment("a==1"), versions, word) for versions, word in ran]
    outcome = standing(environment("a==1"), Solution(resolved), evidence, METADATA)
    assert (outcome.works == "works") == (bool(resolved) and (resolved, "works") in ran)


@pytest.mark.parametrize("field", ["python", "device", "environ"])
def test_evidence_under_other_conditions_does_not_count(field: str) -> None:
    others = {"python": "3.12", "device": "cuda", "environ": {"A": "1"}}
    ran = msgspec.structs.replace(environment("a==1"), **{field: others[field]})
    evidence = [Ran(ran, {"a": "1"}, "works")]
    assert standing(environment("a==1"), Solution({"a": "1"}), evidence, METADATA).works == NOT_RUN


def test_its_own_evidence_comes_before_that_of_others() -> None:
    own, other = environment("a==1"), environment("a==1", name="another")
    ran = [Ran(other, {"a": "1"}, "garbage"), Ran(own, {"a": "1"}, "works")]
    assert standing(own, Solution({"a": "1"}), ran, METADATA).works == "works"
    assert standing(own, Solution({"a": "1"}), ran[:1], METADATA).works == "garbage"


def test_which_versions_can_be_had() -> None:
    held = [Release("1.0"), Release("1.1", yanked=""), Release("1.2", gone="2026-01-01"),
            Release("2.0rc1"), Release("no version"), Release("2.0")]  # fmt: skip
    assert PackageMetadata(Snapshot(1, "", {"a": held})).versions("a") == ["1.0", "2.0"]
    assert METADATA.versions("unheard-of") == []


def taken_in(last_day: str, **packages: list[str]) -> Snapshot:
    """Return a snapshot asked on a day of November, of releases 0.0, 1.0, ... seen on such days."""
    held = {
        name: [Release(f"{n}.0", seen=day and f"2026-11-{day}") for n, day in enumerate(days)]
        for name, days in packages.items()
    }
    return Snapshot(1, f"2026-11-{last_day}T00:00:00Z", held)


def test_new_are_the_releases_that_the_last_take_took_in() -> None:
    named = [environment(f"a=={n}.0") for n in range(3)] + [environment("b==1")]
    last = {"a 2.0": "2026-11-24"}
    assert new_releases(taken_in("24", a=["22", "23", "24"]), named) == last
    assert new_releases(taken_in("24", a=["22", "", "24"]), named) == last
    # With one index down the snapshot is as old as the oldest answer.
    assert new_releases(taken_in("23", a=["22", "22", "24"]), named) == last
    # A later take that found nothing: what came before it is new no more.
    assert new_releases(taken_in("25", a=["22", "23", "24"]), named) == {}
    assert new_releases(msgspec.structs.replace(taken_in("22", a=["22"]), asked=""), named) == {}


def test_of_a_package_that_was_not_tracked_before_nothing_is_new() -> None:
    named = [environment("a==1.0"), environment("b==1.0")]
    snapshot = taken_in("24", a=["22", "24"], b=["24", "24"])
    assert new_releases(snapshot, named) == {"a 1.0": "2026-11-24"}


def cell(verdict: Verdict, blame: Blame = Blame.NOBODY, stage: Stage | None = None) -> CellResult:
    made = cell_result(Side("q", "q"), Side("e", "e"), "tied", None)
    return msgspec.structs.replace(made, verdict=verdict, blame=blame, stage=stage, message="why")


def test_an_environment_is_the_best_that_it_came_to_by_itself() -> None:
    good, bad = cell(Verdict.WORKS), cell(Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZE)
    assert works([bad, good], "quantizer")[0] == "works"
    assert works([bad], "quantizer") == ("broken", "quantize", "why")
    assert works([bad], "engine") == (NOT_RUN, "", "")
    assert works([cell(Verdict.BROKEN, Blame.ENGINE)], "quantizer") == (NOT_RUN, "", "")
    assert works([cell(Verdict.INFRA)], "engine") == (NOT_RUN, "", "")
    assert works([], "engine") == (NOT_RUN, "", "")
    assert works([cell(Verdict.UNTESTED), cell(Verdict.INFRA)], "engine") == (NOT_RUN, "", "")
    assert works([cell(Verdict.UNTESTED), good], "engine")[0] == "works"


# ----------------------------------------------------------------------------------- differences


def test_autoawq_0_2_7_as_released_against_today() -> None:
    released = environment("autoawq==0.2.7", resolution="released")
    evidence = [
        Ran(released, OLD, "works"),
        Ran(released, NEW, "broken", "quantizer-import", "ImportError: PytorchGELUTanh"),
    ]
    then = standing(released, Solution(OLD), evidence, METADATA)
    today = msgspec.structs.replace(released, resolution="today")
    now = standing(today, Solution(NEW), evidence, METADATA)
    assert differences([then, now]) == [
        "rotted: resolves today, but does not import",
        "resolved to other packages: transformers 4.46.2 then, 5.23.0 today, "
        "torch 2.5.1 then, 2.15.0 today",
    ]


def test_forbidden_but_works() -> None:
    forced = environment("autoawq==0.2.8", "transformers==4.51.3")
    resolved = {"autoawq": "0.2.8", "transformers": "4.51.3"}
    outcome = standing(forced, Solution(resolved), [Ran(forced, resolved, "works")], METADATA)
    assert differences([outcome]) == [f"forbidden by metadata, but works: {FORBIDDEN}"]


def test_yanked_of_what_is_named_and_of_what_was_resolved() -> None:
    ipex = {"intel-extension-for-pytorch": "2.4.0"}
    line = "yanked: intel-extension-for-pytorch 2.4.0 (for security)"
    resolved = standing(environment("autoawq==0.2.7"), Solution({**OLD, **ipex}), [], METADATA)
    assert differences([resolved]) == [line]
    yanked = standing(environment("intel-extension-for-pytorch==2.4.0"), None, [], METADATA)
    assert differences([yanked]) == [line]


def made(resolution: Resolution, works: str = "works", **fields: object) -> Standing:
    whole = {"declared": "allowed", "resolves": "yes", "packages": {"a": "1"}, "works": works}
    return msgspec.convert({**whole, "resolution": resolution, **fields}, Standing)


@pytest.mark.parametrize(
    ("standings", "lines"),
    [
        ([made("released"), made("today"), made("pinned")], []),
        ([made("released"), made("today", resolves="no", works=NOT_RUN)],
         ["rotted: resolved as released, is refused today"]),
        ([made("released", resolves="no", works=NOT_RUN), made("today", resolves="no")],
         ["allowed by metadata, but refused as released, today"]),
        ([made("released"), made("today", "garbage", stage="generate")],
         ["rotted: works as released, is garbage today at generate"]),
        ([made("released", "broken", stage="quantize"), made("today", "broken", stage="quantize")],
         ["allowed by metadata, but broken at quantize as released, today"]),
        ([made("released", "broken", stage="engine-import"),
          made("today", "broken", stage="engine-import")],
         ["resolves as released and today, but does not import",
          "allowed by metadata, but broken at engine-import as released"]),
        ([made("pinned", "broken", stage="load", declared="forbidden")], []),
        ([made("released", packages={"a": "1", "b": "1"}), made("today")],
         ["resolved to other packages: b 1 then, none today"]),
        ([made("today", "unsupported", stage="load")], []),
        ([], []),
    ],
)  # fmt: skip
def test_differences(standings: list[Standing], lines: list[str]) -> None:
    assert differences(standings) == lines
