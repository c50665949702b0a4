"""From made-up observations to judged cells and the whole table."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matrix.checkpoint.inspecting import inspect
from matrix.checks.evidence import Reference
from matrix.judge.cells import CellJudge
from matrix.judge.results import CellResult, MatrixResult
from matrix.judge.standings import Solution
from matrix.judge.table import TableJudge
from matrix.pipeline.outcomes import REASONS, Conclusion, Judgement, Outcome, Reason, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.plan.cells import make_plan
from matrix.spec.loading import LoadedSpec, load
from matrix.spec.snapshot import Release, Snapshot
from matrix.spec.tables import Environment
from tests.unit import awq_checkpoints, small_spec
from tests.unit.made_evidence import REFERENCE, right_facts
from tests.unit.made_history import Ends, Facts, History, plain_facts

GOOD = "tied/awq/maker-2.0/runner-3.0"
CANARY = "tied/awq/maker-1.0/runner-3.0"
FLOAT = "tied/float/none/runner-3.0"


class World:
    """A small spec, inspections of real good checkpoints, and histories over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded: LoadedSpec = load(small_spec.write(folder))
        self.inspections = {
            (name, packed): msgspec.to_builtins(self._inspected(folder / name, name, packed))
            for name in ("tied", "untied")
            for packed in (True, False)
        }

    @staticmethod
    def _inspected(folder: Path, name: str, packed: bool) -> object:
        made, original = awq_checkpoints.write_pair(folder / str(packed), tied=name == "tied")
        return inspect(made if packed else original, original)

    def facts(self, step: str, subject: str) -> dict[str, Any]:
        """Return what good steps leave, but for the canary that is known to answer garbage."""
        if step == "inspect":
            model, scheme, _ = subject.split("/")
            return dict(self.inspections[model, scheme != "float"])
        if (step, subject) == ("generate", CANARY):
            return garbage()
        return plain_facts(step, subject)

    def history(self, ends: Ends | None = None, facts: Facts | None = None) -> History:
        return History(make_plan(self.loaded, "all")).finish(ends, facts or self.facts)

    def judge(self, history: History) -> CellJudge:
        def reference(key: str) -> Reference | None:
            return REFERENCE if history.lookup("build", key) else None

        return CellJudge(self.loaded, history.plan, history.keys, reference)

    def table(self, history: History) -> MatrixResult:
        return TableJudge(self.judge(history)).table()

    def cells(self, ends: Ends | None = None, facts: Facts | None = None) -> dict[str, CellResult]:
        table = self.table(self.history(ends, facts))
        return {cell.id: cell for cell in table.cells}


def cell_judge(loaded: LoadedSpec, history: History) -> CellJudge:
    return CellJudge(loaded, history.plan, history.keys, lambda _: REFERENCE)


def garbage() -> dict[str, Any]:
    facts = right_facts()
    facts["outputs"] = [{"ids": [40, 41, 42, 43], "text": "no"} for _ in facts["outputs"]]
    facts["held_out"] = [[v - 9 for v in values] for values in facts["held_out"]]
    return facts


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def short(cell: CellResult) -> tuple[Verdict, Blame, Stage | None, str]:
    return cell.verdict, cell.blame, cell.stage, cell.reason


WORKS = (Verdict.WORKS, Blame.NOBODY, None, "none")
RAISED = Conclusion(Outcome.FAILED, Reason.EXCEPTION, "ValueError: no")
STOPPED = Conclusion(Outcome.INFRA, Reason.NO_SPACE, "the disk is full")
NO_GPU = Conclusion(Outcome.NEEDS_HARDWARE, Reason.NO_GPU, "RuntimeError: GPU, please")


def test_what_was_observed_good_works_and_garbage_is_garbage(world: World) -> None:
    cells = world.cells()
    assert short(cells.pop(CANARY))[0] is Verdict.GARBAGE
    assert {short(cell) for cell in cells.values()} == {WORKS}
    assert cells[GOOD].output == cells[GOOD].expected != ""
    assert all(stage.outcome is Outcome.PASSED for stage in cells[GOOD].stages)


