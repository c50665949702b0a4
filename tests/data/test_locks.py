"""Each environment of these profiles has a lock that answers it, and no lock is left over.

A version that is added to the spec fails here until ``matrix lock`` has made its locks.
"""

from __future__ import annotations

import re

import pytest

from matrix.environments.locks import committed_name, read_lock
from matrix.plan.cells import make_plan
from matrix.spec.loading import DEFAULT_SPEC, load
from matrix.spec.tables import Environment

SPEC = load()
LOCKS = DEFAULT_SPEC / "locks"
COMMITTED = [
    environment
    for name in sorted(
        {
            n
            for p in ("cpu", "real", "published", "quantizers")
            for n in make_plan(SPEC, p).environments
        }
    )
    for environment in SPEC.resolutions(name)
    if committed_name(environment)
]


@pytest.mark.parametrize("environment", COMMITTED, ids=lambda e: f"{e.name}-{e.resolution}")
def test_every_committed_lock_answers_and_is_portable(environment: Environment) -> None:
    lock = read_lock(LOCKS / committed_name(environment), environment)
    assert lock is not None, "remake it: matrix lock"
    lines = [line for line in lock.text.splitlines() if not line.startswith("#")]
    assert bool(lines) != bool(lock.refusal)
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[a-z0-9.]+", line)] == []
    assert not re.search(r"(^|[\s\"'(=])/\w|file:|://(?!docs|github)", lock.refusal)


def test_no_lock_is_left_over() -> None:
    locks = {str(file.relative_to(LOCKS)) for file in LOCKS.rglob("*.txt")}
    assert locks <= {committed_name(environment) for environment in COMMITTED}
