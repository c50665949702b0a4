"""Whether two releases can share an environment: asked of uv, without installing anything."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from matrix.environments.locks import Lock
from matrix.environments.resolving import Resolved
from matrix.spec.pairs import SCHEMA, Pair, Pairs, Question, Questions, Subject
from matrix.spec.tables import Environment
from matrix.spec.versions import parsed
from matrix.untrusted.text import visible

REFUSAL_CHARS = 300
_CLAUSE = re.compile(
    r"(?P<who>[a-z0-9._-]+(?:\[[a-z0-9,._-]+\])?)(?P<version>[<>=!~]\S*)? depends on "
    r"(?P<what>[a-z0-9._-]+(?:\[[a-z0-9,._-]+\])?)(?:\{[^}]*\})?(?P<bounds>[<>=!~][^\s]*[^\s,])?"
)
"""Of a sentence of uv's: ``vllm>=0.33.0 depends on torch==2.14.0``, with or without a marker."""

Resolve = Callable[[Iterable[Environment]], Iterator[Resolved]]


def answers_of(questions: Questions, as_of: str, resolve: Resolve) -> tuple[Pairs, list[str]]:
    """Return uv's answers to all questions of a spec, and what kept it from answering others.

    Args:
        questions: What is asked.
        as_of: ISO time; what was uploaded later does not exist.
        resolve: Gives the lock of each environment, in any order.
    """
    newest = questions.newest()
    locks, troubles = _locks(newest, resolve)
    refused = [q for q in newest if (lock := locks.get(q.environment.name)) and lock.refusal]
    instead, more = _newest_that_resolves(questions, refused, resolve)
    pairs = [
        Pair(
            q.package, q.release, q.partner, q.newest,
            refusal=clash(locks[q.environment.name].refusal),
            instead=instead.get(q.subject, ""),
        )
        for q in newest
        if q.environment.name in locks
    ]  # fmt: skip
    order = {package: place for place, package in enumerate(questions.since)}
    pairs.sort(key=lambda pair: (order[pair.package], order[pair.partner]))
    return Pairs(SCHEMA, as_of, questions.since, pairs), [*troubles, *more]


def _newest_that_resolves(
    questions: Questions, refused: Iterable[Question], resolve: Resolve
) -> tuple[dict[Subject, str], list[str]]:
    """Return subject -> the newest release of its partner that resolves, and troubles.

    What uv takes need not be the newest that would do, so it is asked again for a newer one until
    it refuses.
    """
    best: dict[Subject, str] = {}
    troubles: list[str] = []
    open_questions = list(refused)
    while open_questions:
        newer = [questions.any_newer(q, best.get(q.subject, "")) for q in open_questions]
        locks, more = _locks(newer, resolve)
        troubles += more
        open_questions = []
        for question in newer:
            lock = locks.get(question.environment.name)
            version = lock.pins.get(question.partner, "") if lock else ""
            is_stable = (release := parsed(version)) is not None and not release.is_prerelease
            if is_stable or (version and question.subject not in best):
                best[question.subject] = version
            if is_stable:
                open_questions.append(question)
    return best, troubles


def _locks(several: Iterable[Question], resolve: Resolve) -> tuple[dict[str, Lock], list[str]]:
    """Return the locks of the environments of questions by name, and a line for each trouble."""
    environments = {question.environment.name: question.environment for question in several}
    locks: dict[str, Lock] = {}
    troubles: list[str] = []
    for environment, lock, conclusion in resolve(environments.values()):
        if lock is None:
            troubles.append(f"{environment.name}: {conclusion.message.strip()}")
        else:
            locks[environment.name] = lock
    return locks, troubles


def clash(refusal: str) -> str:
    """Return in a line which requirements meet in a refusal of uv's; empty for none.

    These stand in the first sentence of its cause. Where nothing of that form is there, the
    sentence itself is returned.
    """
    text = " ".join(refusal.split())
    cause = text.partition("cause: ")[2] or text
    sentence = re.split(r", we can conclude| And because |\. ", cause, maxsplit=1)[0]
    wants = [
        f"{clause['who']} wants {clause['what']}{clause['bounds'] or ''}"
        for clause in _CLAUSE.finditer(sentence)
    ]
    return visible(", ".join(wants) or sentence.removeprefix("Because "), REFUSAL_CHARS)
