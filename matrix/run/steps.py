"""Each step performed for real, ending as one observation in the store."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from matrix.checkpoint.files import CheckpointFiles
from matrix.checkpoint.inspection import CheckpointError, Inspection
from matrix.checkpoint.shapes import indivisible, linear_shapes
from matrix.checks.evidence import EvidenceError, Reference
from matrix.environments import bytecode, locks, virtualenvs
from matrix.environments.locks import Lock, Locks
from matrix.index.hub import RevisionError, revisions_of
from matrix.judge.builds import builds_of
from matrix.judge.missing import judge_missing, read_missing
from matrix.machine import processor
from matrix.machine.hardware import Machine, detect
from matrix.machine.processes import child_environ, run
from matrix.outcomes import Outcome, Reason
from matrix.plan.cells import Cell, Checkpoint, Role
from matrix.plan.keys import Key, Keys
from matrix.plan.needs import with_room
from matrix.run.probes import Answer
from matrix.spec.loading import LoadedSpec
from matrix.spec.tables import Environment
from matrix.store.observations import (
    End,
    Judged,
    Observation,
    StepResult,
    judge_device,
    judge_end,
)
from matrix.store.store import Store, reference_in, write_atomically
from matrix.untrusted.reading import UnreadableError, decode

REPOSITORY = Path(__file__).parents[2]
TRIES = 2
"""How often trouble of the network or the machine is met with another try."""


class Steps:
    """Performs steps and keeps what they left. The host's environment and clock are passed in."""

    def __init__(
        self,
        loaded: LoadedSpec,
        store: Store,
        keys: Keys,
        host: Mapping[str, str],
        now: Callable[[], datetime],
        machine: Machine | None = None,
    ) -> None:
        self.loaded = loaded
        self.limits = loaded.spec.limits
        self.store = store
        self.keys = keys
        self._locks = Locks(loaded.file.parent / "locks", store.root / "locks")
        self._host = host
        self._now = now
        self.machine = machine or detect()
        self.revisions = revisions_of(loaded.file, store, host, now)

    def work(self, kind: str) -> AbstractContextManager[Path]:
        """Give a fresh folder that goes away afterwards."""
        return self.store.work(kind)

    def keep(
        self,
        key: Key,
        judged: Judged,
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
        observation = Observation(
            key=key.value,
            inputs=key.inputs,
            step=key.step,
            subject=key.subject,
            outcome=judged.outcome,
            reason=judged.reason,
            message=plain(judged.message),
            exception=exception.type if exception else "",
            traceback=plain(exception.traceback if exception else ""),
            warnings=[plain(warning) for warning in result.warnings] if result else [],
            facts=dict(facts or {}),
            departures=key.departures,
            device=str(key.inputs.get("device", "cpu")),
            machine=self.machine.facts(),
            seconds=round(end.seconds, 3),
            peak_bytes=max(end.peak_bytes, result.peak_rss_bytes if result else 0),
            log="" if judged.outcome is Outcome.PASSED and key.step != "load" else plain(log),
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
            ("<repository>", REPOSITORY),
            ("<python>", Path(sys.base_prefix)),
        ):
            text = text.replace(str(folder), name)
        return text

    def resolve(self, environment: Environment) -> Observation:
        """Read the lock, or have uv make it."""
        lock = self._locks.find(environment)
        if lock is not None:
            return self._resolved(environment, lock, End())
        judged, end = Judged(Outcome.INFRA), End()
        for _ in range(TRIES):
            lock, judged, end = self.make_lock(environment)
            if lock is not None:
                own = self.store.path("locks", locks.own_name(environment))
                write_atomically(own, lock.text.encode())
                return self._resolved(environment, lock, end)
        return self.keep(self.keys.resolve(environment.name), judged, end)

    def _resolved(self, environment: Environment, lock: Lock, end: End) -> Observation:
        key = self.keys.resolve(environment.name)
        judged = Judged(Outcome.PASSED)
        if lock.refusal:
            judged = Judged(Outcome.FAILED, Reason.UNRESOLVABLE, lock.refusal)
        return self.keep(key, judged, end, facts={"lock": lock.digest})

    def make_lock(self, environment: Environment) -> tuple[Lock | None, Judged, End]:
        """Ask uv for a lock, in a folder of its own."""
        with self.work("lock") as work:
            return locks.make_lock(environment, work, self._host, self.limits.resolve)

    def folder(self, environment: Environment) -> Path:
        """Return where an environment's virtualenv lies."""
        return self.store.path("environments", environment.name)

    def install(self, environment: Environment) -> Observation | None:
        """Have the virtualenv built where it is not; ``None`` where there is nothing to build.

        An environment whose failure to install was observed before is not tried again.
        """
        key = self.keys.install(environment.name)
        if key is None:
            return None
        known = self.keys.observed(key)
        folder = self.folder(environment)
        built = virtualenvs.is_built(folder, key.value)
        if known is not None and known.final and (built or known.outcome is not Outcome.PASSED):
            return known
        lock = self._locks.find(environment)
        if lock is None:
            return None
        judged, end, log = Judged(Outcome.INFRA), End(), ""
        for _ in range(TRIES):
            with self.work("install") as work:
                judged, end, log = virtualenvs.build(
                    environment, lock, folder, work, self._host, self.limits.install
                )
            if judged.outcome is not Outcome.INFRA:
                break
        facts = self._installed(environment) if judged.outcome is Outcome.PASSED else {}
        if judged.outcome is Outcome.PASSED:
            bytecode.adopt(folder, self.store.path("bytecode"))
            virtualenvs.commit(folder, key.value)
        if known is not None and known.final:  # it was built before: how it went now is no news
            return msgspec.structs.replace(
                known, outcome=judged.outcome, reason=judged.reason, message=judged.message
            )
        return self.keep(key, judged, end, facts=facts, log=log)

    def _installed(self, environment: Environment) -> dict[str, Any]:
        folder = self.folder(environment)
        versions = virtualenvs.installed(folder)
        return {
            "python": virtualenvs.python_version(folder),
            "torch": versions.get("torch", ""),
            "versions": versions,
        }

    def judge_answer(self, answer: Answer, role: Role) -> Judged:
        """Return what a probe's answer means; of a failure, also whether only this machine lacks
        what it wanted.
        """
        judged = judge_end(answer.end, answer.result, role.needs_hardware, answer.log)
        exception = answer.result.exception if answer.result else None
        missing = read_missing(answer.end, exception, answer.log)
        if judged.outcome is not Outcome.FAILED or missing is None:
            return judged
        folder = self.folder(self.loaded.environments[role.environment])
        lacks = processor.lacking(self.machine.features)
        cpu = self.machine.instruction_set
        return judge_missing(judged, missing, builds_of(folder, missing), lacks, cpu)

    def imported(self, key: Key, answer: Answer, role: Role) -> Observation:
        """Keep how an import ended."""
        environment = self.loaded.environments[key.subject]
        judged = self.judge_answer(answer, role)
        facts = dict(answer.result.facts) if answer.result and answer.result.ok else {}
        facts.pop("versions", None)  # the install's observation has them
        judged = judge_device(judged, facts, environment.device)
        if judged.outcome is Outcome.PASSED:
            bytecode.share(self.folder(environment), self.store.path("bytecode"))
        return self.keep(key, judged, answer.end, result=answer.result, facts=facts, log=answer.log)

    def inspect(self, checkpoint: Checkpoint, key: Key) -> Observation:
        """Read a checkpoint independently, in a bounded child of the harness's own interpreter."""
        made, original = self.checkpoint_folder(checkpoint), self.model_folder(checkpoint)
        with self.work("inspect") as work:
            output = work / "inspection.json"
            argv = [
                sys.executable, "-m", "matrix.checkpoint", str(made),
                "--original", str(original / "model"), "--output", str(output),
            ]  # fmt: skip
            environ = child_environ(work / "home", {})
            limits = with_room(self.limits.inspect, checkpoint.model)
            end, log = run(argv, environ, REPOSITORY, limits)
            facts = _inspection(output)
        if facts is None:
            judged = judge_end(end, None, [], log)
        elif facts.problems:
            # Not one to give to an engine: it may be a pickle.
            judged = Judged(Outcome.FAILED, Reason.UNREADABLE, str(facts.problems[0]))
        else:
            judged = Judged(Outcome.PASSED)
        return self.keep(key, judged, end, facts=msgspec.to_builtins(facts) or {}, log=log)

    def unsettled(self, options: Mapping[str, Any], key: Key) -> Observation | None:
        """Keep, instead of a download, that the Hub does not give the commit that is meant.

        ``None`` where it does, or where nothing of the Hub is meant. It says nothing of packages,
        so the next run asks again.
        """
        try:
            self.revisions.settle(options)
        except RevisionError as error:
            return self.keep(key, Judged(Outcome.INFRA, Reason.NETWORK, str(error)), End())
        return None

    def refuse(self, checkpoint: Checkpoint, key: Key) -> Observation | None:
        """Keep, instead of a quantization, that the scheme does not fit the model's shapes.

        ``None`` where it does, or where the shapes of such a model are not known. Some quantizers
        stop at such a layer and some write a file that no engine reads (awq-group-size-multiple).
        """
        if checkpoint.scheme is None:
            return None
        size = checkpoint.scheme.group_size
        try:
            config = CheckpointFiles(self.model_folder(checkpoint) / "model").config()
        except CheckpointError:
            return None  # not one whose shapes are known; the quantizer will say what it thinks
        shapes = linear_shapes(config.facts)
        wrong = indivisible(shapes, size)
        if not wrong:
            return None
        message = (
            f"groups of {size} do not divide the {shapes[wrong[0]][1]} inputs of {wrong[0]} "
            f"({len(wrong)} such layers): choose a smaller group size, or pad the model"
        )
        judged = Judged(Outcome.UNSUPPORTED, Reason.GROUP_SIZE, message)
        return self.keep(key, judged, End())

    def is_there(self, key: Key | None) -> bool:
        """Whether the files of a model or checkpoint are there."""
        return key is not None and self.store.has_product(key.step, key.value)

    def is_done(self, key: Key, cells: Iterable[Cell]) -> bool:
        """Whether a model or checkpoint need not be made: it was observed, and is there or none of
        the cells that stand on it has anything left to do (it failed, or ``clean`` took it back).
        """
        if not self.keys.settled(key):
            return False
        return self.is_there(key) or not any(
            self.keys.unfinished(cell)
            for cell in cells
            if key.subject in (cell.checkpoint.model.name, cell.checkpoint.id)
        )

    def model_folder(self, checkpoint: Checkpoint) -> Path:
        """Return the folder of a checkpoint's float model."""
        key = self.keys.build(checkpoint.model)
        return self.store.model(key.value if key else "")

    def checkpoint_folder(self, checkpoint: Checkpoint) -> Path:
        """Return the files that an engine is given."""
        if checkpoint.scheme is None:
            return self.model_folder(checkpoint) / "model"
        key = self.keys.quantize(checkpoint)
        return self.store.checkpoint(key.value if key else "") / "checkpoint"

    def reference(self, checkpoint: Checkpoint) -> Reference:
        """Return the float model's own answers; one whose build passed has some."""
        return reference_in(self.model_folder(checkpoint))

    def publish_model(self, key: Key, output: Path) -> dict[str, Any]:
        """Make a built model visible; return what its observation says of it.

        Raises :class:`EvidenceError` where its reference cannot be read.
        """
        reference = reference_in(output)
        self.store.publish(output, "models", key.value)
        return {"tensors_sha256": reference.tensors_sha256}

    def publish_checkpoint(self, key: Key, output: Path) -> dict[str, Any]:
        """Make a checkpoint visible, with its provenance beside it."""
        whole = output.parent / "whole"
        whole.mkdir()
        output.replace(whole / "checkpoint")
        provenance = {"id": key.subject, "key": key.value, "inputs": key.inputs,
                      "departures": key.departures, "run": self.store.run}  # fmt: skip
        (whole / "provenance.json").write_text(json.dumps(provenance, indent=1, sort_keys=True))
        self.store.publish(whole, "checkpoints", key.value)
        return {}

    def made(
        self,
        key: Key,
        answer: Answer,
        judged: Judged,
        output: Path,
        publish: Callable[[Key, Path], dict[str, Any]],
        attempt: int,
    ) -> Observation:
        """Keep how a model or checkpoint was made; the folder counts only where that passed."""
        facts: dict[str, Any] = {}
        if judged.outcome is Outcome.PASSED:
            try:
                facts = {**(answer.result.facts if answer.result else {}), **publish(key, output)}
            except (EvidenceError, UnreadableError, FileNotFoundError) as error:
                judged = Judged(Outcome.FAILED, Reason.NO_RESULT, str(error))
        return self.keep(
            key, judged, answer.end, result=answer.result, facts=facts, log=answer.log,
            attempt=attempt,
        )  # fmt: skip


def _inspection(file: Path) -> Inspection | None:
    try:
        return decode(file.read_bytes(), Inspection)
    except (OSError, UnreadableError):
        return None
