"""Examples of each command, which stand below its help. Tests parse them all."""

from __future__ import annotations

from typing import Final

_VLLM = "twin-tied/awq-4bit-g64/autoawq-0.2.7+transformers-4.47.1/vllm-0.32.0"
_ENGINE = "twin-tied/awq-4bit-g64/autoawq-0.2.7+transformers-4.47.1/transformers-4.51.3"

EXAMPLES: Final[dict[str, dict[str, str]]] = {
    "plan": {
        "matrix plan": "what the default profile holds, and is predicted to take",
        "matrix plan --profile smoke --cells": "with its environments and cells, by their ids",
        "matrix plan --minutes 30": "which cells half an hour is best spent on",
    },
}


def examples_of(command: str) -> str:
    """Return a command's examples as paragraphs of its help."""
    lines = [f"{line}  # {what}" for line, what in EXAMPLES.get(command, {}).items()]
    return "\n\n".join(["Examples:", *lines])
