"""What each cell is: the observations of its ten stages, judged. Pure over what it may read."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, assert_never

import msgspec
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from matrix.checkpoint.inspection import Inspection
from matrix.checks import judge
from matrix.checks.evidence import (
    Evidence,
    EvidenceError,
    Generation,
    Load,
    Reference,
    Thresholds,
    read_generation,
    read_load,
)
from matrix.judge.refusals import judge_refusal
from matrix.judge.results import CellResult, Side
from matrix.judge.verdict import JudgedCell, blocks, fold, stage_results
from matrix.pipeline.outcomes import Outcome, Reason, StageResult, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.plan.cells import Cell, Plan, Role, float_id
from matrix.plan.keys import Key, Keys
from matrix.plan.needs import tensor_parallel
from matrix.spec.loading import DEFAULT_PROFILE, DEFAULT_SPEC, LoadedSpec, read_tables
from matrix.spec.tables import ExclusionTable, RefusalTable
from matrix.store.observations import Observation

ReadReference = Callable[[str], Reference | None]
"""From a model's key to the float model's own answers, where they can be read."""


def thresholds(loaded: LoadedSpec) -> Thresholds:
    """Return the spec's thresholds; raise :class:`SpecError` where one is missing or unknown."""
    try:
        return msgspec.convert(loaded.spec.thresholds, Thresholds)
    except msgspec.ValidationError as error:
        known = ", ".join(Thresholds.__struct_fields__)
        raise loaded.error("thresholds", str(error), f"The keys are: {known}") from None


def refusals(loaded: LoadedSpec) -> dict[str, RefusalTable]:
    """Return the spec's rules of what packages refuse by design, or else those that are ours."""
    own = loaded.spec.refusals
    return (read_tables(DEFAULT_SPEC).refusals or {}) if own is None else own


