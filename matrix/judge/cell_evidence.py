"""The evidence of a cell: what its stages left behind, read for the checks. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeVar

import msgspec

from matrix.checkpoint.inspection import Inspection
from matrix.checks.evidence import (
    Evidence,
    EvidenceError,
    Generation,
    Reference,
    Thresholds,
    read_generation,
    read_load,
)
from matrix.judge.sides import Sides
from matrix.pipeline.outcomes import Outcome, Reason, StageResult
from matrix.pipeline.steps import Stage
from matrix.plan.cells import Cell, float_id
from matrix.plan.keys import Keys
from matrix.plan.needs import tensor_parallel
from matrix.plan.steps import build_of, by_stage, steps_of
from matrix.store.facts import read_facts
from matrix.store.observations import Observation

ReadReference = Callable[[str], Reference | None]
"""From a model's key to the float model's own answers, where they can be read."""

_T = TypeVar("_T")


class EvidenceReader:
    """Reads the evidence of the cells of a plan."""

    def __init__(
        self,
        cells: Mapping[str, Cell],
        keys: Keys,
        sides: Sides,
        read_reference: ReadReference,
        thresholds: Thresholds,
    ) -> None:
        self._cells = cells
        self._keys = keys
        self._sides = sides
        self._reference = cache(read_reference)
        self._thresholds = thresholds

    def read(
        self, cell: Cell, observations: Mapping[Stage, Observation]
    ) -> tuple[Evidence | None, list[StageResult]]:
        """Return a cell's evidence, and the failure of each stage whose facts cannot be read.

        There is no evidence where the float model's own answers are not there to compare with.
        """
        model = self._keys.passed(self._keys.of(build_of(cell.checkpoint.model)))
        reference = self._reference(model.key) if model else None
        if reference is None:
            return None, []
        unreadable: list[StageResult] = []

        def read(stage: Stage, reader: Callable[[Observation], _T]) -> _T | None:
            observation = observations.get(stage)
            if observation is None or observation.outcome is not Outcome.PASSED:
                return None
            try:
                return reader(observation)
            except (EvidenceError, msgspec.ValidationError) as error:
                failed = StageResult(Outcome.FAILED, Reason.UNREADABLE, str(error), stage=stage)
                unreadable.append(failed)
                return None

        load = observations.get(Stage.LOAD)
        evidence = Evidence(
            tied=cell.checkpoint.model.tied,
            quantized=cell.checkpoint.scheme is not None,
            reference=reference,
            thresholds=self._thresholds,
            engine=self._sides.installed(cell.engine.environment),
            loader=cell.engine.adapter.stem,
            dtype=str(cell.engine.options.get("dtype", "")),
            tensor_parallel=tensor_parallel(cell.engine),
            log=load.log if load else "",
            inspection=read(Stage.INSPECT, lambda observation: read_facts(observation, Inspection)),
            load=read(
                Stage.LOAD, lambda observation: read_load(observation.facts, observation.warnings)
            ),
            generation=read(
                Stage.GENERATE, lambda observation: read_generation(observation.facts, reference)
            ),
            float_generation=self._float_generation(cell, reference),
            facts={
                stage: observation.facts
                for stage, observation in observations.items()
                if observation.outcome is Outcome.PASSED
            },
        )
        return evidence, unreadable

    def _float_generation(self, cell: Cell, reference: Reference) -> Generation | None:
        """Return what the float model answered in the cell's engine."""
        twin = self._cells.get(float_id(cell))
        if twin is None:
            return None
        generate = self._keys.passed(self._keys.of(by_stage(steps_of(twin))[Stage.GENERATE]))
        if generate is None:
            return None
        try:
            return read_generation(generate.facts, reference)
        except EvidenceError:
            return None  # its own cell says so
