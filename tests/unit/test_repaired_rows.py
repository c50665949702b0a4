"""Rows of repaired checkpoints: in the spec, in the plan, in keys and in verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matrix.cli.proofs import proofs_of
from matrix.judge.cells import CellJudge
from matrix.pipeline.ends import End
from matrix.pipeline.outcomes import PASSED, Conclusion, Outcome, Reason, Verdict
from matrix.pipeline.steps import ALWAYS, Blame, Stage, Step
from matrix.plan.cell_steps import steps_of
from matrix.plan.cells import Cell, Plan, make_plan
from matrix.repair.names import RepairName
from matrix.repair.proofs import Proof, describe_proof
from matrix.run.repairing import conclude
from matrix.spec.loading import load, role_names
from matrix.spec.tables import SpecError
from tests.unit import small_spec
from tests.unit.made_history import History
from tests.unit.made_world import CANARY, GOOD, WORKS, World, garbage, short

ROLE = '[[engines]]\nenvironments = "runner-*"'
REPAIRED = """
[[quantizers]]
environments = "maker-1.0"
adapter = "./maker.py"
suffix = "repaired"
repairs = ["tied-embedding"]

"""
ROW = "tied/awq/maker-1.0+repaired"
CELL = f"{ROW}/runner-3.0"


def write(folder: Path, *changes: tuple[str, str], table: str = REPAIRED) -> Path:
    folder.mkdir(exist_ok=True)
    return small_spec.write(folder, (ROLE, table + ROLE), *changes)


def plan(folder: Path, *changes: tuple[str, str]) -> Plan:
    return make_plan(load(write(folder, *changes)), "all")


def cell_of(plan: Plan, name: str) -> Cell:
    return next(cell for cell in plan.cells if cell.id == name)


def test_only_a_repaired_row_has_the_step_and_its_checkpoint_is_made_once(tmp_path: Path) -> None:
    all_cells = plan(tmp_path)
    steps = {step.step: step for step in steps_of(cell_of(all_cells, CELL))}
    made = {step.step: step for step in steps_of(cell_of(all_cells, CANARY))}
    assert [step for step in steps if step not in made] == [Step.REPAIR]
    assert steps[Step.QUANTIZE].id == made[Step.QUANTIZE].id
    assert steps[Step.QUANTIZE].name == "tied/awq/maker-1.0"
    assert steps[Step.REPAIR].name == steps[Step.INSPECT].name == ROW
    before = [earlier.step for earlier in steps[Step.REPAIR].after]
    assert before == [Step.BUILD, Step.QUANTIZE, Step.IMPORT]
    for step in (Step.INSPECT, Step.LOAD, Step.GENERATE):
        assert steps[Step.REPAIR] in steps[step].after
    order = [step.step for step in steps_of(cell_of(all_cells, CELL))]
    assert order.index(Step.QUANTIZE) < order.index(Step.REPAIR) < order.index(Step.INSPECT)


def test_no_key_of_another_row_changes_and_the_repairs_are_in_those_that_follow(
    tmp_path: Path,
) -> None:
    before = History(make_plan(load(small_spec.write(tmp_path)), "all")).finish().names()
    after = History(plan(tmp_path)).finish().names()
    assert {name: after[name] for name in before} == before
    added = {step for step, _ in after.keys() - before.keys()}
    assert added == {"repair", "inspect", "load", "generate"}
    others = History(plan(tmp_path, ('["tied-embedding"]', '["tie"]'))).finish().names()
    changed = {name for name in after if after[name] != others[name]}
    assert {(step, subject.startswith("untied")) for step, subject in changed} == {
        (step, untied) for step in added for untied in (False, True)
    }
    assert all("repaired" in subject for _, subject in changed)


def test_facts_take_a_repaired_role_in_only_where_they_name_its_suffix(tmp_path: Path) -> None:
    def rows(choice: str) -> set[str]:
        cells = plan(tmp_path, ('"none", "maker-*"', f'"none", {choice}')).cells
        return {cell.checkpoint.quantizer.name for cell in cells} - {"none"}

    stated = ('"tied/awq/maker-2.0/runner-3.0" = "works"', "")
    without = ('"tied/awq/maker-1.0/runner-3.0" = "garbage"', "")
    facts = '{ package = "maker<2" }'
    small = plan(tmp_path, ('"none", "maker-*"', f'"none", {facts}'), stated, without)
    assert {c.checkpoint.quantizer.name for c in small.cells} == {"none", "maker-1.0"}
    facts = '{ package = "maker<2", suffix = ["repaired"] }'
    small = plan(tmp_path, ('"none", "maker-*"', f'"none", {facts}'), stated, without)
    assert {c.checkpoint.quantizer.name for c in small.cells} == {"none", "maker-1.0+repaired"}
    assert rows('"maker-*"') == {"maker-1.0", "maker-2.0", "maker-1.0+repaired"}


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        (('"tied-embedding"', '"magic"'), "quantizers[1].repairs[0]", "commented example"),
        (('suffix = "repaired"', 'suffix = "mended"'), "quantizers.maker-1.0+mended",
         "it has repairs, and the suffix 'mended'"),
        (('suffix = "repaired"', 'suffix = "unrepaired"'), "quantizers.maker-1.0+unrepaired",
         "End the suffix in 'repaired'"),
        (('suffix = "repaired"', 'suffix = "x+repaired"'), "quantizers.maker-1.0+x+repaired",
         "no role makes the checkpoints that it repairs"),
        (('repairs = ["tied', 'options = { a = 1 }\nrepairs = ["tied'),
         "quantizers.maker-1.0+repaired", "Repeat a table without repairs"),
        (("[[quantizers]]", "[[engines]]"), "engines[0].repairs", "an engine repairs nothing"),
    ],
)  # fmt: skip
def test_a_role_that_repairs_nothing_that_is_made_is_refused(
    change: tuple[str, str], key: str, words: str, tmp_path: Path
) -> None:
    old, new = change
    assert old in REPAIRED
    with pytest.raises(SpecError) as refused:
        make_plan(load(write(tmp_path, table=REPAIRED.replace(old, new))), "all")
    assert f": {key}: " in str(refused.value)
    assert words in str(refused.value)


def test_a_role_with_a_suffix_is_repaired_under_its_own(tmp_path: Path) -> None:
    stock = '[[quantizers]]\nenvironments = "maker-1.0"\nadapter = "./maker.py"\nsuffix = "stock"\n'
    table = stock + REPAIRED.replace('"repaired"', '"stock+repaired"')
    cells = make_plan(load(write(tmp_path, table=table)), "all").cells
    (cell,) = [c for c in cells if c.id == "tied/awq/maker-1.0+stock+repaired/runner-3.0"]
    assert cell.checkpoint.unrepaired.id == "tied/awq/maker-1.0+stock"


# What the end of the command means.

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\n'


@pytest.mark.parametrize(
    ("end", "log", "expected"),
    [
        (End(), "tie: config.json: a -> b", PASSED),
        (End(status=1), "nothing to repair\n",
         Conclusion(Outcome.UNSUPPORTED, Reason.REFUSED, "nothing to repair")),
        (End(status=1), "nothing to repair, but not sound:\nwrong: tied-embedding: lost",
         Conclusion(Outcome.UNSUPPORTED, Reason.REFUSED, "nothing to repair")),
        (End(status=1), f"{TRACEBACK}MemoryError\n",
         Conclusion(Outcome.INFRA, Reason.OOM, "MemoryError: ")),
        (End(status=1), f"{TRACEBACK}KeyError: 'a: b'\n",
         Conclusion(Outcome.FAILED, Reason.EXCEPTION, "KeyError: 'a: b'")),
        (End("timeout", 1, 60.0), "nothing to repair",
         Conclusion(Outcome.FAILED, Reason.TIMEOUT, "ended after 60 s, its time limit")),
        (End("timeout", 2, 60.0), "error: x Nothing was written.",
         Conclusion(Outcome.FAILED, Reason.TIMEOUT, "ended after 60 s, its time limit")),
        (End(status=2), "error: x: is packed. Nothing was written.",
         Conclusion(Outcome.FAILED, Reason.UNREADABLE,
                    "error: x: is packed. Nothing was written.")),
        (End(status=2), "error: x: Disk quota exceeded. The system refused it.",
         Conclusion(Outcome.INFRA, Reason.NO_SPACE,
                    "error: x: Disk quota exceeded. The system refused it.")),
        (End(status=2), "error: x: Input/output error. The system refused it.",
         Conclusion(Outcome.INFRA, Reason.EXCEPTION,
                    "error: x: Input/output error. The system refused it.")),
        (End(status=-11), "",
         Conclusion(Outcome.FAILED, Reason.CRASH, "died of signal 11")),
    ],
)  # fmt: skip
def test_only_the_commands_own_words_say_something_of_the_checkpoint(
    end: End, log: str, expected: Conclusion
) -> None:
    assert conclude(end, log) == expected


# Verdicts and proofs.


class RepairedWorld(World):
    """The small spec with a repaired row of the quantizer whose files answer garbage."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.loaded = load(write(folder))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> RepairedWorld:
    return RepairedWorld(tmp_path_factory.mktemp("world"))


