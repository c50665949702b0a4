"""Remakes the checkpoints beside this file with the real packages, from a store's environments.

    python -m tests.checkpoints.making .matrix [NAME ...]

The store must hold the environments named below; ``python -m matrix run`` builds them. Without
names all are made anew. The same packages give the same tensors on the same kind of machine.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from matrix.environments.virtualenvs import python_of
from matrix.pipeline.steps import Step
from matrix.run.probes import Probe
from matrix.spec.loading import load
from matrix.spec.tables import Limits

FOLDER = Path(__file__).parent
PROBE = FOLDER.parents[1] / "matrix" / "probe"
LIMITS = Limits(seconds=600, silence=600, memory_mb=6000, log_mb=8)

FLOAT = "float"
RECIPE = {
    "architecture": "qwen2", "seed": 0, "vocabulary": 320, "positions": 256,
    "rope_theta": 1_000_000.0, "layers": 2, "hidden_size": 128, "intermediate_size": 256,
    "attention_heads": 2, "key_value_heads": 1, "tie_word_embeddings": True,
    "steps": 300, "learning_rate": 2e-3,
    "start_scales": {"q_proj.bias": 0.5, "k_proj.bias": 4.0, "v_proj.bias": 0.1},
    "outlier_channels": 8, "outlier_factor": 16.0, "max_new_tokens": 16,
}  # fmt: skip
"""The float model: the twin that the ``cpu`` profile quantizes, in small."""

AWQ = {"bits": 4, "group_size": 64, "zero_point": True, "version": "GEMM"}
GPTQ = {"bits": 4, "group_size": 64, "sym": True, "desc_act": False}
CALIBRATION = {"max_calib_samples": 16, "max_calib_seq_len": 64}
"""AutoAWQ leaves out what is longer, and with so few tokens in the vocabulary all sentences are."""
NOT_NEEDED = ("quant_log.csv", "quant_log.json", "chat_template.jinja", "generation_config.json")
"""Files that a package leaves and nothing reads."""


class Made(msgspec.Struct, frozen=True):
    """How a checkpoint is made: where, by which adapter, under which scheme and departures."""

    environment: str
    adapter: str
    scheme: Mapping[str, object]
    departures: tuple[str, ...] = ()
    options: Mapping[str, object] = msgspec.field(default_factory=lambda: CALIBRATION)


AUTOAWQ = "autoawq-0.2.9+transformers-4.51.3"
AUTO_GPTQ = "auto-gptq-0.7.1+transformers-4.46.3"
GPTQMODEL = "gptqmodel-7.6.0+transformers-5.23.0"
LLM_COMPRESSOR = "llmcompressor-0.14.0.1+transformers-5.17.0"
AUTO_ROUND = "auto-round-0.16.1+transformers-5.24.0"
PACKED = {**GPTQ, "method": "compressed-tensors", "format": "pack-quantized"}
CHANNELS = {**PACKED, "bits": 8, "group_size": -1}

QUANTIZED = {
    "autoawq-0.2.9-4bit-g64": Made(
        AUTOAWQ, "quantizers/autoawq", AWQ, ("autoawq-cpu-scale-search",)
    ),
    "autoawq-0.2.9-4bit-g64-stock": Made(AUTOAWQ, "quantizers/autoawq", AWQ),
    "autoawq-0.2.7-4bit-g64": Made(
        "autoawq-0.2.7+transformers-4.47.1",
        "quantizers/autoawq",
        AWQ,
        ("autoawq-cpu-scale-search",),
    ),
    "auto-gptq-0.7.1-4bit-g64": Made(AUTO_GPTQ, "quantizers/auto_gptq", GPTQ, ("auto-gptq-cpu",)),
    "auto-gptq-0.7.1-4bit-g64-desc_act": Made(
        AUTO_GPTQ, "quantizers/auto_gptq", {**GPTQ, "desc_act": True}, ("auto-gptq-cpu",)
    ),
    "gptqmodel-7.6.0-4bit-g64": Made(GPTQMODEL, "quantizers/gptqmodel", GPTQ),
    "gptqmodel-7.6.0-8bit-g128": Made(
        GPTQMODEL, "quantizers/gptqmodel", {**GPTQ, "bits": 8, "group_size": 128}
    ),
    "llmcompressor-0.14.0.1-gptq-4bit-g64": Made(
        LLM_COMPRESSOR, "quantizers/llm_compressor", PACKED, options={"modifier": "gptq"}
    ),
    "llmcompressor-0.14.0.1-awq-4bit-g64": Made(
        LLM_COMPRESSOR,
        "quantizers/llm_compressor",
        {**PACKED, "sym": False},
        ("llm-compressor-cpu-pinning",),
        {"modifier": "awq"},
    ),
    "llmcompressor-0.14.0.1-w8a8": Made(
        LLM_COMPRESSOR,
        "quantizers/llm_compressor",
        {**CHANNELS, "format": "int-quantized", "activations": "int8"},
        options={"modifier": "smoothquant+gptq"},
    ),
    "llmcompressor-0.14.0.1-fp8": Made(
        LLM_COMPRESSOR,
        "quantizers/llm_compressor",
        {**CHANNELS, "format": "float-quantized", "activations": "fp8"},
        options={"modifier": "round"},
    ),
    "auto-round-0.16.1-awq-4bit-g64": Made(
        AUTO_ROUND,
        "quantizers/auto_round",
        {**AWQ, "sym": False, "method": "awq", "format": "awq"},
        options={"iters": 50, "seqlen": 16},
    ),
}
"""Name of a folder beside this file -> how it is made."""


def make(store: Path, names: list[str]) -> None:
    """Make the named folders, or all; raises ``RuntimeError`` where a package does."""
    for name in names or [FLOAT, *QUANTIZED]:
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch) / "output"
            if name == FLOAT:
                job: dict[str, object] = {"recipe": RECIPE, "output": str(output)}
                perform(store, Made("twins", "models/twin", {}), "build", job, Path(scratch))
            else:
                made = QUANTIZED[name]
                job = {"scheme": made.scheme, "output": str(output), **given()}
                perform(store, made, "quantize", job, Path(scratch))
            keep(output, FOLDER / name)
        print(name, flush=True)


def given() -> dict[str, object]:
    """Return what every quantizer is given of the float model."""
    reference = msgspec.json.decode((FOLDER / FLOAT / "reference.json").read_bytes())
    return {"model": str(FOLDER / FLOAT / "model"), "calibration": reference["calibration"]}


def perform(store: Path, made: Made, step: str, job: Mapping[str, object], scratch: Path) -> None:
    """Do one step in its environment, as the harness does; raise what the package raised."""
    folder = store.resolve() / "environments" / made.environment
    home, work = scratch / "home", scratch / "work"
    home.mkdir()
    work.mkdir()
    with Probe(
        python_of(folder),
        PROBE / f"{made.adapter}.py",
        environ={**load().environments[made.environment].environ},
        departures=list(made.departures),
        home=home,
        work=work,
    ) as probe:
        answers = [probe.importing(LIMITS)]
        if probe.alive:
            whole = {"options": made.options, "departures": list(made.departures), **job}
            with probe.job_folder() as job_folder:
                answers += probe.perform(
                    whole, [Step(step)], {Step(step): LIMITS}, job_folder, fork=True
                )
    last = answers[-1]
    if last.result is None or not last.result.ok:
        raise RuntimeError(f"{made.environment}: {last.step}: {last.result}\n{last.log[-2000:]}")


def keep(output: Path, target: Path) -> None:
    """Put what was made in the place of what lies there."""
    for name in NOT_NEEDED:
        for file in output.rglob(name):
            file.unlink()
    for file in output.rglob("*.json"):
        # Packages write down where they read and spilled to; that is a folder of this machine.
        text = file.read_text(encoding="utf-8").replace(str(FOLDER), "<checkpoints>")
        temporary = re.escape(tempfile.gettempdir())
        file.write_text(re.sub(rf'"{temporary}/[^"]*"', '"<temporary>"', text), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(output, target)


if __name__ == "__main__":
    make(Path(sys.argv[1]), sys.argv[2:])
