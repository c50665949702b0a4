"""Examples of each command, which stand below its help. A test parses them all."""

from __future__ import annotations

from typing import Final

_MADE = "twin-tied/awq-4bit-g64/autoawq-0.2.7"
_VLLM = f"{_MADE}+transformers-4.47.1/vllm-0.32.0"
_NEWER = f"{_MADE}.post3+transformers-4.47.1/vllm-0.32.0"

EXAMPLES: Final[dict[str, dict[str, str]]] = {
    "doctor": {
        "matrix doctor": "sandbox, disk, memory, CPU, GPUs, uv, index and clock",
        "matrix doctor --profile gpu --format json": "for another profile, for programs",
    },
    "plan": {
        "matrix plan": "what the default profile holds, and is predicted to take",
        "matrix plan --profile smoke --cells": "with its environments and cells, by their ids",
        "matrix plan --minutes 30": "which cells half an hour is best spent on",
    },
    "run": {
        "matrix run": "all of the default profile",
        f"matrix run {_VLLM}": "one cell, which is shown, and shown again where it is done",
        "matrix run 'twin-tied/*/autoawq-0.2.7*/vllm-*'": "all cells that a pattern names",
        "matrix run --environment 'vllm-*' --environment twins": "what some environments do",
        "matrix run --minutes 30": "what half an hour buys",
    },
    "report": {
        "matrix report": "reports/index.html, and the files beside it",
        "matrix report --fail-on garbage --fail-on broken": "status 1 where such a cell is",
        "matrix report --light copy": "and a copy of what it is made of, some MB",
        "matrix report --from-light copy": "the same report, on another machine",
    },
    "diff": {
        "matrix diff": "the last run beside the one before it",
        "matrix diff 2026-11-29 2026-11-30 --cells": "two days, cell by cell",
        "matrix diff --fail-on regressed": "status 1 where something works no more",
    },
    "advise": {
        "matrix advise --model path/to/model --method awq": "what quantizes it, and what reads it",
        "matrix advise --model twin-tied --method gptq --engine vllm --out files": "with locks",
    },
    "blame": {
        f"matrix blame {_VLLM}": "which of its two sides it is",
        f"matrix blame {_VLLM} --format json": "the same for programs",
    },
    "culprit": {
        f"matrix culprit {_NEWER} {_VLLM}": "the release between the two that made it bad",
        f"matrix culprit good.txt bad.txt --cell {_VLLM}": "the pins of two locks that do",
    },
    "explain": {
        "matrix explain log.txt --with autoawq==0.2.7": "what went wrong, by what was installed",
        "python quantize.py 2>&1 | matrix explain": "of what a command prints",
    },
    "inspect": {
        "matrix inspect path/to/checkpoint": "what is wrong with its files",
        "matrix inspect checkpoint --original model --engine vllm==0.32.0": "and its float model",
    },
    "repair": {
        "matrix repair checkpoint --out repaired": "all repairs that every reader needs",
        "matrix repair checkpoint --out repaired --for transformers==4.51.3": "and this reader",
    },
    "issues": {
        "matrix issues": "all known issues",
        "matrix issues tied": "those with the word in them",
        "matrix issues awq-tied-embedding-dropped": "one of them: its cause, its fix, its sources",
    },
    "specifiers": {
        "matrix specifiers --package autoawq": "which transformers its releases go with",
        "matrix specifiers --format constraints --package autoawq==0.2.9": "for pip or uv",
    },
    "releases": {
        "matrix releases": "what is new on the index",
        "matrix releases --take": "and have it in the spec's snapshot",
    },
    "formats": {
        "matrix formats": "all of them, those most read first",
        "matrix formats gguf": "since when, until when, and what became of it",
        "matrix formats --take": "with the releases that are new on the index",
    },
    "resolve": {
        "matrix resolve --profile smoke": "whether uv finds its environments, then and today",
        "matrix resolve --resolution today --format json": "as of today alone, for programs",
    },
    "pairs": {
        "matrix pairs llmcompressor": "what its releases can stand beside, and what stands against",
        "matrix pairs --take": "ask uv of what is new in the snapshot, and keep its answers",
    },
    "lock": {
        "matrix lock --profile smoke": "the locks that it lacks",
    },
    "verify": {
        "matrix verify": "whether the store is what was written to it",
        "matrix verify --remove": "and take away what is not, so that it is made again",
    },
    "clean": {
        "matrix clean": "what could be removed; nothing is",
        "matrix clean --checkpoints": "remove checkpoints and models; they are made again",
    },
}
"""Command -> its examples, each with what it does."""


def examples_of(command: str) -> str:
    """Return a command's examples as paragraphs of its help."""
    lines = [f"{line}  # {what}" for line, what in EXAMPLES[command].items()]
    return "\n\n".join(["Examples:", *lines])
