"""What steps are performed with, and how their ends are kept: one observation for each."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matrix.index.hub import revisions_of
from matrix.machine.processes import hide_from_siblings
from matrix.machine.sandbox import Isolation
from matrix.pipeline.ends import End, StepResult
from matrix.pipeline.outcomes import Conclusion, Outcome
from matrix.pipeline.steps import Step
from matrix.plan.keys import Key
from matrix.run.context import Context
from matrix.spec.loading import PACKAGE
from matrix.spec.tables import Environment
from matrix.store.observations import Observation


class Workspace:
    """An opened profile that is worked on, with the host's variables and the clock.

    ``tell`` is given a line for each thing of the store that is not as it was left.
    """

    def __init__(
        self,
        context: Context,
        host: Mapping[str, str] = os.environ,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.tell = tell
        self.plan = context.plan
        self.loaded = context.loaded
        self.limits = context.loaded.spec.limits
        self.store = context.store
        self.keys = context.keys
        self.lock = context.lock
        self.host = host
        self.machine = context.machine
        self.sandbox = context.sandbox
        if self.sandbox.isolation is Isolation.NONE:
            hide_from_siblings()  # it has the user's tokens, and packages are about to run
        self.revisions = revisions_of(context.loaded.folder, context.store, host, now)
        self._now = now

    def work(self, kind: str) -> AbstractContextManager[Path]:
        """Give a fresh folder that goes away afterwards."""
        return self.store.work(kind)

    def folder(self, environment: Environment) -> Path:
        """Return where an environment's virtualenv lies."""
        return self.store.path("environments", environment.name)

    def keep(
        self,
        key: Key,
        conclusion: Conclusion,
        end: End,
        *,
        result: StepResult | None = None,
        facts: Mapping[str, Any] | None = None,
        log: str = "",
        attempt: int = 1,
    ) -> Observation:
        """Make one observation of how a step ended."""
        exception = result.exception if result else None
        plain = self._without_paths
        wants_log = conclusion.outcome is not Outcome.PASSED or key.step is Step.LOAD
        observation = Observation(
            key=key.value,
            inputs=key.inputs,
            step=key.step,
            subject=key.subject,
            outcome=conclusion.outcome,
            reason=conclusion.reason,
            message=plain(conclusion.message),
            exception=exception.type if exception else "",
            traceback=plain(exception.traceback if exception else ""),
            warnings=[plain(warning) for warning in result.warnings] if result else [],
            facts=dict(facts or {}),
            departures=key.departures,
            device=str(key.inputs.get("device", "cpu")),
            machine=self.machine.facts(),
            sandbox=self.sandbox.isolation,
            seconds=round(end.seconds, 3),
            peak_bytes=max(end.peak_bytes, result.peak_rss_bytes if result else 0),
            log=plain(log) if wants_log else "",
            run=self.store.run,
            attempt=attempt,
            at=self._now().isoformat(timespec="milliseconds"),
        )
        self.store.keep(observation)
        return observation

    def _without_paths(self, text: str) -> str:
        """Return a text in which this machine's folders have names, so that it reads the same
        wherever it was observed."""
        environments_root = re.escape(str(self.store.root / "environments"))
        text = re.sub(rf"{environments_root}/[^/\s]+", "<environment>", text)
        for name, folder in (
            ("<store>", self.store.root),
            ("<repository>", PACKAGE.parent),  # or the site-packages it is installed in
            ("<python>", Path(sys.base_prefix)),
        ):
            text = text.replace(str(folder), name)
        return text
