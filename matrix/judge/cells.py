"""What each cell is, judged by the observations of its stages. Pure over what it may read."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import cache
from typing import assert_never

import msgspec

from matrix.checks import run_checks
from matrix.checks.evidence import Evidence, Reference, Thresholds
from matrix.judge.cell_evidence import measures_of, read_evidence
from matrix.judge.diagnosing import Diagnoser, ReadIssues
from matrix.judge.refusals import classify_refusal
from matrix.judge.results import CellResult
from matrix.judge.sides import Sides
from matrix.judge.verdict import JudgedCell, blocks, fold, stage_results
from matrix.machine.invocation import invocation
from matrix.pipeline.outcomes import Outcome, Reason, StageResult, Verdict
from matrix.pipeline.steps import STAGES, Blame, RoleKind, Stage
from matrix.plan.cell_steps import build_of, by_stage, steps_of
from matrix.plan.cells import Cell, Plan, float_id
from matrix.plan.keys import Key, Keys
from matrix.spec.loading import DEFAULT_PROFILE, DEFAULT_SPEC, LoadedSpec
from matrix.spec.reading import read_tables
from matrix.spec.tables import ExclusionTable, RefusalTable
from matrix.store.observations import Observation

ReadReference = Callable[[str], Reference | None]
"""From a model's key to the float model's own answers, where they can be read."""


def thresholds(loaded: LoadedSpec) -> Thresholds:
    """Return the spec's thresholds; raise :class:`SpecError` where one is missing or unknown."""
    try:
        return msgspec.convert(loaded.spec.thresholds, Thresholds)
    except msgspec.ValidationError as error:
        keys = ", ".join(Thresholds.__struct_fields__)
        raise loaded.error("thresholds", str(error), f"The keys are: {keys}") from None


def refusals(loaded: LoadedSpec) -> dict[str, RefusalTable]:
    """Return the spec's rules of what packages refuse by design, or else those that are ours."""
    own = loaded.spec.refusals
    return (read_tables(DEFAULT_SPEC).refusals or {}) if own is None else own


class CellJudge:
    """Judges single cells of a plan by the observations that its keys lead to."""

    def __init__(
        self,
        loaded: LoadedSpec,
        plan: Plan,
        keys: Keys,
        read_reference: ReadReference,
        read_issues: ReadIssues = dict,
    ) -> None:
        self.loaded = loaded
        self.plan = plan
        self.keys = keys.fixed()
        self.sides = Sides(loaded, plan, self.keys)
        self._refusals = refusals(loaded)
        self.diagnoser = Diagnoser(read_issues)
        self._cells = {cell.id: cell for cell in plan.cells}
        self._thresholds = thresholds(loaded)
        self._reference = cache(read_reference)
        self.observations = cache(self._observations)
        self.cell = cache(self._cell)

    def keys_of(self, cell: Cell) -> dict[Stage, Key | None]:
        """Return the key of each stage of a cell, as far as they exist."""
        return {stage: self.keys.of(step) for stage, step in by_stage(steps_of(cell)).items()}

    def _cell(self, cell_id: str) -> CellResult:
        cell = self._cells[cell_id]
        observations = self.observations(cell_id)
        results = {stage: self._result(cell, stage, o) for stage, o in observations.items()}
        self._unbuilt(cell, results)
        if cell.exclusion is not None:
            results[Stage.LOAD] = StageResult(
                Outcome(cell.exclusion.outcome), Reason.DECLARED, cell.exclusion.reason,
                stage=Stage.LOAD,
            )  # fmt: skip
        untested = _untested(cell, self.plan, results)
        evidence, unreadable = self._read_evidence(cell, observations)
        results |= {result.stage: result for result in unreadable}
        findings = run_checks(evidence) if evidence else []
        stages = stage_results(results, findings, by_stage(steps_of(cell)))
        judged_cell = _excluded(cell.exclusion) if cell.exclusion else untested
        judged_cell = judged_cell or fold(stages, findings, float_works=self._float_works(cell))
        diagnosis = self.diagnoser.diagnose(
            cell, judged_cell, stages, findings, observations, self.sides.of_cell(cell)
        )
        generation = evidence.generation if evidence else None
        reference = evidence.reference if evidence else None
        load, made = observations.get(Stage.LOAD), observations.get(Stage.QUANTIZE)
        oldest_first = sorted(observations.values(), key=lambda o: (o.at, o.key))
        return CellResult(
            id=cell.id,
            model=cell.checkpoint.model.name,
            scheme=cell.checkpoint.scheme_name,
            quantizer=self.sides.side(cell.checkpoint.quantizer),
            engine=self.sides.side(cell.engine),
            parts=cell.parts,
            verdict=judged_cell.verdict,
            blame=judged_cell.blame,
            stage=judged_cell.stage,
            reason=judged_cell.reason,
            message=judged_cell.message,
            explained_by=judged_cell.explained_by,
            stages=stages,
            findings=findings,
            departures=self.sides.departures(cell, observations.values()),
            timings={stage: observation.seconds for stage, observation in observations.items()},
            device=load.device if load else self.keys.device(cell.engine.environment),
            made_on=made.device if made else "",
            at=oldest_first[-1].at if oldest_first else "",
            runs=list(dict.fromkeys(observation.run for observation in oldest_first)),
            attempts=max((observation.attempt for observation in oldest_first), default=0),
            output=generation.outputs[0].text if generation else "",
            expected=reference.prompts[0].greedy_text if reference else "",
            issue=diagnosis.issue,
            looks_like=diagnosis.looks_like,
            group=diagnosis.group,
            measures=measures_of(evidence, findings, load),
            canary=cell.canary,
            command=command_of(self.loaded, self.plan, "run", "--cell", cell.id),
        )

    def _result(self, cell: Cell, stage: Stage, observation: Observation) -> StageResult:
        """Return what a stage came to, with what packages refuse by design told apart."""
        is_engine = STAGES[stage].role is RoleKind.ENGINE
        role = cell.engine if is_engine else cell.checkpoint.quantizer
        installed = self.sides.installed(role.environment)
        return classify_refusal(stage, observation, installed, self._refusals)

    def _unbuilt(self, cell: Cell, results: dict[Stage, StageResult]) -> None:
        """Say in ``results`` that the model could not be built, which is no package's fault."""
        build = self.keys.observed(self.keys.of(build_of(cell.checkpoint.model)))
        if build is not None and build.outcome is not Outcome.PASSED:
            outcome = Outcome.INFRA if build.outcome is Outcome.FAILED else build.outcome
            message = f"the model could not be built: {build.message}"
            quantize = StageResult(outcome, build.reason, message, stage=Stage.QUANTIZE)
            results[Stage.QUANTIZE] = quantize

    def _read_evidence(
        self, cell: Cell, observations: dict[Stage, Observation]
    ) -> tuple[Evidence | None, list[StageResult]]:
        """Return a cell's evidence, and the failure of each stage whose facts cannot be read.

        There is no evidence where the float model's own answers are not there to compare with.
        """
        build = self.keys.passed(self.keys.of(build_of(cell.checkpoint.model)))
        reference = self._reference(build.key) if build else None
        if reference is None:
            return None, []
        twin = self._cells.get(float_id(cell))
        generate = self.keys.passed(self.keys_of(twin)[Stage.GENERATE]) if twin else None
        engine = self.sides.installed(cell.engine.environment)
        return read_evidence(cell, observations, reference, self._thresholds, engine, generate)

    def _observations(self, cell_id: str) -> dict[Stage, Observation]:
        """Return what was observed of each of a cell's stages."""
        keys = self.keys_of(self._cells[cell_id])
        observations = {
            stage: observation
            for stage, key in keys.items()
            if (observation := self.keys.observed(key)) is not None
        }
        load = observations.get(Stage.LOAD)
        if load is not None and load.outcome is not Outcome.PASSED:
            # It is of an earlier time, when the cell loaded, which it does not now.
            observations.pop(Stage.GENERATE, None)
        return observations

    def _float_works(self, cell: Cell) -> bool | None:
        """Return whether the float model works in the cell's engine; ``None`` where unknown."""
        twin = self._cells.get(float_id(cell))
        if twin is None:
            return None
        if twin.id == cell.id:
            return False  # whatever is wrong with the float model's cell, no quantizer did it
        match self.cell(twin.id).verdict:
            case Verdict.WORKS | Verdict.DEGRADED:
                return True
            case Verdict.INFRA | Verdict.NOT_RUN | Verdict.UNTESTED | Verdict.UNSUPPORTED:
                return None
            case Verdict.GARBAGE | Verdict.BROKEN:
                return False
            case never:
                assert_never(never)


