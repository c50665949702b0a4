"""Environments that are resolved and installed, each ending as one observation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from filelock import FileLock

from matrix.environments import bytecode, locks, virtualenvs
from matrix.environments.locks import Lock
from matrix.pipeline.ends import End
from matrix.pipeline.outcomes import PASSED, Conclusion, Outcome, Reason
from matrix.plan.cell_steps import PlannedStep, install_of
from matrix.plan.cells import Role
from matrix.plan.keys import Key
from matrix.run.workspace import Workspace
from matrix.spec.tables import Environment
from matrix.store.observations import Observation

TRIES = 2
"""How often trouble of the network or the machine is met with another try."""


def resolve(workspace: Workspace, step: PlannedStep, key: Key) -> Observation:
    """Read an environment's lock, or have uv make it; return what came of it."""
    environment = workspace.plan.environments[step.environment]
    lock, conclusion, end = workspace.lock(environment), PASSED, End()
    if lock is None:
        own = locks.own_name(environment)
        # Another environment may be asked the same at the same time: the first answer holds.
        with FileLock(workspace.store.path("environments", f"{own}.lock")):
            lock = workspace.lock(environment)
            for _ in range(TRIES):
                if lock is None:
                    lock, conclusion, end = make_lock(workspace, environment)
                    if lock is not None:
                        locks.keep_lock(workspace.store.path("locks", own), lock)
    if lock is None:
        return workspace.keep(key, conclusion, end)
    refused = Conclusion(Outcome.FAILED, Reason.UNRESOLVABLE, lock.refusal)
    key = workspace.keys.of(step) or key  # which names the lock that there is now
    conclusion = refused if lock.refusal else PASSED
    return workspace.keep(key, conclusion, end, facts={"lock": lock.digest})


def make_lock(
    workspace: Workspace, environment: Environment
) -> tuple[Lock | None, Conclusion, End]:
    """Have uv make a lock, in a folder of its own."""
    with workspace.work("lock") as work:
        limits = workspace.limits.resolve
        return locks.make_lock(environment, work, workspace.host, limits, workspace.sandbox)


def install(workspace: Workspace, step: PlannedStep, key: Key) -> Observation:
    """Have the virtualenv built where it is not; return what came of it, now or before.

    An environment whose failure to install was observed before is not tried again.
    """
    environment = workspace.plan.environments[step.environment]
    before = workspace.keys.observed(key)
    is_final = before is not None and before.final
    folder = workspace.folder(environment)
    built = virtualenvs.is_built(folder, key.value)
    if before is not None and is_final and (built or before.outcome is not Outcome.PASSED):
        return before
    conclusion, end, log = _build(workspace, environment)
    facts: dict[str, Any] = {}
    if conclusion.outcome is Outcome.PASSED:
        facts = _installed(workspace, environment)
        virtualenvs.commit(folder, key.value)
    if before is not None and is_final:  # it was built before: how it went now is no news
        return msgspec.structs.replace(
            before, outcome=conclusion.outcome, reason=conclusion.reason, message=conclusion.message
        )
    return workspace.keep(key, conclusion, end, facts=facts, log=log)


def make_ready(workspace: Workspace, role: Role, tell: Callable[[str], None]) -> Observation | None:
    """Return how a role's environment was installed; build it where it was removed or changed.

    One in which nothing has run gets the bytecode of others. What has run there may have turned
    its folders into links. ``None`` where there is nothing to build.
    """
    step = install_of(role.environment)
    key = workspace.keys.of(step)
    if key is None:
        return None
    folder = workspace.folder(workspace.plan.environments[role.environment])
    if virtualenvs.is_built(folder, key.value) and not virtualenvs.is_unchanged(folder):
        tell(f"{role.environment}: its files changed since it was installed, so it is made again")
        virtualenvs.discard(folder)
    installed = install(workspace, step, key)
    if installed.outcome is Outcome.PASSED and not (folder / "home").exists():
        bytecode.adopt(folder, workspace.store.path("bytecode"))
    return installed


def _build(workspace: Workspace, environment: Environment) -> tuple[Conclusion, End, str]:
    lock, folder = workspace.lock(environment), workspace.folder(environment)
    conclusion, end, log = (
        Conclusion(Outcome.INFRA, Reason.NOT_RUN, "its lock was removed"),
        End(),
        "",
    )
    for _ in range(TRIES):
        if lock is None:
            break
        with workspace.work("install") as work:
            conclusion, end, log = virtualenvs.build(
                environment, lock, folder, work, workspace.store.path("wheels", "x").parent,
                workspace.host, workspace.limits.install, workspace.sandbox,
            )  # fmt: skip
        if conclusion.outcome is not Outcome.INFRA:
            break
    return conclusion, end, log


def _installed(workspace: Workspace, environment: Environment) -> dict[str, Any]:
    folder = workspace.folder(environment)
    versions = virtualenvs.installed(folder)
    return {
        "python": virtualenvs.python_version(folder),
        "torch": versions.get("torch", ""),
        "versions": versions,
    }
