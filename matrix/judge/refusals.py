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
    result: StageResult,
    observation: Observation,
    installed: Mapping[str, str],
    rules: Mapping[str, RefusalTable],
) -> StageResult:
    """Return a stage's result: ``unsupported`` where a rule says that its exception is a refusal.

    Args:
        result: The stage's result by what was observed.
        observation: What was observed.
        installed: Distribution -> version in the environment in which the step ran.
        rules: Name -> rule.
    """
    if (result.outcome, result.reason) != (Outcome.FAILED, Reason.EXCEPTION):
        return result
    for name, rule in rules.items():
        if _fits(rule, result.stage, observation) and _is_installed(rule, installed):
            words = observation.message[:_WORDS_CHARS].strip()
            message = f"{words} (refused by design: {name}, {rule.source})"
            return StageResult(Outcome.UNSUPPORTED, Reason.REFUSED, message, stage=result.stage)
    return result


def _fits(rule: RefusalTable, stage: Stage, observation: Observation) -> bool:
    kind = observation.exception.rpartition(".")[2]
    frames = _FRAME.findall(observation.traceback)
    return (
        stage in rule.stages
        and kind == rule.exception
        and bool(frames and f"/site-packages/{rule.raised_in}" in frames[-1])
        and _begins(rule.text, observation.message.removeprefix(f"{kind}: "))
    )


def _begins(text: str, message: str) -> bool:
    """Whether a message begins with a text in which each ``*`` stands for one word."""
    pattern = r"\S{1,100}".join(map(re.escape, text.split("*")))
    return re.match(pattern, message) is not None


def _is_installed(rule: RefusalTable, installed: Mapping[str, str]) -> bool:
    wanted = {canonicalize_name(name) for name in rule.packages}
    versions = [v for name, v in installed.items() if canonicalize_name(name) in wanted]
    try:
        return any(SpecifierSet(rule.versions).contains(v, prereleases=True) for v in versions)
    except InvalidVersion:
        return False  # nothing is known of such a release