def test_answers_of_a_time_when_it_loaded_say_nothing_of_a_cell_that_loads_no_more(
    world: World,
) -> None:
    history = world.history()
    history.change("load", GOOD, outcome=Outcome.FAILED, reason=Reason.EXCEPTION, message="no")
    cell = world.judge(history).cell(GOOD)
    assert short(cell) == (Verdict.BROKEN, Blame.PAIR, Stage.LOAD, "exception")
    assert cell.stages[-1].outcome is Outcome.BLOCKED
    assert not [finding for finding in cell.findings if finding.stage is Stage.GENERATE
                and finding.judgement is not Judgement.NOT_APPLICABLE]  # fmt: skip
    assert cell.output == ""


ENDS: dict[str, tuple[str, str, Conclusion, tuple[Verdict, Blame, Stage, str]]] = {
    "unresolvable quantizer": ("resolve", "maker-2.0", RAISED,
        (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZER_RESOLVE, "exception")),
    "quantizer that cannot be installed": ("install", "maker-2.0", RAISED,
        (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZER_INSTALL, "exception")),
    "quantizer that cannot be imported": ("import", "maker-2.0", RAISED,
        (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZER_IMPORT, "exception")),
    "quantizing raises": ("quantize", "tied/awq/maker-2.0", RAISED,
        (Verdict.BROKEN, Blame.QUANTIZER, Stage.QUANTIZE, "exception")),
    "unreadable checkpoint": ("inspect", "tied/awq/maker-2.0",
        Conclusion(Outcome.FAILED, Reason.UNREADABLE, "truncated"),
        (Verdict.BROKEN, Blame.CHECKPOINT, Stage.INSPECT, "unreadable")),
    "engine that cannot be imported": ("import", "runner-3.0", RAISED,
        (Verdict.BROKEN, Blame.ENGINE, Stage.ENGINE_IMPORT, "exception")),
    "loading raises": ("load", GOOD, RAISED,
        (Verdict.BROKEN, Blame.PAIR, Stage.LOAD, "exception")),
    "generating raises": ("generate", GOOD, RAISED,
        (Verdict.BROKEN, Blame.PAIR, Stage.GENERATE, "exception")),
    "hardware is wanted": ("load", GOOD, NO_GPU,
        (Verdict.UNTESTED, Blame.NOBODY, Stage.LOAD, "no-gpu")),
    "a full disk": ("quantize", "tied/awq/maker-2.0", STOPPED,
        (Verdict.INFRA, Blame.NOBODY, Stage.QUANTIZE, "no-space")),
}  # fmt: skip


@pytest.mark.parametrize("case", ENDS)
def test_each_end_is_judged_by_its_stage(world: World, case: str) -> None:
    step, subject, end, expected = ENDS[case]
    cells = world.cells({(step, subject): end})
    assert short(cells[GOOD]) == expected
    assert end.message in cells[GOOD].message
    if subject != "runner-3.0":
        assert short(cells[FLOAT]) == WORKS


def test_an_engine_in_which_the_float_model_fails_as_well_is_at_fault(world: World) -> None:
    cells = world.cells({("load", GOOD): RAISED, ("load", FLOAT): RAISED})
    assert cells[GOOD].blame is cells[FLOAT].blame is Blame.ENGINE


def test_without_the_float_models_answer_nobody_else_is_accused(world: World) -> None:
    cells = world.cells({("load", GOOD): RAISED, ("load", FLOAT): STOPPED})
    assert (cells[GOOD].blame, cells[FLOAT].verdict) == (Blame.PAIR, Verdict.INFRA)


def test_a_model_that_cannot_be_built_is_no_verdict_about_its_quantizers(world: World) -> None:
    cells = world.cells({("build", "tied"): RAISED})
    assert cells[GOOD].verdict is Verdict.INFRA
    assert cells["untied/awq/maker-2.0/runner-3.0"].verdict is Verdict.WORKS


def test_a_model_whose_build_needs_hardware_is_untested_here(world: World) -> None:
    cells = world.cells({("build", "tied"): NO_GPU})
    assert short(cells[GOOD]) == (Verdict.UNTESTED, Blame.NOBODY, Stage.QUANTIZE, "no-gpu")
    assert cells[GOOD].message == f"the model could not be built: {NO_GPU.message}"


