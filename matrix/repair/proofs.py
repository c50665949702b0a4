"""Which repairs were proven: cells that work with a repaired checkpoint, and did not without."""

from __future__ import annotations

from pathlib import Path

import msgspec

from matrix.repair.names import RepairName

FILE = Path(__file__).with_name("proofs.json")


def load_proofs(file: Path = FILE) -> dict[RepairName, list[str]]:
    """Return repair -> the engines in which it was proven."""
    return msgspec.json.decode(file.read_bytes(), type=dict[RepairName, list[str]])
