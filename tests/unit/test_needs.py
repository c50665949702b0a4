"""What cells need, counted from public configs, and what a machine lacks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.checkpoint.formats import Format
from matrix.machine.hardware import Gpu, Machine
from matrix.pipeline.steps import Device
from matrix.plan.cells import Cell, Checkpoint, Model, Role
from matrix.plan.needs import (
    CONTEXT_BYTES,
    USABLE,
    Needs,
    cuda_of,
    describe,
    fitting,
    of_build,
    of_evaluation,
    of_quantization,
    unmet,
    unmet_by,
    with_room,
)
from matrix.spec.tables import Environment, Limits, SchemeTable
from tests.unit.made_nvml import GIB, gpu, machine


def config(**sizes: Any) -> dict[str, object]:
    """A public config.json of Qwen, so far as it matters."""
    return {"model_type": "qwen2", "vocab_size": 151936, **sizes}


QWEN25_05B = config(
    hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
    num_key_value_heads=2,
)  # fmt: skip
QWEN15_14B = config(
    hidden_size=5120, intermediate_size=13696, num_hidden_layers=40, num_attention_heads=40,
    num_key_value_heads=40, vocab_size=152064,
)  # fmt: skip
AWQ = SchemeTable(format=Format.AWQ, bits=4, group_size=128)


def environment(device: Device = "cuda", name: str = "env") -> Environment:
    return Environment(
        name=name, python="3.11", device=device, requirements=[], constraints=[], overrides=[],
        build_requirements={}, environ={}, departures=[],
    )  # fmt: skip


def model(facts: dict[str, object], tied: bool = False) -> Model:
    return Model("made-up", "env", Path("builder.py"), tied, {}, facts)


def checkpoint(
    facts: dict[str, object], scheme: SchemeTable | None, capability: str = "", tied: bool = False
) -> Checkpoint:
    quantizer = Role("quantizer", "env", Path("quantizer.py"), capability=capability)
    return Checkpoint(model(facts, tied), "scheme", scheme, quantizer)


def evaluation(
    facts: dict[str, object], scheme: SchemeTable | None = None, tied: bool = False, **options: Any
) -> Needs:
    engine = Role("engine", "env", Path("engine.py"), options=options, capability="8.0")
    return of_evaluation(Cell(checkpoint(facts, scheme, tied=tied), engine, []), environment())


def test_a_scheme_that_only_newer_cards_multiply_asks_for_more_than_the_engine() -> None:
    of_cards = {"fp8": "8.9", "fp4": "10.0", "turing": "7.5"}
    needed = {
        name: evaluation(QWEN25_05B, msgspec.structs.replace(AWQ, capability=lowest)).capability
        for name, lowest in of_cards.items()
    }
    assert needed == {"fp8": "8.9", "fp4": "10.0", "turing": "8.0"}
    assert evaluation(QWEN25_05B).capability == "8.0"


def test_the_14b_model_in_float_takes_its_28_gb_and_a_little() -> None:
    needs = evaluation(QWEN15_14B)
    weights = 28.33e9  # 14.17e9 parameters at 16 bits
    assert weights / USABLE < needs.vram < (weights + 3.5e9) / USABLE
    assert needs.gpus == 1


def test_two_cards_take_half_the_weights_each() -> None:
    whole, two = evaluation(QWEN15_14B), evaluation(QWEN15_14B, tensor_parallel_size=2)
    assert two.gpus == 2
    half = (28.33e9 + 64 * 16 * 40 * 2 * 5120 * 2) / 2
    assert (whole.vram - two.vram) * USABLE == pytest.approx(half, rel=1e-3)


def test_packed_weights_take_a_third_of_14b() -> None:
    floats, packed = evaluation(QWEN15_14B), evaluation(QWEN15_14B, AWQ)
    # 152064 x 5120 x 2 stay at 16 bits; the Linears take 4 bits and 4.5 over 128 for scale and zero
    assert (floats.vram - packed.vram) * USABLE == pytest.approx(28.33e9 - 9.67e9, rel=0.01)


def test_a_tied_head_takes_nothing_more() -> None:
    untied, tied = evaluation(QWEN25_05B), evaluation(QWEN25_05B, tied=True)
    assert (untied.vram - tied.vram) * USABLE == pytest.approx(151936 * 896 * 2, rel=1e-4)


def test_float32_takes_twice_the_weights() -> None:
    plain, wide = evaluation(QWEN25_05B), evaluation(QWEN25_05B, dtype="float32")
    assert wide.vram - plain.vram > 0.9e9 / USABLE


def test_an_engine_that_may_use_less_of_a_card_needs_a_larger_one() -> None:
    assert evaluation(QWEN25_05B, gpu_memory_utilization=0.45).vram == pytest.approx(
        2 * evaluation(QWEN25_05B).vram, rel=1e-6
    )


def test_a_longer_context_needs_more() -> None:
    longer = evaluation(QWEN15_14B, max_model_len=32768).vram - evaluation(QWEN15_14B).vram
    assert longer * USABLE == pytest.approx((32768 - 1024) * 40 * 2 * 5120 * 2, rel=1e-3)


def test_no_card_does_without_the_context_of_cuda() -> None:
    assert evaluation(QWEN25_05B).vram > CONTEXT_BYTES + 0.98e9


def test_an_unknown_model_needs_a_card_of_any_size() -> None:
    unknown: list[dict[str, object]] = [{}, {"model_type": "mamba"}, {"hidden_size": "many"}]
    for facts in unknown:
        needs = evaluation(facts)
        assert needs.gpus == 1
        assert needs.vram < 2 * GIB


def test_quantizing_needs_the_float_model_on_one_card_and_in_memory() -> None:
    needs = of_quantization(checkpoint(QWEN15_14B, AWQ, "7.5"), environment(), "12")
    assert needs.vram > evaluation(QWEN15_14B).vram
    assert (needs.gpus, needs.capability, needs.cuda) == (1, "7.5", "12")
    assert needs.memory == pytest.approx(28.33e9, rel=1e-3)


def test_the_float_model_itself_is_quantized_by_nobody() -> None:
    assert of_quantization(checkpoint(QWEN15_14B, None), environment()) == Needs()


def test_building_needs_the_float_model_on_a_card() -> None:
    assert 28.33e9 < of_build(model(QWEN15_14B), environment()).vram < 36e9


def test_on_a_cpu_memory_alone_is_needed() -> None:
    engine = Role("engine", "env", Path("e.py"), options={"tensor_parallel_size": 2})
    cell = Cell(checkpoint(QWEN15_14B, AWQ, "9.0"), engine, [])
    here = environment("cpu")
    for needs, size in (
        (of_evaluation(cell, here), 9.67e9),
        (of_quantization(cell.checkpoint, here), 28.33e9),
        (of_build(cell.checkpoint.model, here), 56.67e9),
    ):
        assert needs == Needs(memory=needs.memory)
        assert needs.memory == pytest.approx(size, rel=1e-3)


def test_of_a_model_of_unknown_shapes_nothing_is_needed_on_a_cpu() -> None:
    here, unknown = environment("cpu"), checkpoint({}, AWQ)
    engine = Role("engine", "env", Path("e.py"))
    assert of_evaluation(Cell(unknown, engine, []), here) == Needs()
    assert of_quantization(unknown, here) == of_build(unknown.model, here) == Needs()


def test_a_large_model_gets_more_memory_and_time_and_a_twin_what_the_spec_says() -> None:
    limits = Limits(seconds=300, silence=240, memory_mb=8000, log_mb=8)
    assert with_room(limits, model({})) == limits
    large = with_room(limits, model(QWEN15_14B))
    assert large.memory_mb == pytest.approx(8000 + 2 * 28335, abs=2)
    assert large.seconds - limits.seconds == large.silence - limits.silence
    assert large.seconds == pytest.approx(300 + 28.33e9 / 20e6, rel=1e-3)
    assert large.log_mb == limits.log_mb


def test_what_is_missing_is_said_in_a_line() -> None:
    needs = Needs(gpus=2, vram=16 * GIB, capability="8.0")
    line = "needs 2 GPUs with 16 GiB each, compute capability 8.0 (here: no GPU)"
    assert unmet(needs, machine()) == line
    here = "(here: 1 x made up, 80 GiB, capability 9.0)"
    assert unmet(needs, machine(gpu())).endswith(here)
    assert unmet(needs, machine(gpu(0), gpu(1))) == ""
    assert unmet(Needs(), machine()) == ""


@pytest.mark.parametrize(
    ("needs", "hardware", "line"),
    [
        (Needs(gpus=1, vram=81 * GIB), machine(gpu()), "needs 1 GPU with 81 GiB (here: 1 x"),
        (Needs(gpus=1, capability="10.0"), machine(gpu()), "needs 1 GPU, compute capability 10.0"),
        (
            Needs(gpus=1, cuda="13"),
            machine(gpu()),
            "needs a driver for CUDA 13 (here: driver 570.86.15 for CUDA 12.8)",
        ),
        (Needs(gpus=1, cuda="12"), machine(gpu()), ""),
        (Needs(gpus=1, cuda="13"), machine(gpu(), cuda=""), ""),
        (
            Needs(gpus=1, vram=GIB, cuda="12", memory=30 * GIB),
            machine(memory=24 * GIB),
            "needs 1 GPU with 1 GiB, a driver for CUDA 12, 30 GiB of memory"
            " (here: no GPU, 24 GiB of memory)",
        ),
        (
            Needs(gpus=2),
            machine(gpu(0, uuid="MIG-1"), gpu(0, uuid="MIG-2")),
            "needs 2 GPUs (here: 2 x made up",
        ),
        (Needs(gpus=1), machine(gpu(0, uuid="MIG-1")), ""),
    ],
)
def test_what_is_missing(needs: Needs, hardware: Machine, line: str) -> None:
    assert unmet(needs, hardware).startswith(line)
    assert bool(unmet(needs, hardware)) == bool(line)


def test_what_is_needed_in_words() -> None:
    needs = Needs(gpus=1, vram=16 * GIB - 5, capability="8.0", cuda="12", memory=GIB)
    words = "1 GPU with 16 GiB, compute capability 8.0, a driver for CUDA 12, 1 GiB of memory"
    assert describe(needs) == words
    assert describe(Needs()) == ""


sizes = st.integers(0, 100).map(lambda number: number * GIB)
capabilities = st.sampled_from(["", "7.5", "8.0", "8.9", "9.0", "10.0", "12.0"])
some_needs = st.builds(
    Needs, gpus=st.integers(0, 4), vram=sizes, capability=capabilities,
    cuda=st.sampled_from(["", "11", "12", "13"]), memory=sizes,
)  # fmt: skip
some_gpus = st.lists(
    st.builds(
        gpu, st.integers(0, 8), sizes, capabilities, st.sampled_from(["GPU-1", "GPU-2", "MIG-1"])
    ),
    max_size=6,
)
versions = st.sampled_from(["11.8", "12.0", "12.8", "13.1"])


@given(some_needs, some_gpus, some_gpus, versions, sizes)
def test_more_cards_never_lack_more(
    needs: Needs, gpus: list[Gpu], more: list[Gpu], cuda: str, memory: int
) -> None:
    if not unmet(needs, machine(*gpus, cuda=cuda, memory=memory)):
        assert not unmet(needs, machine(*gpus, *more, cuda=cuda, memory=memory))


@given(some_needs, some_gpus, sizes, sizes)
def test_more_memory_never_lacks_more(
    needs: Needs, gpus: list[Gpu], more: int, memory: int
) -> None:
    larger = [gpu(g.index, g.memory + more, g.capability, g.uuid) for g in gpus]
    if not unmet(needs, machine(*gpus, memory=memory)):
        assert not unmet(needs, machine(*larger, memory=memory + more))


@given(some_needs, some_gpus)
def test_cards_that_fit_are_enough_exactly_where_none_is_missing(
    needs: Needs, gpus: list[Gpu]
) -> None:
    lacking = "GPU" in unmet(needs, machine(*gpus, cuda="13.1", memory=100 * GIB)).split("(here")[0]
    assert lacking == (len(fitting(needs, gpus)) < needs.gpus)


@given(some_needs)
def test_every_need_is_in_its_words(needs: Needs) -> None:
    line = unmet(needs, machine(memory=0))
    assert line.startswith(f"needs {describe(needs)} (here" if line else "")


@pytest.mark.parametrize(
    ("lock", "cuda"),
    [
        ("nvidia-cuda-runtime-cu12==12.1.105\n", "12"),
        ("numpy==1.26.4\nnvidia-cuda-runtime-cu11==11.8.89\n", "11"),
        ("cuda-toolkit==13.0.3.0\nnvidia-cuda-runtime==13.0.96\n", "13"),
        ("cuda-bindings==13.5.0\nnvidia-cublas==13.1\n", ""),
        ("# nvidia-cuda-runtime-cu12==12.1.105\n", ""),
        ("", ""),
    ],
)
def test_the_cuda_of_a_lock(lock: str, cuda: str) -> None:
    assert cuda_of(lock) == cuda


def test_a_cell_lacks_what_its_first_step_lacks() -> None:
    """The model's build, then the quantization, then the engine: each in its own environment."""
    made = checkpoint(QWEN15_14B, AWQ)
    engine = Role("engine", "engine", Path("engine.py"), options={"tensor_parallel_size": 2})
    quantizer = Role("quantizer", "quantizer", Path("quantizer.py"))
    made = Checkpoint(made.model, "awq", AWQ, quantizer)
    large, small = gpu(0, 80 * GIB), gpu(1, 24 * GIB)

    def lack_on(hardware: Machine, builder: Device = "cpu", maker: Device = "cuda") -> str:
        environments = {
            "env": environment(builder),
            "quantizer": environment(maker),
            "engine": environment("cuda"),
        }
        return unmet_by(environments, hardware, lambda _: "12")(made, engine)

    assert lack_on(machine(), builder="cuda").startswith("needs 1 GPU with 33 GiB, a driver")
    assert " to build the model (here: no GPU)" in lack_on(machine(), builder="cuda")
    assert " to quantize it (here: no GPU)" in lack_on(machine())
    assert lack_on(machine(), maker="cpu").startswith("needs 2 GPUs with 8 GiB each, a driver")
    assert lack_on(machine(small, small)).startswith("needs 1 GPU with 39 GiB to quantize it")
    assert lack_on(machine(large)).startswith("needs 2 GPUs with 8 GiB each (here: 1 x")
    assert lack_on(machine(large, small)) == ""


