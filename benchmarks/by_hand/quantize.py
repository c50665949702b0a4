"""Quantize one model: ``quantize.py SIDE.json``, in the quantizer's environment."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from pathlib import Path

side = json.loads(Path(sys.argv[1]).read_text())
# The calls into the package are the adapters' of the project, so that both ways do the same work.
sys.path.insert(0, side["adapters"])
adapter = importlib.import_module(side["adapter"])
adapter.import_package({"departures": side["departures"]})
with contextlib.ExitStack() as stack:
    for name in side["departures"]:
        stack.enter_context(adapter.DEPARTURES[name]())
    adapter.quantize(side["job"])
