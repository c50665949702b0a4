"""Where repairs were proven: in which engines a repaired checkpoint works.

``proofs.json`` is written by ``python -m matrix.cli.proofs REPORT`` and by nobody's hand.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from matrix.repair.names import RepairName

FILE = Path(__file__).with_name("proofs.json")


class Proof(msgspec.Struct, frozen=True):
    """The engines in which a checkpoint works after a repair."""

    mended: list[str] = []
    """It did not before; the repair was the only one."""
    kept: list[str] = []
    """It did before as well, so the repair does no harm there."""


def load_proofs(file: Path = FILE) -> dict[RepairName, Proof]:
    """Return repair -> where it was proven."""
    return msgspec.json.decode(file.read_bytes(), type=dict[RepairName, Proof])


def describe_proof(name: RepairName, proof: Proof) -> str:
    """Return in a line where a repair was proven, or that it was not."""
    if proof.mended:
        return f"{name}: proven, works after it and not before in {', '.join(proof.mended)}"
    if proof.kept:
        return f"{name}: not proven to mend anything yet; does no harm in {', '.join(proof.kept)}"
    return f"{name}: not proven in any engine yet; compare the answers with the original's"
