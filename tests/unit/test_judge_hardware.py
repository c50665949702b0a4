"""Cells that need what a machine lacks, and what cells were judged on."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.judge.results import CellResult
from matrix.pipeline.outcomes import Outcome, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.plan.cells import Checkpoint, Plan, Role, make_plan, select
from matrix.spec.loading import load
from tests.unit import small_spec
from tests.unit.made_history import Ends, History
from tests.unit.made_world import CANARY, FLOAT, GOOD, RAISED, STOPPED, World, short

LACKS = "needs 2 GPUs with 16 GiB each (here: no GPU)"
MAKER = ('name = "maker-{maker}"\n', 'name = "maker-{maker}"\ndevice = "cuda"\n')
RUNNER = ('name = "runner-{runner}"\n', 'name = "runner-{runner}"\ndevice = "cuda"\n')
QUANTIZER = ('environments = "maker-*"\n', 'environments = "maker-*"\ndevice = "cuda"\n')
ENGINE = ('environments = "runner-*"\n', 'environments = "runner-*"\ndevice = "cuda"\n')


class Gpus(World):
    """The small spec with quantizers and an engine for GPUs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        changes = (MAKER, RUNNER, QUANTIZER, ENGINE)
        self.loaded = load(small_spec.write(folder, *changes))

    def plan(self, lacking: str) -> Plan:
        def unmet(checkpoint: Checkpoint, engine: Role) -> str:
            return LACKS if f"{checkpoint.id}/{engine.name}" == lacking else ""

        return make_plan(self.loaded, "all", unmet)

    def judge_lacking(
        self, lacking: str, ends: Ends | None = None, *, without: tuple[str, ...] = ()
    ) -> dict[str, CellResult]:
        """Judge a history in which the steps ``without`` have not been done for ``lacking``."""
        history = History(self.plan(lacking)).finish(ends, self.facts)
        for step in ("import", "quantize", "load", "generate"):
            subjects = (lacking, lacking.rpartition("/")[0], lacking.split("/")[2])
            for subject in subjects if step in without else ():
                history.forget(step, subject)
        return {cell.id: cell for cell in self.table(history).cells}


@pytest.fixture(scope="module")
def gpus(tmp_path_factory: pytest.TempPathFactory) -> Gpus:
    return Gpus(tmp_path_factory.mktemp("gpus"))


def untested(stage: Stage) -> tuple[Verdict, Blame, Stage, str]:
    return Verdict.UNTESTED, Blame.NOBODY, stage, "no-gpu"


def test_an_engine_without_its_instructions_leaves_the_cell_untested(tmp_path: Path) -> None:
    declared = ('adapter = "./runner.py"', 'adapter = "./runner.py"\ninstruction_set = "AVX-512"')
    cpus = Gpus(tmp_path)
    cpus.loaded = load(small_spec.write(tmp_path, declared))
    cell = cpus.judge_lacking(GOOD, without=("load", "generate"))[GOOD]
    wanted = (Verdict.UNTESTED, Blame.NOBODY, Stage.LOAD, "no-instruction")
    assert (cell.verdict, cell.blame, cell.stage, cell.reason) == wanted
    assert cell.message == LACKS


def test_an_engine_without_its_gpus_leaves_the_cell_untested(gpus: Gpus) -> None:
    cell = gpus.judge_lacking(GOOD, without=("load", "generate"))[GOOD]
    assert short(cell) == untested(Stage.LOAD)
    assert cell.message == LACKS
    outcomes = {stage.stage: stage.outcome for stage in cell.stages}
    assert outcomes[Stage.QUANTIZE] is Outcome.PASSED
    assert outcomes[Stage.LOAD] is Outcome.NEEDS_HARDWARE
    assert outcomes[Stage.GENERATE] is Outcome.BLOCKED


