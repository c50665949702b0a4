"""The way up to the card, with made-up cards and packages: needs, leases, probes, evidence.

The cells are those of ``made_up/gpu.toml``; harness, environments and locks are real.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from matrix.judge.results import CellResult
from matrix.machine.hardware import Machine
from matrix.machine.leases import lease
from matrix.pipeline.outcomes import Outcome, Reason, Verdict
from matrix.pipeline.steps import Stage, Step
from matrix.plan.cell_steps import steps_of, steps_of_checkpoint
from matrix.plan.cells import select
from matrix.run.context import Context, Settings
from matrix.run.probes import Answer, Probe
from matrix.run.run import Run
from matrix.run.workspace import Workspace
from matrix.spec.tables import Limits
from matrix.store.observations import Observation
from tests import REPOSITORY
from tests.provoked.runs import impatient
from tests.unit.made_nvml import gpu, machine

SPEC = Path(__file__).parent / "made_up" / "gpu.toml"
CARDS = [gpu(0), gpu(1)]
BOTH = "GPU-made-up-0,GPU-made-up-1"


def cell_of(engine: str) -> str:
    return f"made-up/float/none/{engine}"


def nobody(_uuid: str) -> list[int]:
    return []


def free(leases: Path) -> list[int]:
    """Which of the cards nobody has leased."""

    def give_up(_seconds: float) -> None:
        raise BlockingIOError

    indices = []
    for card in CARDS:
        with ExitStack() as stack:
            try:
                stack.enter_context(lease([card], 1, leases, nobody, print, give_up))
            except BlockingIOError:
                continue
            indices.append(card.index)
    return indices


class Finished:
    """A run that is over, and which cards were free when it told each line."""

    def __init__(self, profile: str, store: Path, machine: Machine, spec: Path = SPEC) -> None:
        settings = Settings.of({}, spec=spec, profile=profile, store=store)
        self.context = Context(settings, machine=machine)
        self.leases = store.parent / "leases"
        self.told: list[str] = []
        self.free_at: dict[str, list[int]] = {}

    def run(self, cell: str | None = None, on: Callable[[str], list[int]] = nobody) -> Finished:
        context = self.context
        run = Run(
            Workspace(context), self._tell, str, fork=True, processes_on=on, leases=self.leases
        )
        run.perform(select(context.plan, cells=None if cell is None else [cell]))
        return self

    def _tell(self, line: str) -> None:
        self.told.append(line)
        self.free_at[line.split(": ")[0]] = free(self.leases)

    def cell(self, engine: str) -> CellResult:
        return self.context.fresh_judge().cell(cell_of(engine))

    def observation(self, engine: str, step: str) -> Observation | None:
        cell = next(c for c in self.context.plan.cells if c.id == cell_of(engine))
        planned = next(s for s in reversed(steps_of(cell)) if s.step == step)
        return self.context.keys.observed(self.context.keys.of(planned))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpus") / "store"


@pytest.fixture(scope="module")
def two(store: Path) -> Finished:
    return Finished("engines", store, machine(*CARDS)).run()


def test_a_job_sees_the_card_that_was_leased_for_it_and_no_other(two: Finished) -> None:
    load = two.observation("plain+good", "load")
    assert load is not None
    assert load.facts["shown"] == CARDS[0].uuid
    assert two.free_at[cell_of("plain+good")] == [1], "while it ran"
    assert free(two.leases) == [0, 1], "right after"
    assert two.cell("plain+good").verdict is Verdict.WORKS


def test_tensor_parallel_2_gets_two_cards(two: Finished) -> None:
    load = two.observation("plain+tp2", "load")
    assert load is not None
    assert load.facts["shown"] == BOTH
    assert two.free_at[cell_of("plain+tp2")] == []


def test_each_job_on_a_gpu_has_a_process_of_its_own_that_was_not_forked(two: Finished) -> None:
    processes = []
    for engine in ("plain+good", "plain+tp2"):
        load, generate = (two.observation(engine, step) for step in ("load", "generate"))
        assert load is not None
        assert generate is not None
        assert load.facts["process"] == generate.facts["process"], "one job, two steps"
        assert load.facts["forked"] is generate.facts["forked"] is False
        processes.append(load.facts["process"])
    assert len(set(processes)) == 2


@pytest.mark.parametrize(
    ("behaviour", "stage", "reason"),
    [
        ("segfault", Stage.LOAD, Reason.CRASH),
        ("exit-0", Stage.LOAD, Reason.NO_RESULT),
        ("killed", Stage.GENERATE, Reason.CRASH),
        ("no-memory", Stage.GENERATE, Reason.OOM),
    ],
)
def test_however_a_job_ends_its_card_is_free_again(
    two: Finished, behaviour: str, stage: Stage, reason: Reason
) -> None:
    cell = two.cell(f"plain+{behaviour}")
    verdict = Verdict.INFRA if reason is Reason.OOM else Verdict.BROKEN
    assert (cell.verdict, cell.stage, cell.reason) == (verdict, stage, reason.value)
    assert not [line for line in two.told if "again in a fresh process" in line]
    assert free(two.leases) == [0, 1]


def test_one_that_falls_silent_frees_its_card(tmp_path: Path) -> None:
    spec = impatient(SPEC, tmp_path / "impatient", silence=2)
    here = Finished("silent", tmp_path / "store", machine(*CARDS), spec).run()
    cell = here.cell("plain+silent")
    assert (cell.verdict, cell.stage) == (Verdict.BROKEN, Stage.LOAD)
    assert cell.reason == Reason.SILENCE.value
    assert free(here.leases) == [0, 1]


def test_evidence_names_its_device_and_machine(two: Finished) -> None:
    for step in ("import", "load", "generate"):
        observation = two.observation("plain+good", step)
        assert observation is not None
        assert observation.device == "cuda 9.0" == observation.inputs["device"]
        assert observation.machine == two.context.machine.facts()
        assert "made-up" not in str(observation.machine), "cards have no names there"
    assert two.cell("plain+good").device == "cuda 9.0"
    load = two.observation("plain+tp2", "load")
    assert load is not None
    assert load.facts["gpu_peak_bytes"] == 1001, "the fuller one of two"


def test_a_probe_without_the_gpu_that_was_asked_for_is_no_evidence(two: Finished) -> None:
    cell = two.cell("cpu-build")
    assert (cell.verdict, cell.stage) == (Verdict.BROKEN, Stage.ENGINE_IMPORT)
    assert cell.reason == Reason.WRONG_DEVICE.value
    assert cell.message.startswith("asked for cuda, but the probe ran on 'cpu'")
    assert two.observation("cpu-build", "load") is None


def test_a_load_on_the_cpu_is_no_evidence_either(two: Finished) -> None:
    cell = two.cell("plain+elsewhere")
    assert (cell.verdict, cell.stage) == (Verdict.BROKEN, Stage.LOAD)
    assert cell.reason == Reason.WRONG_DEVICE.value
    assert two.observation("plain+elsewhere", "generate") is None


def test_an_engine_whose_workers_are_other_processes_says_itself_where_it_ran(
    two: Finished,
) -> None:
    assert two.cell("plain+workers").verdict is Verdict.WORKS
    load = two.observation("plain+workers", "load")
    assert load is not None
    assert load.facts["gpu_peak_bytes"] == 2000


def test_a_gpu_that_is_gone_when_the_next_job_comes_leaves_no_evidence(tmp_path: Path) -> None:
    here = Finished("engines", tmp_path / "store", machine(gpu(0))).run(cell_of("plain+good"))
    (tmp_path / "store/environments/plain/home/driver-is-gone").touch()
    here.run(cell_of("plain+killed"))
    assert here.told[-1] == "plain: did not import again; the next run tries it"
    assert here.observation("plain+killed", "load") is None
    assert free(here.leases) == [0, 1]


def test_a_model_may_be_built_on_the_cpu_beside_a_gpu(store: Path) -> None:
    here = Finished("models", store, machine(*CARDS)).run()
    (cell,) = here.context.table_judge().table().cells
    assert cell.verdict is Verdict.WORKS


def test_a_probe_on_a_gpu_that_nobody_asked_for_is_no_evidence(two: Finished) -> None:
    cell = two.cell("unasked")
    assert (cell.verdict, cell.reason) == (Verdict.BROKEN, Reason.WRONG_DEVICE.value)
    assert cell.message.startswith("asked for cpu, but the probe ran on 'cuda'")
    assert two.observation("unasked", "load") is None


def test_cards_that_are_too_old_leave_a_cell_untested(two: Finished) -> None:
    cell = two.cell("plain+newest-cards")
    assert (cell.verdict, cell.stage, cell.reason) == (Verdict.UNTESTED, Stage.LOAD, "no-gpu")
    assert "compute capability 10.0 (here: 2 x made up, 80 GiB, capability 9.0)" in cell.message
    assert not [line for line in two.told if "newest-cards" in line]


def test_a_rerun_does_nothing_but_what_the_machine_had_no_memory_for(
    two: Finished, store: Path
) -> None:
    again = Finished("engines", store, machine(*CARDS)).run().told
    assert [line for line in again if "plain+no-memory" not in line] == []
    assert [line for line in again if "plain+no-memory" in line], "it is tried again"
    assert two.told


def test_evidence_of_other_cards_is_other_evidence(two: Finished, store: Path) -> None:
    older = Finished("engines", store, machine(gpu(0, capability="8.6")))
    assert two.cell("plain+good").verdict is Verdict.WORKS
    assert older.cell("plain+good").verdict is Verdict.NOT_RUN
    assert older.cell("plain+good").device == "cuda 8.6"


def test_with_one_card_what_needs_two_is_untested_and_the_rest_runs(tmp_path: Path) -> None:
    single = Finished("engines", tmp_path / "store", machine(gpu(0)))
    single.run(cell_of("plain+tp2"))
    assert single.told == [], "nothing is built for it"
    assert single.run(cell_of("plain+good")).cell("plain+good").verdict is Verdict.WORKS
    cell = single.cell("plain+tp2")
    assert (cell.verdict, cell.stage) == (Verdict.UNTESTED, Stage.LOAD)
    assert cell.message.startswith("needs 2 GPUs with ")
    assert single.observation("plain+tp2", "load") is None


def test_without_a_card_no_environment_of_a_gpu_is_installed(tmp_path: Path) -> None:
    none = Finished("quantizers", tmp_path / "store", machine()).run()
    cells = none.context.table_judge().table().cells
    assert {cell.verdict for cell in cells} == {Verdict.UNTESTED}
    assert {cell.stage for cell in cells if cell.scheme != "float"} == {Stage.QUANTIZE}
    assert none.told == []
    assert not (tmp_path / "store" / "environments" / "plain").exists()


def test_quantizers_lease_a_card_as_well(store: Path) -> None:
    made = Finished("quantizers", store, machine(*CARDS)).run()
    judge = made.context.fresh_judge()
    crashed = judge.cell("made-up/awq-4bit-g16/plain+segfault/plain+good")
    assert (crashed.stage, crashed.reason) == (Stage.QUANTIZE, Reason.CRASH.value)
    (good,) = [c for c in made.context.plan.checkpoints if c.quantizer.name == "plain+good"]
    observed = made.context.keys.observed(made.context.keys.of(steps_of_checkpoint(good)[-2]))
    assert observed is not None
    assert observed.outcome is Outcome.PASSED
    assert (observed.facts["shown"], observed.facts["forked"]) == (CARDS[0].uuid, False)
    assert observed.device == "cuda 9.0"
    assert free(made.leases) == [0, 1]


def test_a_card_that_another_run_has_leased_is_left_to_it(tmp_path: Path) -> None:
    here = Finished("engines", tmp_path / "store", machine(*CARDS))
    with lease([CARDS[0]], 1, here.leases, nobody, print):
        here.run(cell_of("plain+good"))
    load = here.observation("plain+good", "load")
    assert load is not None
    assert load.facts["shown"] == CARDS[1].uuid


def test_a_model_gets_memory_and_time_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Limits] = {}

    class Noting(Probe):
        def perform(
            self, job: Mapping[str, Any], steps: list[Step], limits: Mapping[Step, Limits],
            work: Path, *, fork: bool,
        ) -> Iterator[Answer]:  # fmt: skip
            given.update({step: limits[step] for step in steps})
            return super().perform(job, steps, limits, work, fork=fork)

    monkeypatch.setattr("matrix.run.roles.Probe", Noting)
    here = Finished("engines", tmp_path / "store", machine(gpu(0))).run(cell_of("plain+good"))
    of_spec = here.context.loaded.spec.limits
    for step, limits in (("build", of_spec.build), ("load", of_spec.load)):
        assert given[step].memory_mb == limits.memory_mb + 37, "twice 18.6 MB"
        assert given[step].seconds == pytest.approx(limits.seconds + 18.7e6 / 20e6, abs=0.01)


def test_a_stranger_on_the_card_is_waited_for(tmp_path: Path) -> None:
    here = Finished("engines", tmp_path / "store", machine(gpu(0)))
    looks: list[str] = []

    def on(uuid: str) -> list[int]:
        looks.append(uuid)
        return [4711] if len(looks) <= 2 else []

    here.run(cell_of("plain+good"), on)
    waited = "plain: waiting for 1 of 1 GPUs: process 4711 computes on GPU 0"
    assert waited in here.told
    assert here.cell("plain+good").verdict is Verdict.WORKS


@pytest.mark.parametrize("came", [False, True])
def test_a_failure_beside_a_stranger_who_came_meanwhile_is_tried_again(
    tmp_path: Path, came: bool
) -> None:
    here = Finished("engines", tmp_path / "store", machine(gpu(0)))
    looks: list[str] = []

    def on(uuid: str) -> list[int]:
        looks.append(uuid)
        return [4711, 4712] if came and len(looks) in (3, 4) else []

    here.run(cell_of("plain+raise"), on)
    load = here.observation("plain+raise", "load")
    assert load is not None
    if not came:
        assert (load.outcome, load.reason) == (Outcome.FAILED, Reason.EXCEPTION)
        return
    assert (load.outcome, load.reason) == (Outcome.INFRA, Reason.EXCEPTION)
    assert "4711" not in load.message
    assert load.message.startswith("2 other processes came to compute on its GPUs, so this says")
    assert "ValueError: made to fail" in load.message
    assert free(here.leases) == [0, 1]
    here.run(cell_of("plain+raise"), on)
    load = here.observation("plain+raise", "load")
    assert load is not None
    assert load.outcome is Outcome.FAILED, "alone on its card, it is the package's"


KILLED = """
import sys
from pathlib import Path
from tests.provoked.test_gpu_runs import Finished, cell_of
from tests.unit.made_nvml import gpu, machine

class Quiet(Finished):
    def _tell(self, line):
        pass

def on(uuid):
    print("leased", flush=True)
    return []

Quiet("silent", Path(sys.argv[1]), machine(gpu(0))).run(cell_of("plain+silent"), on)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_frees_its_card_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    argv = [sys.executable, "-c", KILLED, str(tmp_path / "store")]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert [next(run.stdout) for _ in range(2)] == 2 * ["leased\n"], "the import; the load"
        below: list[psutil.Process] = []
        while not below:  # the load hangs, so its probe is there until it is ended
            below = psutil.Process(run.pid).children(recursive=True)
        assert free(tmp_path / "leases") == [1]
        run.send_signal(number)
        run.wait(timeout=600)
    _, alive = psutil.wait_procs(below, timeout=600)
    assert not alive
    assert free(tmp_path / "leases") == [0, 1]
