"""Load one checkpoint, answer, compare: ``answer.py SIDE.json RESULT.json``, in the engine's
environment."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from pathlib import Path

side = json.loads(Path(sys.argv[1]).read_text())
sys.path.insert(0, side["adapters"])
adapter = importlib.import_module(side["adapter"])
adapter.import_package({"departures": side["departures"]})
with contextlib.ExitStack() as stack:
    for name in side["departures"]:
        stack.enter_context(adapter.DEPARTURES[name]())
    handle, _ = adapter.load(side["job"])
    facts = adapter.generate(handle, side["job"])
right = [output["ids"] == ids for output, ids in zip(facts["outputs"], side["tokens"], strict=True)]
drift = [
    abs((now if now is not None else -100.0) - before)
    for scored, logprobs in zip(facts["held_out"], side["logprobs"], strict=True)
    for now, before in zip(scored, logprobs, strict=True)
]
result = {"same": sum(right), "of": len(right), "drift": sum(drift) / len(drift)}
Path(sys.argv[2]).write_text(json.dumps(result))
print(result, flush=True)
os._exit(0)  # to tear an engine down takes a second