@pytest.mark.parametrize(
    ("features", "line"),
    [
        (["avx2"], "needs AVX-512 (here: a CPU with x86-64-v3)"),
        (["avx2", "avx512f"], ""),
    ],
)
def test_what_a_role_needs_of_the_cpu_is_looked_for_there(features: list[str], line: str) -> None:
    hardware = msgspec.structs.replace(machine(), features=features, instruction_set="x86-64-v3")
    built = {"env": environment("cpu")}
    wide = Role("engine", "env", Path("engine.py"), instruction_set="AVX-512")
    assert unmet_by(built, hardware, lambda _: "")(checkpoint({}, AWQ), wide) == line
    made = checkpoint({}, AWQ)
    made = msgspec.structs.replace(
        made, quantizer=msgspec.structs.replace(made.quantizer, instruction_set="AVX-512")
    )
    plain = Role("engine", "env", Path("engine.py"))
    line_of_quantizer = unmet_by(built, hardware, lambda _: "")(made, plain)
    assert line_of_quantizer == line.replace(" (here", " to quantize it (here")


def test_locks_of_cpu_environments_are_not_read() -> None:
    engine = Role("engine", "env", Path("engine.py"))

    def read(name: str) -> str:
        raise AssertionError(name)

    says = unmet_by({"env": environment("cpu")}, machine(), read)
    assert says(checkpoint(QWEN15_14B, AWQ), engine) == ""