def command_of(loaded: LoadedSpec, plan: Plan, command: str, *options: str) -> str:
    """Return a command for a plan's spec and profile, for a shell."""
    words = [*invocation(), command]
    if loaded.file != DEFAULT_SPEC:
        words += ["--spec", str(loaded.file)]
    if plan.profile != DEFAULT_PROFILE:
        words += ["--profile", plan.profile]
    return shlex.join([*words, *options])


def _untested(cell: Cell, plan: Plan, results: dict[Stage, StageResult]) -> JudgedCell | None:
    """Say, in ``results`` too, that a cell needs what this machine lacks.

    ``None`` where it lacks nothing, and where what was observed decides all the same: it ran
    when more was there, or an earlier stage did not pass.
    """
    stages = stage_results(results, [], by_stage(steps_of(cell)))
    first = next(filter(blocks, stages), None)
    if not cell.unmet or first is None or first.outcome is not Outcome.INFRA:
        return None
    quantizer, engine = cell.checkpoint.quantizer, cell.engine
    on_gpu = [plan.environments[r.environment].device == "cuda" for r in (quantizer, engine)]
    made = results.get(Stage.QUANTIZE)
    at_quantizer = (on_gpu[0] or quantizer.instruction_set) and (made is None or blocks(made))
    stage = Stage.QUANTIZE if at_quantizer else Stage.LOAD
    of_cpu = not any(on_gpu) and (quantizer.instruction_set or engine.instruction_set)
    reason = Reason.NO_INSTRUCTION if of_cpu else Reason.NO_GPU
    results[stage] = StageResult(Outcome.NEEDS_HARDWARE, reason, cell.unmet, stage=stage)
    return JudgedCell(Verdict.UNTESTED, Blame.NOBODY, stage, reason, cell.unmet)


def _excluded(table: ExclusionTable) -> JudgedCell:
    """Return what a cell is that is not run: what was declared, with its source."""
    needs = Outcome(table.outcome) is Outcome.NEEDS_HARDWARE
    message = f"{table.reason} ({table.source})"
    verdict = Verdict.UNTESTED if needs else Verdict.UNSUPPORTED
    return JudgedCell(verdict, Blame.NOBODY, Stage.LOAD, Reason.DECLARED, message)
