"""What a step needs of a machine, and what of that a machine lacks. Pure.

How much memory a step takes is worked out from the model's ``config.json`` before there is a file:
rather too much than too little, since a card that is too small would make a sound package look
broken. On a CPU nothing else is needed but what a role declares, and for a model whose shapes are
not known, no memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Literal

import msgspec

from matrix.checkpoint.files import Config
from matrix.checkpoint.inspection import ConfigFacts, Quantization
from matrix.checkpoint.shapes import expected_bytes, linear_shapes
from matrix.machine import processor
from matrix.machine.hardware import Gpu, Machine, gpus_in_words, version
from matrix.pipeline.steps import Step
from matrix.plan.cell_steps import PlannedStep, steps_of_checkpoint, steps_of_engine
from matrix.plan.cells import Cell, Checkpoint, Model, Role
from matrix.spec.tables import Environment, InstructionSet, Limits, SchemeTable

GIB = 2**30

CONTEXT_BYTES = 1343 * 2**20
"""What a process of torch takes on a card before it holds a tensor: CUDA's context and kernels
(transformers' documentation, "Model training anatomy"). Not measured here."""

USABLE = 0.9
"""Part of a card that vLLM takes by default (``gpu_memory_utilization``; 0.92 in 0.32.0). For other
packages, what fragments of freed memory leave."""

CACHED_TOKENS = 64 * 16
"""Tokens in the key-value cache: the 64 blocks that our adapter of vLLM asks for."""

BATCH_TOKENS = 512
"""Tokens that our adapter of vLLM lets run at once. Logits of all are made, twice, as 4 bytes."""

CALIBRATION_TOKENS = 128 * 512
"""Tokens that go through a layer at once: AutoAWQ's ``max_calib_samples`` and
``max_calib_seq_len`` (0.2.7, ``awq/models/base.py``)."""

BYTES_PER_SECOND = 20e6
"""Of a model's 16-bit files, what its slowest step gets through: a download, or AWQ of 14B within
half an hour. A bound beyond which something hangs, and no prediction; not measured here."""

OUTPUT_BYTES = 10**9
"""Of what lies beside a model's tensors: tokenizers, and tables that packages write."""
UNKNOWN_OUTPUT_BYTES = 200 * 10**9

CudaOf = Callable[[str], str]
"""From an environment's name to the major version of CUDA that its lock pins, if any."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a step needs of a machine; 0 or empty is nothing."""

    gpus: int = 0
    vram: int = 0
    """Bytes on each GPU."""
    capability: str = ""
    """Lowest compute capability, as in ``8.0``."""
    cuda: str = ""
    """Major version of CUDA that the driver must offer."""
    instruction_set: InstructionSet | Literal[""] = ""
    """What the CPU must have."""
    memory: int = 0
    """Bytes of the machine's own memory."""


class _Sizes(msgspec.Struct, frozen=True):
    """Of a model, in bytes; 0 where it is not one whose shapes are known."""

    plain: int = 0
    """Its tensors at 16 bits."""
    weights: int = 0
    """The same, the Linears packed where there is a scheme."""
    key_value: int = 0
    """A token in the cache of keys and values."""
    activations: int = 0
    """A token's between two layers and within an MLP."""
    logits: int = 0
    """A token's, as they come and as log-probabilities."""


def of_build(model: Model, environment: Environment, cuda: str = "") -> Needs:
    """Return what building a model and asking it for its own answers needs."""
    sizes = _sizes_of(model, None)
    vram = sizes.weights + CACHED_TOKENS * sizes.key_value + _working(sizes)
    # Four bytes a parameter: the files, and the model that is made of them.
    needs = Needs(gpus=1, vram=_of_card(vram), cuda=cuda, memory=2 * sizes.plain)
    return _on_device(environment, needs)


def of_quantization(checkpoint: Checkpoint, environment: Environment, cuda: str = "") -> Needs:
    """Return what making a checkpoint needs: the float model on one card, and its calibration.

    AutoAWQ puts the whole model there where it can (``device_map="auto"``); AutoGPTQ and GPTQModel
    move layer by layer and would do with less.
    """
    if checkpoint.scheme is None:
        return Needs()  # the model itself, which its build has made
    sizes = _sizes_of(checkpoint.model, None)
    vram = sizes.plain + CALIBRATION_TOKENS * sizes.activations + _working(sizes)
    needs = Needs(
        gpus=1,
        vram=_of_card(vram),
        capability=checkpoint.quantizer.capability,
        cuda=cuda,
        instruction_set=checkpoint.quantizer.instruction_set,
        memory=sizes.plain,
    )
    return _on_device(environment, needs)


def of_evaluation(cell: Cell, environment: Environment, cuda: str = "") -> Needs:
    """Return what loading a cell's checkpoint and generating with it needs."""
    engine, scheme = cell.engine, cell.checkpoint.scheme
    sizes = _sizes_of(cell.checkpoint.model, scheme)
    gpus = tensor_parallel(engine)
    longest = _positive(engine.options.get("max_model_len"), 0)
    cached = max(CACHED_TOKENS, longest) * sizes.key_value
    weights = sizes.weights * (2 if engine.options.get("dtype") == "float32" else 1)
    vram = math.ceil((weights + cached) / gpus) + _working(sizes)
    usable = _positive(engine.options.get("gpu_memory_utilization"), USABLE)
    if environment.device == "cpu":
        return Needs(instruction_set=engine.instruction_set, memory=weights)
    return Needs(
        gpus=gpus,
        vram=_of_card(vram, usable),
        capability=max(engine.capability, scheme.capability if scheme else "", key=version),
        cuda=cuda,
        instruction_set=engine.instruction_set,
    )


def needs_of(step: PlannedStep, environment: Environment, cuda: str = "") -> Needs:
    """Return what a step needs; nothing, but for those that put a model into memory."""
    subject = step.subject
    match step.step:
        case Step.BUILD if isinstance(subject, Model):
            return of_build(subject, environment, cuda)
        case Step.QUANTIZE if isinstance(subject, Checkpoint):
            return of_quantization(subject, environment, cuda)
        case Step.LOAD if isinstance(subject, Cell):
            return of_evaluation(subject, environment, cuda)
        case _:
            return Needs()


_PURPOSES = {Step.BUILD: "to build the model", Step.QUANTIZE: "to quantize it"}
"""What a step is for whose needs would surprise somebody who reads of an engine."""


def unmet_by(
    environments: Mapping[str, Environment], machine: Machine, cuda_of: CudaOf
) -> Callable[[Checkpoint, Role], str]:
    """Return a function: from a checkpoint and an engine to what they need that a machine lacks."""

    made_of: dict[str, tuple[PlannedStep, ...]] = {}

    def unmet_of(checkpoint: Checkpoint, engine: Role) -> str:
        if checkpoint.id not in made_of:
            made_of[checkpoint.id] = steps_of_checkpoint(checkpoint)
        made = made_of[checkpoint.id]
        for step in (*made, *steps_of_engine(Cell(checkpoint, engine, []), made)):
            environment = environments[step.environment]
            cuda = cuda_of(step.environment) if environment.device == "cuda" else ""
            needs = needs_of(step, environment, cuda)
            if lacking := unmet(needs, machine, _PURPOSES.get(step.step, "")):
                return lacking
        return ""

    return unmet_of


def unmet(needs: Needs, machine: Machine, purpose: str = "") -> str:
    """Return in a line all that a machine lacks of what is needed; empty where nothing.

    For example ``needs 2 GPUs with 18 GiB each, compute capability 8.0 (here: no GPU)``.
    """
    lacks, here = [], []
    if len(fitting(needs, machine.gpus)) < needs.gpus:
        lacks.append(_gpus(needs))
        here.append(gpus_in_words(machine.gpus) or "no GPU")
    is_known = machine.cuda or not machine.gpus
    if needs.cuda and is_known and version(machine.cuda)[:1] < version(needs.cuda)[:1]:
        lacks.append(f"a driver for CUDA {needs.cuda}")
        if machine.cuda:
            here.append(f"driver {machine.driver} for CUDA {machine.cuda}")
    if needs.instruction_set and needs.instruction_set in processor.lacking(machine.features):
        lacks.append(needs.instruction_set)
        here.append(f"a CPU with {machine.instruction_set or 'nothing that is told'}")
    if needs.memory > machine.memory:
        lacks.append(f"{_gib(needs.memory)} of memory")
        here.append(f"{machine.memory / GIB:.0f} GiB of memory")
    if not lacks:
        return ""
    return f"needs {', '.join(lacks)}{' ' * bool(purpose)}{purpose} (here: {', '.join(here)})"


def describe(needs: Needs) -> str:
    """Return what is needed in words; empty where it is nothing."""
    parts = [
        _gpus(needs) if needs.gpus else "",
        f"a driver for CUDA {needs.cuda}" if needs.cuda else "",
        f"a CPU with {needs.instruction_set}" if needs.instruction_set else "",
        f"{_gib(needs.memory)} of memory" if needs.memory else "",
    ]
    return ", ".join(filter(None, parts))


def fitting(needs: Needs, gpus: list[Gpu]) -> list[Gpu]:
    """Return the cards that would do. A process can use one instance of MIG, but not two."""
    return [
        gpu
        for gpu in gpus
        if gpu.memory >= needs.vram
        and version(gpu.capability) >= version(needs.capability)
        and not (gpu.divided and needs.gpus > 1)
    ]


def cuda_of(lock: str) -> str:
    """Return the major version of CUDA that a lock pins, such as ``12``; empty where none."""
    pin = re.compile(
        r"^(?:nvidia-cuda-runtime(?:-cu\d+)?|cuda-toolkit)(?:\[.*\])?==(\d{1,4})\.", re.M
    )
    majors = [int(pin_of_cuda[1]) for pin_of_cuda in pin.finditer(lock)]
    return str(max(majors)) if majors else ""


def tensor_parallel(engine: Role) -> int:
    """Return on how many devices an engine puts a model."""
    return int(_positive(engine.options.get("tensor_parallel_size"), 1))


def with_room(limits: Limits, model: Model) -> Limits:
    """Return limits with room for a large model; as they are for one of unknown shapes.

    More memory by the files, which are mapped, and what is made of them; more time by their bytes.
    """
    size = _sizes_of(model, None).plain
    longer = size / BYTES_PER_SECOND
    return msgspec.structs.replace(
        limits,
        seconds=limits.seconds + longer,
        silence=limits.silence + longer,
        memory_mb=limits.memory_mb + 2 * size // 10**6,
    )


def most_output(model: Model) -> int:
    """Return the bytes that a model's files, or a checkpoint's of it, may have at the most.

    Its tensors with four bytes for each of two, and half as much again; for one of unknown shapes,
    what a disk of these days holds.
    """
    plain = _sizes_of(model, None).plain
    return OUTPUT_BYTES + 3 * plain if plain else UNKNOWN_OUTPUT_BYTES


def _on_device(environment: Environment, needs: Needs) -> Needs:
    if environment.device == "cuda":
        return needs
    return Needs(instruction_set=needs.instruction_set, memory=needs.memory)


def _sizes_of(model: Model, scheme: SchemeTable | None) -> _Sizes:
    try:
        config = msgspec.convert(model.config, Config)
    except msgspec.ValidationError:
        return _Sizes()
    return _sizes(config.facts, model.tied, scheme)


@cache
def _sizes(config: ConfigFacts, tied: bool, scheme: SchemeTable | None) -> _Sizes:
    linears = linear_shapes(config)
    if not linears:
        return _Sizes()
    packed = None
    if scheme is not None:
        sizes, form = (scheme.bits, scheme.group_size), scheme.format
        packed = Quantization(scheme.method, *sizes, sym=scheme.sym, checkpoint_format=form)
    plain = expected_bytes(config, tied, None) or 0
    first = {
        part: linears[f"model.layers.0.{part}"] for part in ("self_attn.k_proj", "mlp.gate_proj")
    }
    intermediate, hidden = first["mlp.gate_proj"]
    return _Sizes(
        plain=plain,
        weights=expected_bytes(config, tied, packed) or plain,
        key_value=2 * 2 * first["self_attn.k_proj"][0] * (config.layers or 0),
        activations=2 * (2 * hidden + 3 * intermediate),
        logits=2 * 4 * (config.vocabulary or 0),
    )


def _working(sizes: _Sizes) -> int:
    """Return the bytes on each card beside weights and cache."""
    return CONTEXT_BYTES + BATCH_TOKENS * (sizes.logits + sizes.activations)


def _of_card(used: int, usable: float = USABLE) -> int:
    return math.ceil(used / usable)


def _positive(option: object, otherwise: float) -> float:
    return option if isinstance(option, int | float) and option > 0 else otherwise


def _gpus(needs: Needs) -> str:
    count = "1 GPU" if needs.gpus == 1 else f"{needs.gpus} GPUs"
    memory = f" with {_gib(needs.vram)}" if needs.vram else ""
    per_card = " each" if memory and needs.gpus > 1 else ""
    capability = f", compute capability {needs.capability}" if needs.capability else ""
    return f"{count}{memory}{per_card}{capability}"


def _gib(size: int) -> str:
    return f"{math.ceil(size / GIB)} GiB"