class CellJudge:
    """Judges single cells of a plan by the observations that its keys lead to."""

    def __init__(
        self, loaded: LoadedSpec, plan: Plan, keys: Keys, read_reference: ReadReference
    ) -> None:
        self._loaded = loaded
        self._spec = loaded.spec
        self._thresholds = thresholds(loaded)
        self._refusals = refusals(loaded)
        self._plan = plan
        self._cells = {cell.id: cell for cell in plan.cells}
        self._keys = keys.fixed()
        self._reference = cache(read_reference)
        self._seen = cache(self._observed)
        self.cell = cache(self._cell)

    def keys_of(self, cell: Cell) -> dict[Stage, Key | None]:
        """Return the key of each of a cell's ten stages, as far as they exist."""
        keys, quantizer, engine = self._keys, cell.checkpoint.quantizer, cell.engine
        return {
            Stage.QUANTIZER_RESOLVE: keys.resolve(quantizer.environment),
            Stage.QUANTIZER_INSTALL: keys.install(quantizer.environment),
            Stage.QUANTIZER_IMPORT: keys.importing(quantizer),
            Stage.QUANTIZE: keys.quantize(cell.checkpoint),
            Stage.INSPECT: keys.inspect(cell.checkpoint),
            Stage.ENGINE_RESOLVE: keys.resolve(engine.environment),
            Stage.ENGINE_INSTALL: keys.install(engine.environment),
            Stage.ENGINE_IMPORT: keys.importing(engine),
            Stage.LOAD: keys.evaluate(cell, "load"),
            Stage.GENERATE: keys.evaluate(cell, "generate"),
        }

    def _cell(self, cell_id: str) -> CellResult:
        cell = self._cells[cell_id]
        observations = self._seen(cell_id)
        results = {stage: self._result(cell, stage, seen) for stage, seen in observations.items()}
        self._unbuilt(cell, results)
        if cell.exclusion is not None:
            results[Stage.LOAD] = StageResult(
                Stage.LOAD, Outcome(cell.exclusion.outcome), Reason.DECLARED, cell.exclusion.reason
            )
        untested = self._untested(cell, results)
        evidence = self._evidence(cell, observations, results)
        findings = judge(evidence) if evidence else []
        stages = stage_results(results, findings)
        if cell.exclusion is not None:
            judged = _excluded(cell.exclusion)
        else:
            judged = untested or fold(stages, findings, float_works=self._float_works(cell))
        generation = evidence.generation if evidence else None
        return CellResult(
            id=cell.id,
            model=cell.checkpoint.model.name,
            scheme=cell.checkpoint.scheme_name,
            quantizer=self._side(cell.checkpoint.quantizer),
            engine=self._side(cell.engine),
            parts=cell.parts,
            verdict=judged.verdict,
            blame=judged.blame,
            stage=judged.stage,
            reason=judged.reason,
            message=judged.message,
            explained_by=judged.explained_by,
            stages=stages,
            findings=findings,
            departures=self._departures(cell, observations),
            timings={stage: seen.seconds for stage, seen in observations.items()},
            device=self._device(cell, observations),
            output=generation.outputs[0].text if generation else "",
            expected=_expected(evidence),
            canary=cell.canary,
            command=self._command("--cell", cell.id),
        )

    def _result(self, cell: Cell, stage: Stage, seen: Observation) -> StageResult:
        """Return what a stage came to, with what packages refuse by design told apart."""
        result = StageResult(stage, seen.outcome, seen.reason, seen.message)
        order = list(Stage)
        made = order.index(stage) < order.index(Stage.ENGINE_RESOLVE)
        role = cell.checkpoint.quantizer if made else cell.engine
        return judge_refusal(result, seen, self._installed(role.environment), self._refusals)

    def _unbuilt(self, cell: Cell, results: dict[Stage, StageResult]) -> None:
        """Where the project could not build the model, no package is to blame."""
        build = self._keys.observed(self._keys.build(cell.checkpoint.model))
        if build is not None and build.outcome is not Outcome.PASSED:
            message = f"the model could not be built: {build.message}"
            results[Stage.QUANTIZE] = StageResult(
                Stage.QUANTIZE, Outcome.INFRA, build.reason, message
            )

    def _untested(self, cell: Cell, results: dict[Stage, StageResult]) -> JudgedCell | None:
        """Say, in ``results`` too, that a cell needs what this machine lacks.

        ``None`` where it lacks nothing, and where what was observed decides all the same: it ran
        when more was there, or an earlier stage did not pass.
        """
        first = next((stage for stage in stage_results(results, []) if blocks(stage)), None)
        if not cell.unmet or first is None or first.outcome is not Outcome.INFRA:
            return None
        quantizer, engine = cell.checkpoint.quantizer, cell.engine
        on_gpu = [
            self._plan.environments[r.environment].device == "cuda" for r in (quantizer, engine)
        ]
        made = results.get(Stage.QUANTIZE)
        at_quantizer = (on_gpu[0] or quantizer.instruction_set) and (made is None or blocks(made))
        stage = Stage.QUANTIZE if at_quantizer else Stage.LOAD
        of_cpu = not any(on_gpu) and (quantizer.instruction_set or engine.instruction_set)
        reason = Reason.NO_INSTRUCTION if of_cpu else Reason.NO_GPU
        results[stage] = StageResult(stage, Outcome.NEEDS_HARDWARE, reason, cell.unmet)
        return JudgedCell(Verdict.UNTESTED, Blame.NOBODY, stage, reason.value, cell.unmet)

    def _device(self, cell: Cell, observations: dict[Stage, Observation]) -> str:
        """Return what a cell's engine ran on, or else is to run on."""
        loaded = observations.get(Stage.LOAD)
        return loaded.device if loaded else self._keys.device(cell.engine.environment)

    def _observed(self, cell_id: str) -> dict[Stage, Observation]:
        cell = self._cells[cell_id]
        found = {stage: self._keys.observed(key) for stage, key in self.keys_of(cell).items()}
        load = found[Stage.LOAD]
        if load is not None and load.outcome is not Outcome.PASSED:
            found[Stage.GENERATE] = None  # of an earlier time, when it loaded; it does not now
        return {stage: seen for stage, seen in found.items() if seen is not None}

    def _evidence(
        self,
        cell: Cell,
        observations: dict[Stage, Observation],
        results: dict[Stage, StageResult],
    ) -> Evidence | None:
        """Read what the stages left. One that cannot be read fails its stage, in ``results``."""
        model = self._keys.passed(self._keys.build(cell.checkpoint.model))
        reference = self._reference(model.key) if model else None
        if reference is None:
            return None

        def read(stage: Stage, how: Callable[[Observation], Any]) -> Any:
            seen = observations.get(stage)
            if seen is None or seen.outcome is not Outcome.PASSED:
                return None
            try:
                return how(seen)
            except (EvidenceError, msgspec.ValidationError) as error:
                results[stage] = StageResult(stage, Outcome.FAILED, Reason.UNREADABLE, str(error))
                return None

        inspection: Inspection | None = read(
            Stage.INSPECT, lambda seen: msgspec.convert(seen.facts, Inspection)
        )
        load: Load | None = read(Stage.LOAD, lambda seen: read_load(seen.facts, seen.warnings))
        generation: Generation | None = read(
            Stage.GENERATE, lambda seen: read_generation(seen.facts, reference)
        )
        return Evidence(
            tied=cell.checkpoint.model.tied,
            quantized=cell.checkpoint.scheme is not None,
            reference=reference,
            thresholds=self._thresholds,
            engine=self._installed(cell.engine.environment),
            loader=cell.engine.adapter.stem,
            dtype=str(cell.engine.options.get("dtype", "")),
            tensor_parallel=tensor_parallel(cell.engine),
            log=observations[Stage.LOAD].log if Stage.LOAD in observations else "",
            inspection=inspection,
            load=load,
            generation=generation,
            float_generation=self._float_generation(cell, reference),
        )

    def _float_generation(self, cell: Cell, reference: Reference) -> Generation | None:
        twin = self._cells.get(float_id(cell))
        seen = self._keys.passed(self._keys.evaluate(twin, "generate")) if twin else None
        if seen is None:
            return None
        try:
            return read_generation(seen.facts, reference)
        except EvidenceError:
            return None  # its own cell says so

    def _float_works(self, cell: Cell) -> bool | None:
        twin = self._cells.get(float_id(cell))
        if twin is None:
            return None
        if twin.id == cell.id:
            return False  # whatever is wrong with the float model's cell, no quantizer did it
        match self.cell(twin.id).verdict:
            case Verdict.WORKS | Verdict.DEGRADED:
                return True
            case Verdict.INFRA | Verdict.UNTESTED | Verdict.UNSUPPORTED:
                return None
            case Verdict.GARBAGE | Verdict.BROKEN:
                return False
            case never:
                assert_never(never)

    def _departures(self, cell: Cell, observations: Mapping[Stage, Observation]) -> list[str]:
        """Return how a cell departs from stock packages, as declared or as it really came."""
        roles = (cell.checkpoint.quantizer, cell.engine)
        environments = (self._plan.environments[role.environment] for role in roles)
        declared = {name for role in roles for name in role.departures}
        declared |= {name for env in environments for name in env.departures}
        used = {name for seen in observations.values() for name in _departures_used(seen)}
        sometimes = {n for n, table in self._spec.departures.items() if table.only_where_used}
        return sorted(name for name in declared if name not in sometimes or name in used)

    def _side(self, role: Role) -> Side:
        installed = self._keys.passed(self._keys.install(role.environment))
        facts = installed.facts if installed else {}
        return Side(
            name=role.name,
            environment=role.environment,
            packages=self._packages(role.environment),
            torch=facts.get("torch", ""),
            python=facts.get("python") or self._plan.environments[role.environment].python,
            options=role.options,
            axes=self._plan.environments[role.environment].axes,
        )

    def _installed(self, name: str) -> dict[str, str]:
        """Return all that is installed in an environment, with versions; empty where nothing is."""
        installed = self._keys.passed(self._keys.install(name))
        return installed.facts.get("versions", {}) if installed else {}

    def _packages(self, name: str) -> dict[str, str]:
        """Return the environment's top packages, as installed or else as asked for."""
        versions = self._installed(name)
        asked = [Requirement(text) for text in self._plan.environments[name].requirements]
        return {
            r.name: versions.get(canonicalize_name(r.name), str(r.specifier).lstrip("="))
            for r in asked
        }

    def _command(self, option: str, value: str) -> str:
        words = [".venv/bin/python", "-m", "matrix", "run"]
        if self._loaded.file != DEFAULT_SPEC:
            words += ["--spec", str(self._loaded.file)]
        if self._plan.profile != DEFAULT_PROFILE:
            words += ["--profile", self._plan.profile]
        return shlex.join([*words, option, value])


def _excluded(table: ExclusionTable) -> JudgedCell:
    """Return what a cell is that is not run: what was declared, with its source."""
    needs = Outcome(table.outcome) is Outcome.NEEDS_HARDWARE
    message = f"{table.reason} ({table.source})"
    verdict = Verdict.UNTESTED if needs else Verdict.UNSUPPORTED
    return JudgedCell(verdict, Blame.NOBODY, Stage.LOAD, Reason.DECLARED.value, message)


def _departures_used(seen: Observation) -> list[str]:
    """Return the departures that an adapter says it came to use; what it says is untrusted."""
    names = seen.facts.get("departures")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _expected(evidence: Evidence | None) -> str:
    """Return the float model's answer that is shown beside a cell's own."""
    if evidence is None or evidence.reference is None:
        return ""
    return evidence.reference.prompts[0].greedy_text