SPOILED: dict[str, tuple[str, str, dict[str, Any], Stage]] = {
    "an answer is missing": ("generate", GOOD, {"outputs": []}, Stage.GENERATE),
    "scores of another shape": ("generate", GOOD, {"held_out": [[0.0]]}, Stage.GENERATE),
    "no facts at all": ("generate", GOOD, {}, Stage.GENERATE),
    "kernels that are no counts": ("load", GOOD, {"kernels": "many"}, Stage.LOAD),
    "an inspection of nonsense": (
        "inspect", "tied/awq/maker-2.0", {"tensors": 3}, Stage.INSPECT),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_evidence_that_cannot_be_read_fails_its_stage(world: World, case: str) -> None:
    step, subject, spoiled, stage = SPOILED[case]

    def facts(a_step: str, a_subject: str) -> dict[str, Any]:
        usual = world.facts(a_step, a_subject)
        if (a_step, a_subject) != (step, subject):
            return usual
        return {**usual, **spoiled} if spoiled else {}

    cell = world.cells(facts=facts)[GOOD]
    assert (cell.verdict, cell.stage, cell.reason) == (Verdict.BROKEN, stage, "unreadable")


def test_a_damaged_weight_is_a_defect_even_where_the_answer_is_right(world: World) -> None:
    def facts(step: str, subject: str) -> dict[str, Any]:
        usual = world.facts(step, subject)
        if (step, subject) == ("inspect", "tied/awq/maker-2.0"):
            usual["weights"] = [dict(w, error=0.9) for w in usual["weights"]]
        return usual

    cell = world.cells(facts=facts)[GOOD]
    assert (cell.verdict, cell.blame) == (Verdict.DEGRADED, Blame.CHECKPOINT)
    assert (cell.stage, cell.reason) == (Stage.INSPECT, "defective-file")


# ------------------------------------------------------------------------- exclusions and canaries


def test_an_excluded_cell_is_unsupported_with_reason_and_source(tmp_path: Path) -> None:
    table = '[[exclusions]]\ncells = "tied/awq/maker-2.0/*"\noutcome = "unsupported"\n'
    table += 'reason = "no kernel"\nsource = "the manual"\n[profiles.all]\n'
    world = World(tmp_path)
    world.loaded = load(small_spec.write(tmp_path, ("[profiles.all]\n", table)))
    cells = world.cells()
    assert short(cells[GOOD]) == (Verdict.UNSUPPORTED, Blame.NOBODY, Stage.LOAD, "declared")
    assert cells[GOOD].message == "no kernel (the manual)"
    assert short(cells[FLOAT]) == WORKS


def right_canary(world: World) -> Facts:
    return lambda s, n: right_facts() if (s, n) == ("generate", CANARY) else world.facts(s, n)


def test_canaries_say_whether_a_run_may_be_believed(world: World) -> None:
    assert world.table(world.history()).canaries == "established"
    works = world.history(facts=right_canary(world))
    void = world.table(works)
    assert (void.canaries, void.specifiers) == ("void", [])
    stopped = world.history({("generate", CANARY): STOPPED})
    assert world.table(stopped).canaries == "not established"
    void_and_stopped = world.history({("generate", GOOD): STOPPED}, right_canary(world))
    assert world.table(void_and_stopped).canaries == "void"


# ------------------------------------------------------------------------------------- the table


def test_a_table_of_nothing_is_all_infra(world: World) -> None:
    history = History(make_plan(world.loaded, "all"))
    table = world.table(history)
    assert {cell.verdict for cell in table.cells} == {Verdict.INFRA}
    assert (table.runs, table.finished, table.canaries) == ([], "", "not established")
    assert [environment.name for environment in table.environments] == list(
        history.plan.environments
    )


def test_the_table_says_where_its_evidence_is_from(world: World) -> None:
    history = world.history()
    table = world.table(history)
    assert table.runs == ["run-1"]
    assert table.finished == max(observation.at for observation in history.observations.values())
    assert table.machine == {"device": "cpu", "processor": "made up"}
    assert table.departures == {"shim": "a shim, because it must be"}
    cell = next(cell for cell in table.cells if cell.id == GOOD)
    assert cell.departures == ["shim"]
    assert cell.engine.packages == {"runner": "3.0", "torch": "2.1"}
    assert (cell.quantizer.axes, cell.engine.axes["runner"]) == ({"maker": "2.0"}, "3.0")
    assert cell.engine.torch == "2.1+cpu"
    assert cell.command.endswith(f" --profile all --cell {GOOD}")
    roles = {environment.name: environment.role for environment in table.environments}
    assert roles == {"twins": "quantizer", "maker-1.0": "quantizer", "maker-2.0": "quantizer",
                     "runner-3.0": "engine"}  # fmt: skip
    assert [environment.axes.get("maker") for environment in table.environments] == [
        None, "1.0", "2.0", None,
    ]  # fmt: skip


def test_runs_are_named_oldest_first_and_only_those_that_left_evidence(world: World) -> None:
    history = world.history()
    history.change("resolve", "twins", run="run-9", at="2027-01-01T00:00:00")
    history.change("build", "tied", run="run-0", at="2025-01-01T00:00:00")
    table = world.table(history)
    assert table.runs == ["run-0", "run-1", "run-9"]
    assert table.finished == "2027-01-01T00:00:00"


def test_an_environment_broken_alone_is_one_cause_with_all_its_cells(world: World) -> None:
    table = world.table(world.history({("import", "maker-1.0"): RAISED}))
    (broken,) = [e for e in table.environments if e.stages[2].outcome is Outcome.FAILED]
    assert (broken.name, broken.cells) == ("maker-1.0", 2)


some_ends = st.dictionaries(
    st.sampled_from(
        [("resolve", "maker-1.0"), ("install", "runner-3.0"), ("import", "maker-2.0"),
         ("build", "tied"), ("quantize", "untied/awq/maker-1.0"), ("inspect", "tied/float/none"),
         ("inspect", "tied/awq/maker-2.0"), ("load", GOOD), ("load", FLOAT), ("generate", GOOD),
         ("generate", FLOAT), ("generate", CANARY)]
    ),
    st.builds(
        lambda conclusion, message: msgspec.structs.replace(conclusion, message=message),
        st.sampled_from([Conclusion(o, r) for o, some in REASONS.items() for r in sorted(some)]),
        st.sampled_from(["", "words"]),
    ),
    max_size=4,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some_ends, st.randoms(use_true_random=False), st.floats(0, 1))
def test_any_history_gives_one_table_whatever_order_it_is_read_in(
    world: World, ends: Ends, shuffle: random.Random, kept: float
) -> None:
    history = world.history(ends)
    places = [place for place in history.observations if shuffle.random() <= kept or kept > 0.5]
    history.observations = {place: history.observations[place] for place in places}
    table = world.table(history)
    assert world.table(history) == table

    shuffle.shuffle(places)
    history.observations = {place: history.observations[place] for place in places}
    judge = world.judge(history)
    names = [cell.id for cell in history.plan.cells]
    shuffle.shuffle(names)
    for name in names:
        judge.cell(name)
    assert TableJudge(judge).table() == table
    assert msgspec.json.encode(TableJudge(judge).table()) == msgspec.json.encode(table)

    for cell in table.cells:
        if cell.verdict is Verdict.WORKS:
            assert all(stage.outcome is Outcome.PASSED for stage in cell.stages)
            assert cell.output == cell.expected
        if cell.verdict in (Verdict.INFRA, Verdict.UNTESTED, Verdict.UNSUPPORTED, Verdict.WORKS):
            assert cell.blame is Blame.NOBODY


def test_an_environment_stands_by_its_locks_and_by_what_was_run(world: World) -> None:
    made = {"2024-01-01T00:00:00Z": "1.0", "2024-06-01T00:00:00Z": "2.0"}
    releases = [Release(version, uploaded, declares=[]) for uploaded, version in made.items()]
    snapshot = Snapshot(1, "2026-11-22T00:00:00Z", {"maker": releases})
    loaded = msgspec.structs.replace(world.loaded, snapshot=snapshot)
    questions: list[str] = []

    def answer(environment: Environment) -> Solution | None:
        questions.append(f"{environment.name} {environment.resolution} {environment.cutoff[:10]}")
        if environment.name == "runner-3.0":
            return Solution({"runner": "3.0"}) if environment.resolution == "pinned" else None
        if environment.name != "maker-2.0":
            return None
        if environment.resolution == "today":
            return Solution({}, "no such set")
        return Solution({"maker": "2.0", "torch": "2.1"})

    history = world.history()
    judge = TableJudge(cell_judge(loaded, history), answer)
    results = {result.name: result for result in judge.table().environments}
    stands = {standing.resolution: standing for standing in results["maker-2.0"].standings}
    assert [(s.resolves, s.works, s.same_as) for s in stands.values()] == [
        ("yes", "works", ""), ("yes", "works", "pinned"), ("no", "not run", ""),
    ]  # fmt: skip
    assert stands["today"].refusal == "no such set"
    assert results["maker-2.0"].differences == ["rotted: resolved as released, is refused today"]
    assert results["maker-1.0"].standings == []
    runner = [
        (standing.resolution, standing.resolves) for standing in results["runner-3.0"].standings
    ]
    assert runner == [("pinned", "yes"), ("today", "not asked")]  # no date of release is known
    assert "maker-2.0 released 2024-06-08" in questions
    assert not [line for line in questions if line.startswith("runner-3.0 released")]


def test_what_holds_is_told_beside_what_is_declared(world: World, tmp_path: Path) -> None:
    versions = {"maker": "2.0", "runner": "3.0", "torch": "2.1", "transformers": "4.47.1"}

    def facts(step: str, subject: str) -> dict[str, Any]:
        usual = world.facts(step, subject)
        return {**usual, "versions": versions} if step == "install" else usual

    beside = ('"runner==', '"transformers==4.47.1", "runner==')
    loaded = load(small_spec.write(tmp_path, beside))
    snapshot = Snapshot(
        1, "2026-11-22T00:00:00Z", {"runner": [Release("3.0", declares=["transformers<4"])]}
    )
    loaded = msgspec.structs.replace(loaded, snapshot=snapshot)
    history = History(make_plan(loaded, "all")).finish({}, facts)
    (specifier,) = TableJudge(cell_judge(loaded, history)).table().specifiers
    assert (specifier.package, specifier.release, specifier.partner) == (
        "runner",
        "3.0",
        "transformers",
    )
    assert (specifier.holds, specifier.declared) == ("==4.47.1", "<4")
    assert specifier.differs == ["forbidden by metadata, but works: 4.47.1"]


def test_what_holds_is_from_where_the_quantizer_ran(world: World, tmp_path: Path) -> None:
    versions = {"maker": "2.0", "runner": "3.0", "torch": "2.1", "transformers": "4.47.1"}

    def facts(step: str, subject: str) -> dict[str, Any]:
        usual = world.facts(step, subject)
        return {**usual, "versions": versions} if step == "install" else usual

    beside = ('"maker==', '"transformers==4.47.1", "maker==')
    loaded = load(small_spec.write(tmp_path, beside))
    loaded = msgspec.structs.replace(loaded, snapshot=Snapshot(1, "", {"maker": []}))
    history = History(make_plan(loaded, "all")).finish({}, facts)
    for subject in ("maker-1.0", "maker-2.0"):
        history.change("import", subject, device="cuda 8.0")
    specifiers = TableJudge(cell_judge(loaded, history)).table().specifiers
    assert [specifier.devices for specifier in specifiers] == [["cuda 8.0"]] * len(specifiers) != []


def test_an_environment_that_works_says_how_it_is_installed_again(world: World) -> None:
    history = world.history()

    def answer(environment: Environment) -> Solution:
        package, _, version = environment.name.rpartition("-")
        return Solution({package: version, "torch": "2.1"})

    judge = TableJudge(cell_judge(world.loaded, history), answer)
    table = judge.table()
    installs = {result.name: result.install for result in table.environments}
    works = {
        name
        for cell in table.cells
        if cell.verdict is Verdict.WORKS
        for name in (cell.quantizer.environment, cell.engine.environment)
        if (cell.quantizer.name, name) != ("none", cell.quantizer.environment)
    }
    assert {name for name, install in installs.items() if install is not None} == works != set()
    runner = installs["runner-3.0"]
    assert runner is not None
    assert runner.pins == {"runner": "3.0", "torch": "2.1"}
