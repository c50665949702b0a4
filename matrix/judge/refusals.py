"""Which failures are refusals: an upstream package says that it does not do this, by design. Pure.

A refusal is recognised by a rule of the spec (``[refusals.*]``), in what was observed: by the
package that is installed, the exception's type, where it was raised, and how its message begins.
All four must fit, so that the same words in another package's error, or quoted in a longer one, are
no refusal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from matrix.pipeline.outcomes import Outcome, Reason, StageResult
from matrix.pipeline.steps import Stage
from matrix.spec.tables import RefusalTable
from matrix.store.observations import Observation

_WORDS_CHARS = 300
_FRAME = re.compile(r'^  File "([^"\n]{1,1000})", line \d{1,9}, in ', re.MULTILINE)


def classify_refusal(
    stage: Stage,
    observation: Observation,
    installed: Mapping[str, str],
    rules: Mapping[str, RefusalTable],
) -> StageResult:
    """Return a stage's result by what was observed: ``unsupported`` where a rule (by its name) says
    that the exception is a refusal. ``installed``: distribution -> version where the step ran."""
    outcome, reason, message = observation.outcome, observation.reason, observation.message
    if (outcome, reason) == (Outcome.FAILED, Reason.EXCEPTION):
        for name, rule in rules.items():
            if _fits(rule, stage, observation) and _is_installed(rule, installed):
                words = message[:_WORDS_CHARS].strip()
                refusal = f"{words} (refused by design: {name}, {rule.source})"
                return StageResult(Outcome.UNSUPPORTED, Reason.REFUSED, refusal, stage=stage)
    return StageResult(outcome, reason, message, stage=stage)


def _fits(rule: RefusalTable, stage: Stage, observation: Observation) -> bool:
    kind = observation.exception.rpartition(".")[2]
    frames = _FRAME.findall(observation.traceback)
    # Each ``*`` in the rule's text stands for one word.
    beginning = r"\S{1,100}".join(map(re.escape, rule.text.split("*")))
    return (
        stage in rule.stages
        and kind == rule.exception
        and bool(frames and f"/site-packages/{rule.raised_in}" in frames[-1])
        and re.match(beginning, observation.message.removeprefix(f"{kind}: ")) is not None
    )


def _is_installed(rule: RefusalTable, installed: Mapping[str, str]) -> bool:
    wanted = {canonicalize_name(name) for name in rule.packages}
    versions = [v for name, v in installed.items() if canonicalize_name(name) in wanted]
    try:
        return any(SpecifierSet(rule.versions).contains(v, prereleases=True) for v in versions)
    except InvalidVersion:
        return False  # nothing is known of such a release