def test_a_row_works_after_repair_and_shows_the_stage(world: RepairedWorld) -> None:
    cells = world.cells()
    assert short(cells[CELL]) == WORKS
    assert short(cells[CANARY])[0] is Verdict.GARBAGE
    assert [result.stage for result in cells[CELL].stages] == list(Stage)
    assert [result.stage for result in cells[GOOD].stages] == list(ALWAYS)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (Conclusion(Outcome.FAILED, Reason.UNREADABLE, "error: not sure"),
         (Verdict.BROKEN, Blame.CHECKPOINT, Stage.REPAIR, "unreadable")),
        (Conclusion(Outcome.UNSUPPORTED, Reason.REFUSED, "nothing to repair"),
         (Verdict.UNSUPPORTED, Blame.NOBODY, Stage.REPAIR, "refused")),
        (Conclusion(Outcome.INFRA, Reason.NO_SPACE, "the disk is full"),
         (Verdict.INFRA, Blame.NOBODY, Stage.REPAIR, "no-space")),
    ],
)  # fmt: skip
def test_a_repair_that_does_not_pass_decides(
    end: Conclusion, expected: tuple[Any, ...], world: RepairedWorld
) -> None:
    cells = world.cells({("repair", ROW): end})
    assert short(cells[CELL]) == expected
    assert cells[CELL].message == end.message
    assert short(cells[CANARY])[0] is Verdict.GARBAGE


