"""Whether uv finds a set of packages for each of many environments: asked side by side, kept.

Nothing is installed and no wheel is downloaded: uv reads what packages require. Each answer, a
refusal too, is written at once as a lock in the store, named by what was asked and as of when, and
from then on only read. Trouble of the machine or the network is no answer and is asked again by
the next run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from uv import find_uv_bin

from matrix.environments.locks import Lock, Locks, keep_lock, make_lock, own_name
from matrix.machine.sandbox import Sandbox
from matrix.machine.threads import side_by_side
from matrix.pipeline.outcomes import PASSED, Conclusion, Outcome, Reason
from matrix.spec.tables import Environment, Limits
from matrix.store.store import Store

TELL_SECONDS = 5.0
TROUBLE_IN_A_ROW = 8
"""After so many resolutions with nothing but trouble the network is gone, and no more are asked."""
_NOT_ASKED = f"not asked, since the {TROUBLE_IN_A_ROW} before it ended in trouble"


class Resolved(NamedTuple):
    """What became of one environment in one resolution; without a lock there was trouble."""

    environment: Environment
    lock: Lock | None
    conclusion: Conclusion


def resolve_all(
    environments: Iterable[Environment],
    committed: Path,
    store: Store,
    host: Mapping[str, str],
    limits: Limits,
    sandbox: Sandbox,
    tell: Callable[[str], None],
    jobs: int,
) -> Iterator[Resolved]:
    """Yield an answer for every environment: those that are kept first, then as uv gives them.

    ``committed`` is the folder of locks beside the spec. Leaving off in between loses nothing that
    was answered; what uv is just doing then ends with this process. Environments that ask the same
    are asked once. Raises :class:`OSError` where the store cannot be written.
    """
    locks = Locks(committed, store.path("locks", "any").parent)
    waiting: dict[str, list[Environment]] = {}
    for environment in environments:
        lock = locks.find(environment)
        if lock is not None:
            yield Resolved(environment, lock, conclusion_of(lock))
        else:
            waiting.setdefault(own_name(environment), []).append(environment)

    def ask(name: str) -> tuple[Lock | None, Conclusion]:
        return _ask(waiting[name][0], store, host, limits, sandbox)

    find_uv_bin()  # here first: two threads that read sysconfig for the first time fail
    trouble, tell_at = 0, time.monotonic() + TELL_SECONDS
    with closing(side_by_side(ask, list(waiting), jobs)) as answers:
        for done, (name, answer) in enumerate(answers, start=1):
            lock, ended = answer.result()
            same = waiting.pop(name)
            yield from (Resolved(environment, lock, ended) for environment in same)
            if lock is None:
                what = f"{same[0].name} as {same[0].resolution}"
                tell(f"{what}: {ended.reason}, {ended.message.strip()}")
            trouble = 0 if lock else trouble + 1
            if trouble == TROUBLE_IN_A_ROW:
                break
            if time.monotonic() >= tell_at:
                tell(f"{done} resolutions asked of uv, {len(waiting)} to go")
                tell_at = time.monotonic() + TELL_SECONDS
    for environment in (environment for same in waiting.values() for environment in same):
        yield Resolved(environment, None, Conclusion(Outcome.INFRA, Reason.NETWORK, _NOT_ASKED))


def _ask(
    environment: Environment,
    store: Store,
    host: Mapping[str, str],
    limits: Limits,
    sandbox: Sandbox,
) -> tuple[Lock | None, Conclusion]:
    """Have uv resolve an environment, and keep the lock that it gives; trouble gives none."""
    with store.work("lock") as work:
        lock, ended, _ = make_lock(environment, work, host, limits, sandbox)
    if lock is None:
        return None, ended
    keep_lock(store.path("locks", own_name(environment)), lock)
    return lock, conclusion_of(lock)


def conclusion_of(lock: Lock) -> Conclusion:
    """Return how resolving ended, as a lock keeps it."""
    if lock.refusal:
        return Conclusion(Outcome.FAILED, Reason.UNRESOLVABLE, lock.refusal)
    return PASSED
