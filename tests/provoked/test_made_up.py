"""Engines, quantizers and checkpoints that misbehave on purpose: each gets its own outcome, and
the run goes on. The cells are those of ``made_up/spec.toml``; everything but the packages is real.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from matrix.judge.results import CellResult
from matrix.machine.hardware import Machine
from matrix.pipeline.outcomes import Outcome, Reason, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.run.probes import KEPT_BYTES, RESULT_BYTES
from matrix.store.store import Store
from tests import REPOSITORY
from tests.provoked.runs import SPEC, Finished, impatient, in_the_open, perform

ENGINES = {
    "good": (Verdict.WORKS, None, Reason.NONE),
    "wrong-text": (Verdict.GARBAGE, Stage.GENERATE, Reason.WRONG_OUTPUT),
    "token-zero": (Verdict.GARBAGE, Stage.GENERATE, Reason.WRONG_OUTPUT),
    "wrong-shape": (Verdict.BROKEN, Stage.GENERATE, Reason.UNREADABLE),
    "nests": (Verdict.BROKEN, Stage.GENERATE, Reason.NO_RESULT),
    "writes-no-text": (Verdict.BROKEN, Stage.LOAD, Reason.NO_RESULT),
    "raise": (Verdict.BROKEN, Stage.LOAD, Reason.EXCEPTION),
    "needs-gpu": (Verdict.UNTESTED, Stage.LOAD, Reason.NO_GPU),
    "segfault": (Verdict.BROKEN, Stage.GENERATE, Reason.CRASH),
    "illegal-instruction": (Verdict.UNTESTED, Stage.GENERATE, Reason.NO_INSTRUCTION),
    "illegal-in-worker": (Verdict.UNTESTED, Stage.GENERATE, Reason.NO_INSTRUCTION),
    "old-glibc": (Verdict.UNTESTED, Stage.LOAD, Reason.NO_LIBRARY),
    "segfault-when-forked": (Verdict.WORKS, None, Reason.NONE),
    "exit-0": (Verdict.BROKEN, Stage.GENERATE, Reason.NO_RESULT),
    "hang": (Verdict.BROKEN, Stage.LOAD, Reason.TIMEOUT),
    "silent": (Verdict.BROKEN, Stage.LOAD, Reason.SILENCE),
    "chatter": (Verdict.BROKEN, Stage.LOAD, Reason.LOG_LIMIT),
    "all-memory": (Verdict.BROKEN, Stage.GENERATE, Reason.OOM),
    "disk-full": (Verdict.INFRA, Stage.LOAD, Reason.NO_SPACE),
    "disk-full-for-results": (Verdict.INFRA, Stage.LOAD, Reason.NO_SPACE),
    "writes-and-hangs": (Verdict.BROKEN, Stage.LOAD, Reason.SILENCE),
    "says-events": (Verdict.BROKEN, Stage.LOAD, Reason.TIMEOUT),
    "floods-events": (Verdict.BROKEN, Stage.LOAD, Reason.LOG_LIMIT),
    "ends-often": (Verdict.BROKEN, Stage.LOAD, Reason.NO_RESULT),
    "kills-itself": (Verdict.BROKEN, Stage.LOAD, Reason.CRASH),
    "boasts": (Verdict.BROKEN, Stage.LOAD, Reason.NO_RESULT),
    "boasts-of-little": (Verdict.BROKEN, Stage.LOAD, Reason.NO_RESULT),
    "warns": (Verdict.BROKEN, Stage.LOAD, Reason.NO_RESULT),
    "litters": (Verdict.WORKS, None, Reason.NONE),
    "daemon": (Verdict.WORKS, None, Reason.NONE),
    "lie": (Verdict.WORKS, None, Reason.NONE),
    "import-crash": (Verdict.BROKEN, Stage.ENGINE_IMPORT, Reason.CRASH),
}

AVX2 = Machine(
    processor="made up", cores=2, memory=2**36, system="Linux x86_64", features=["avx2"],
    instruction_set="x86-64-v3",
)  # fmt: skip
"""A machine whose CPU lacks instructions that packages are built for."""

EVERYTHING = msgspec.structs.replace(
    AVX2, features=["avx2", "avx512f", "avx512_bf16", "amx_tile"], instruction_set="x86-64-v4"
)

QUANTIZERS = {
    "raise": (Verdict.BROKEN, Stage.QUANTIZE, Reason.EXCEPTION),
    "segfault": (Verdict.BROKEN, Stage.QUANTIZE, Reason.CRASH),
    "exit-0": (Verdict.BROKEN, Stage.QUANTIZE, Reason.NO_RESULT),
    "hang": (Verdict.BROKEN, Stage.QUANTIZE, Reason.TIMEOUT),
    "silent": (Verdict.BROKEN, Stage.QUANTIZE, Reason.SILENCE),
    "chatter": (Verdict.BROKEN, Stage.QUANTIZE, Reason.LOG_LIMIT),
    "all-memory": (Verdict.BROKEN, Stage.QUANTIZE, Reason.OOM),
    "disk-full": (Verdict.INFRA, Stage.QUANTIZE, Reason.NO_SPACE),
    "truncated": (Verdict.BROKEN, Stage.INSPECT, Reason.UNREADABLE),
    "pickle": (Verdict.BROKEN, Stage.INSPECT, Reason.UNREADABLE),
    "import-crash": (Verdict.BROKEN, Stage.QUANTIZER_IMPORT, Reason.CRASH),
    "import-error": (Verdict.BROKEN, Stage.QUANTIZER_IMPORT, Reason.EXCEPTION),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def engines(store: Path) -> Finished:
    return perform("engines", store, machine=AVX2)


@pytest.fixture(scope="module")
def quantizers(store: Path) -> Finished:
    return perform("quantizers", store, machine=AVX2)


@pytest.fixture(scope="module")
def hanging(
    store: Path, engines: Finished, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, CellResult]:
    """Return the cells of what hangs, with little time; what is good has been run without haste."""
    assert engines.cell("made-up/float/none/plain+good").verdict is Verdict.WORKS
    folder = tmp_path_factory.mktemp("impatient")
    hurried, attentive = impatient(SPEC, folder, seconds=3), impatient(SPEC, folder, silence=2)
    cells = perform("hanging", store, machine=AVX2, spec=hurried).cells
    return cells | perform("silent", store, machine=AVX2, spec=attentive).cells


def is_as(result: CellResult, verdict: Verdict, stage: Stage | None, reason: Reason) -> bool:
    return (result.verdict, result.stage, result.reason) == (verdict, stage, reason.value)


@pytest.mark.parametrize("behaviour", ENGINES)
def test_each_engine_gets_its_own_outcome(
    engines: Finished, hanging: dict[str, CellResult], behaviour: str
) -> None:
    result = (hanging | engines.cells)[f"made-up/float/none/plain+{behaviour}"]
    assert is_as(result, *ENGINES[behaviour]), result


def test_each_engine_has_the_same_outcome_without_a_sandbox(
    engines: Finished, tmp_path: Path
) -> None:
    spec, store = in_the_open(SPEC, tmp_path), tmp_path / "store"
    others = perform("engines", store, machine=AVX2, spec=spec)
    outcomes, in_it = (
        {cell.id: (cell.verdict, cell.stage, cell.reason) for cell in run.cells.values()}
        for run in (others, engines)
    )
    assert outcomes == in_it
    observed = [json.loads(file.read_bytes()) for file in store.glob("observations/*/*.json")]
    assert {observation["sandbox"] for observation in observed} == {"none"}


@pytest.mark.parametrize("behaviour", QUANTIZERS)
def test_each_quantizer_gets_its_own_outcome(
    quantizers: Finished, hanging: dict[str, CellResult], behaviour: str
) -> None:
    result = (hanging | quantizers.cells)[f"made-up/awq-4bit-g64/plain+{behaviour}/plain+good"]
    assert is_as(result, *QUANTIZERS[behaviour]), result


def test_how_far_an_engine_is_off_is_kept_in_place_of_the_likeliest_tokens(
    engines: Finished, store: Path
) -> None:
    good, wrong = (
        engines.cell(f"made-up/float/none/plain+{name}").measures for name in ("good", "wrong-text")
    )
    assert (good.divergence, good.same_top) == (0, 1)
    assert (wrong.same_top, (wrong.divergence or 0) > 0.1) == (0, True)
    files = [file.read_text() for file in store.glob("observations/generate/**/*.json")]
    assert any('"divergence"' in text for text in files)
    assert not any('"likeliest"' in text for text in files)


def test_an_unresolvable_environment_is_a_result_with_uvs_refusal(quantizers: Finished) -> None:
    result = quantizers.cell("made-up/awq-4bit-g64/unresolvable+unresolvable/plain+good")
    assert is_as(result, Verdict.BROKEN, Stage.QUANTIZER_RESOLVE, Reason.UNRESOLVABLE)
    assert result.blame is Blame.QUANTIZER
    assert "iniconfig" in result.message


def test_an_instruction_that_no_cpu_has_is_a_crash(tmp_path: Path) -> None:
    cell = "made-up/float/none/plain+illegal-instruction"
    result = perform("engines", tmp_path, cell, EVERYTHING).cell(cell)
    assert is_as(result, Verdict.BROKEN, Stage.GENERATE, Reason.CRASH), result


def test_evidence_of_two_cpus_stands_side_by_side(tmp_path: Path) -> None:
    cell = "made-up/float/none/plain+illegal-instruction"
    first = perform("engines", tmp_path, cell, AVX2).cell(cell)
    second = perform("engines", tmp_path, cell, EVERYTHING).cell(cell)
    assert (first.device, first.verdict) == ("cpu x86-64-v3", Verdict.UNTESTED)
    assert (second.device, second.verdict) == ("cpu x86-64-v4", Verdict.BROKEN)
    assert (first.elsewhere, second.elsewhere) == ({}, {first.device: first.verdict})
    back = perform("engines", tmp_path, cell, AVX2)
    assert back.told == [], "what was observed on this CPU is not done again"
    assert back.cell(cell).verdict is first.verdict
    assert back.cell(cell).elsewhere == {second.device: second.verdict}


def test_an_engine_broken_alone_is_blamed_alone(engines: Finished) -> None:
    assert engines.cell("made-up/float/none/plain+import-crash").blame is Blame.ENGINE


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        ("boasts", f"more than {RESULT_BYTES} bytes"),
        ("boasts-of-little", f"more than {KEPT_BYTES} bytes to be kept"),
        ("warns", "`array` of length <= 50"),
    ],
)
def test_a_result_that_is_too_large_is_named(
    engines: Finished, behaviour: str, problem: str
) -> None:
    message = engines.cell(f"made-up/float/none/plain+{behaviour}").message
    assert message.startswith("left a result that cannot be used: ")
    assert problem in message


@pytest.mark.usefixtures("engines")
def test_nothing_temporary_is_left(store: Path) -> None:
    homes = list(store.glob("environments/*/home"))
    assert homes
    assert not [home for home in homes if (home / "tmp").exists()]
    assert not list((store / "work").iterdir())


@pytest.mark.usefixtures("engines")
def test_nothing_that_was_left_running_lives_on() -> None:
    lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if "matrix-test-daemon" in line]


def test_a_rerun_starts_nothing_but_what_infrastructure_stopped(
    engines: Finished, store: Path
) -> None:
    again = perform("engines", store, machine=AVX2)
    assert [line for line in again.told if "plain+disk-full" not in line] == []
    assert again.cell("made-up/float/none/plain+good") == engines.cell(
        "made-up/float/none/plain+good"
    )


@pytest.mark.usefixtures("engines")
def test_records_name_every_step_once(store: Path) -> None:
    records = [r for r in Store(store).records() if r.outcome != Outcome.INFRA]
    names = [(record.step, record.subject, record.key) for record in records]
    assert len(names) == len(set(names)) > len(ENGINES)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_process_and_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    cell = "made-up/float/none/plain+hang"
    argv = [sys.executable, "-m", "matrix", "run", "--spec", str(SPEC), "--profile", "hanging",
            "--cell", cell, "--store", str(tmp_path)]  # fmt: skip
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        imported = (line for line in run.stderr if ": import: passed" in line)
        assert next(imported, None), "the model's builder"
        assert next(imported, None), "the engine, whose load hangs"
        below = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(number)
        run.wait(timeout=600)
    assert below
    _, alive = psutil.wait_procs(below, timeout=600)
    assert not alive
    hurried = impatient(SPEC, tmp_path / "impatient", seconds=3)
    finished = perform("hanging", tmp_path, cell=cell, spec=hurried)
    assert not [line for line in finished.told if "resolve" in line or "install" in line]
    assert finished.cell(cell).verdict is Verdict.BROKEN
    steps = [(r.step, r.key) for r in Store(tmp_path).records()]
    assert len(steps) == len(set(steps))


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_nox_leaves_no_process(tmp_path: Path, number: signal.Signals, jobs: str) -> None:
    environ = {
        **os.environ,
        "MATRIX_SPEC": str(SPEC),
        "MATRIX_PROFILE": "engines",
        "MATRIX_STORE": str(tmp_path),
        "MATRIX_REPORTS": str(tmp_path / "reports"),
    }
    argv = [sys.executable, "-m", "nox", "-s", "plain", "-j", jobs]
    with subprocess.Popen(
        argv, cwd=REPOSITORY, env=environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as nox:  # fmt: skip
        assert nox.stdout is not None
        assert any("again in a fresh process" in line for line in nox.stdout)
        below: list[psutil.Process] = []
        while len(below) <= 2 and nox.poll() is None:  # the fresh process may not be there yet
            below = psutil.Process(nox.pid).children(recursive=True)
            time.sleep(0.02)
        nox.send_signal(number)
        _, alive = psutil.wait_procs([psutil.Process(nox.pid), *below], timeout=600)
        nox.stdout.read()
    assert len(below) > 2
    assert not alive