def test_a_quantizer_that_fails_has_nothing_to_repair(world: RepairedWorld) -> None:
    raised = Conclusion(Outcome.FAILED, Reason.EXCEPTION, "ValueError: no")
    cells = world.cells({("quantize", "tied/awq/maker-1.0"): raised})
    assert short(cells[CELL])[:3] == (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZE)
    assert short(cells[CANARY])[:3] == (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZE)


def proofs(world: RepairedWorld, **answers: dict[str, Any]) -> dict[RepairName, Proof]:
    def facts(step: str, subject: str) -> dict[str, Any]:
        row = subject.split("/")[2] if step == "generate" else ""
        if row in answers:
            return dict(answers[row])
        return world.facts("generate", GOOD) if row else world.facts(step, subject)

    table = world.table(world.history(facts=facts))
    return proofs_of(table, role_names(world.loaded, world.loaded.spec.quantizers))


def test_a_repair_is_proven_by_a_cell_that_works_after_it_and_not_before(
    world: RepairedWorld,
) -> None:
    name = RepairName.TIED_EMBEDDING
    mended = proofs(world, **{"maker-1.0": garbage()})
    assert mended == {name: Proof(mended=["runner-3.0"])}
    assert describe_proof(name, mended[name]).endswith("not before in runner-3.0")
    kept = proofs(world)
    assert kept == {name: Proof(kept=["runner-3.0"])}
    assert "does no harm in runner-3.0" in describe_proof(name, kept[name])
    assert proofs(world, **{"maker-1.0+repaired": garbage()}) == {}


def test_a_repair_among_others_is_not_said_to_have_mended_anything(tmp_path: Path) -> None:
    world = RepairedWorld(tmp_path)
    world.loaded = load(write(tmp_path, ('["tied-embedding"]', '["tied-embedding", "tie"]')))
    assert proofs(world, **{"maker-1.0": garbage()}) == {}
    kept = Proof(kept=["runner-3.0"])
    assert proofs(world) == {RepairName.TIED_EMBEDDING: kept, RepairName.TIE: kept}


def test_the_judge_reads_observations_of_the_step_itself(world: RepairedWorld) -> None:
    history = world.history()
    judge: CellJudge = world.judge(history)
    observed = judge.observations(CELL)
    assert observed[Stage.REPAIR].subject == ROW
    assert observed[Stage.QUANTIZE].subject == "tied/awq/maker-1.0"
