"""Checks of the ``load`` stage."""

from __future__ import annotations

import re
from functools import partial

from matrix.checks.evidence import Evidence
from matrix.outcomes import Finding, Judgement, Stage

_finding = partial(Finding, stage=Stage.LOAD)

# transformers 4: "Some weights of X were not initialized from the model checkpoint at Y and are
# newly initialized: ['a', 'b']". transformers 5 prints a table with one key a row:
# "model.layers.{0, 1}.mlp.bias | MISSING | |" (transformers/utils/loading_report.py, 5.23.0).
_NEWLY_INITIALIZED = re.compile(r"newly initialized[^\[]{0,200}(\[[^\]]{0,20000})")
_ROW = re.compile(r"^\s*(\S[^|\n]{0,500}?)\s*\|\s*(MISSING|MISMATCH|CONVERSION)\b", re.MULTILINE)
_NAME = re.compile(r"'([^']{1,500})'")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def load_warnings(evidence: Evidence) -> Finding:
    """No weight of the model was missing, so that the engine made one up.

    Protects from random weights behind a warning nobody reads (known issue gptq-bias-newly-init).
    The reverse, weights in the file that the model does not use, is harmless (gptq-bias-unused),
    and so is a missing head of a tied model. All warnings are kept with the observation.
    Value: weights made up.
    """
    say = partial(_finding, "load-warnings")
    if evidence.load is None:
        return say(judgement=Judgement.NOT_APPLICABLE, message="not loaded")
    names = sorted(
        name
        for warning in evidence.load.warnings
        for name in _made_up(warning)
        if not (evidence.tied and name == "lm_head.weight")
    )
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        message = f"made up by the engine: {shown}"
        return say(judgement=Judgement.FAILED, value=len(names), threshold=0, message=message)
    count = len(evidence.load.warnings)
    message = f"{count} warnings kept, none of them of missing weights" if count else ""
    return say(judgement=Judgement.PASSED, value=0, threshold=0, message=message)


def _made_up(warning: str) -> set[str]:
    """Return the weights that a warning says were missing, of another shape or not converted."""
    text = _COLOUR.sub("", warning)
    names = {name for found in _NEWLY_INITIALIZED.findall(text) for name in _NAME.findall(found)}
    return names | {name for name, _ in _ROW.findall(text)}
