"""A noxfile as one would write it by hand: a session for each quantizer with each engine.

``BY_HAND`` names a JSON file with the combinations, as ``benchmarks/against_nox.py`` writes it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nox
import uv

HERE = Path(__file__).parent
COMBINATIONS = json.loads(Path(os.environ["BY_HAND"]).read_text())

nox.options.default_venv_backend = "uv"


@nox.session(python="3.11")
@nox.parametrize(
    "combination", COMBINATIONS, ids=[combination["id"] for combination in COMBINATIONS]
)
def cell(session: nox.Session, combination: dict[str, Any]) -> None:
    """Quantize in the session's own environment, then load and answer in the engine's."""
    folder = Path(session.create_tmp())
    session.chdir(folder)  # GPTQModel writes its log where it is run
    quantizer, engine = combination["quantizer"], combination["engine"]
    quantizer["job"]["output"] = engine["job"]["checkpoint"] = str(folder / "checkpoint")
    for name, side in (("quantizer", quantizer), ("engine", engine)):
        (folder / f"{name}.json").write_text(json.dumps(side))

    session.install(*quantizer["install"])
    session.run("python", HERE / "quantize.py", folder / "quantizer.json", env=quantizer["environ"])

    # Its packages are others: an environment of its own.
    python = folder / "engine" / "bin" / "python"
    session.run(uv.find_uv_bin(), "venv", "--python", "3.11", folder / "engine", external=True)
    session.run(uv.find_uv_bin(), "pip", "install", "--python", python, *engine["install"],
                external=True)  # fmt: skip
    session.run(python, HERE / "answer.py", folder / "engine.json", combination["result"],
                env=engine["environ"], external=True)  # fmt: skip
