"""Write down which repairs a report proves, for ``matrix repair`` to say.

.venv/bin/python -m matrix.cli.proofs reports/matrix.json
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec

from matrix.cli.evidence import read_evidence
from matrix.cli.options import fail
from matrix.judge.results import MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.repair.names import RepairName
from matrix.repair.proofs import FILE, Proof
from matrix.run.context import Settings
from matrix.spec.loading import Roles, load, repaired_role, role_names
from matrix.store.store import write_atomically

FAILED = (Verdict.GARBAGE, Verdict.BROKEN, Verdict.UNSUPPORTED)


def proofs_of(result: MatrixResult, quantizers: Roles) -> dict[RepairName, Proof]:
    """Return what a table proves of repairs: its cells that work with a repaired checkpoint, beside
    those of the same checkpoint as it was made."""
    verdicts = {cell.id: cell.verdict for cell in result.cells}
    mended: dict[RepairName, dict[str, None]] = {}
    kept: dict[RepairName, dict[str, None]] = {}
    for cell in result.cells:
        environment, table = quantizers.get(cell.quantizer.name, ("", None))
        if table is None or not table.repairs or cell.verdict is not Verdict.WORKS:
            continue
        before = verdicts.get(
            f"{cell.model}/{cell.scheme}/{repaired_role(environment, table)}/{cell.engine.name}"
        )
        if before in FAILED and len(table.repairs) == 1:
            mended.setdefault(table.repairs[0], {})[cell.engine.name] = None
        elif before is Verdict.WORKS:
            for name in table.repairs:
                kept.setdefault(name, {})[cell.engine.name] = None
    return {
        name: Proof(_engines(mended, name), _engines(kept, name))
        for name in RepairName
        if name in mended or name in kept
    }


def _engines(proven: Mapping[RepairName, dict[str, None]], name: RepairName) -> list[str]:
    return sorted(proven.get(name, {}))


def main() -> None:
    """Write the proofs of the report that is named."""
    if len(sys.argv) != 2:
        fail("name a report: python -m matrix.cli.proofs reports/matrix.json")
    result = read_evidence(sys.argv[1], Settings.of())
    loaded = load()
    proofs = proofs_of(result, role_names(loaded, loaded.spec.quantizers))
    write_atomically(FILE, msgspec.json.format(msgspec.json.encode(proofs), indent=1) + b"\n")


if __name__ == "__main__":
    main()