def test_a_quantizer_without_its_gpu_leaves_the_cell_untested_there(gpus: Gpus) -> None:
    without = ("import", "quantize", "load", "generate")
    cells = gpus.judge_lacking(GOOD, without=without)
    assert short(cells[GOOD]) == untested(Stage.QUANTIZE)
    assert short(cells[FLOAT])[0] is Verdict.WORKS


def test_the_float_model_waits_for_nothing_but_its_engine(gpus: Gpus) -> None:
    cells = gpus.judge_lacking(FLOAT, without=("load", "generate"))
    assert short(cells[FLOAT]) == untested(Stage.LOAD)


def test_evidence_from_when_more_was_there_stays(gpus: Gpus) -> None:
    cells = gpus.judge_lacking(GOOD)
    assert cells[GOOD].verdict is Verdict.WORKS
    assert cells[GOOD].device == "cuda 8.0"
    assert gpus.judge_lacking(GOOD, {("load", GOOD): RAISED})[GOOD].verdict is Verdict.BROKEN
    assert gpus.judge_lacking(CANARY)[CANARY].verdict is Verdict.GARBAGE


def test_what_fails_without_hardware_is_broken_all_the_same(gpus: Gpus) -> None:
    refused = gpus.judge_lacking(GOOD, {("resolve", "maker-2.0"): RAISED})
    assert short(refused[GOOD])[:3] == (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZER_RESOLVE)


def test_what_was_not_reached_is_no_failure_of_what_comes_after(gpus: Gpus) -> None:
    """The engine did not import for another cell; whether this one gets there is not known."""
    ends: Ends = {("import", "runner-3.0"): RAISED}
    without = ("import", "quantize")
    assert short(gpus.judge_lacking(GOOD, ends, without=without)[GOOD]) == untested(Stage.QUANTIZE)


def test_trouble_of_the_machine_is_not_waited_for_where_hardware_is_missing(gpus: Gpus) -> None:
    cells = gpus.judge_lacking(GOOD, {("load", GOOD): STOPPED})
    assert short(cells[GOOD]) == untested(Stage.LOAD)


def test_nothing_is_begun_that_only_such_cells_need(gpus: Gpus) -> None:
    plan = gpus.plan(GOOD)
    chosen = select(plan)
    assert GOOD not in [cell.id for cell in chosen.cells]
    assert "tied/awq/maker-2.0" not in [checkpoint.id for checkpoint in chosen.checkpoints]
    assert select(plan, cells=[GOOD]).environments == ["twins", "runner-3.0"], "its float twin's"
    assert "maker-2.0" in chosen.environments, "the untied model's"
    assert GOOD not in [cell.id for cell in History(plan).unfinished()]


def test_evidence_says_what_it_ran_on(gpus: Gpus) -> None:
    history = History(gpus.plan("")).finish(None, gpus.facts)
    history.change("load", GOOD, machine={"gpus": "1 x made up"})
    table = gpus.table(history)
    assert table.machine == {
        "device": "cpu, cuda 8.0",
        "processor": "made up",
        "gpus": "1 x made up",
        "sandbox": "none",
    }


def test_evidence_of_gpus_alone_says_so_though_uv_ran_on_the_cpu(tmp_path: Path) -> None:
    all_on_gpus = Gpus(tmp_path)
    builder = ('name = "twins"\n', 'name = "twins"\ndevice = "cuda"\n')
    changes = (builder, MAKER, RUNNER, QUANTIZER, ENGINE)
    all_on_gpus.loaded = load(small_spec.write(tmp_path, *changes))
    table = all_on_gpus.table(History(all_on_gpus.plan("")).finish(None, all_on_gpus.facts))
    assert table.machine["device"] == "cuda 8.0"


def test_a_cell_that_has_not_run_is_for_its_engines_device(gpus: Gpus) -> None:
    cells = gpus.judge_lacking(GOOD, without=("load", "generate"))
    assert cells[GOOD].device == "cuda 8.0"
