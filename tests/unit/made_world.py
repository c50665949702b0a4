"""A small spec with inspections of real checkpoints, whose made-up histories are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from matrix.checkpoint.inspecting import inspect
from matrix.checks.evidence import Reference
from matrix.judge.cells import CellJudge
from matrix.judge.results import CellResult, MatrixResult
from matrix.judge.table import TableJudge
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason, Verdict
from matrix.pipeline.steps import Blame, Stage
from matrix.plan.cells import make_plan
from matrix.spec.loading import LoadedSpec, load
from tests.unit import awq_checkpoints, small_spec
from tests.unit.made_evidence import REFERENCE, right_facts
from tests.unit.made_history import Ends, Facts, History, plain_facts

GOOD = "tied/awq/maker-2.0/runner-3.0"
CANARY = "tied/awq/maker-1.0/runner-3.0"
FLOAT = "tied/float/none/runner-3.0"
WORKS = (Verdict.WORKS, Blame.NOBODY, None, "none")
RAISED = Conclusion(Outcome.FAILED, Reason.EXCEPTION, "ValueError: no")
STOPPED = Conclusion(Outcome.INFRA, Reason.NO_SPACE, "the disk is full")
NO_GPU = Conclusion(Outcome.NEEDS_HARDWARE, Reason.NO_GPU, "RuntimeError: GPU, please")


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


def short(cell: CellResult) -> tuple[Verdict, Blame, Stage | None, str]:
    return cell.verdict, cell.blame, cell.stage, cell.reason
