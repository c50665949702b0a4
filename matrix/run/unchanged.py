"""Whether the report that lies there says what a new one would, so that none need be made.

Where a report was written, the store notes what it was made of, as a digest, with the marks of its
files and its summary. Light to import, as the noxfile does.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from matrix.checks.evidence import Reference
from matrix.plan.cell_steps import build_of
from matrix.run.context import Context
from matrix.spec.loading import PACKAGE
from matrix.spec.methods import methods_of
from matrix.spec.pairs import pairs_of
from matrix.store.identity import code_digest, digest
from matrix.store.observations import Observation
from matrix.store.sealing import unseal
from matrix.store.store import write_json
from matrix.untrusted.reading import UnreadableError, decode, read_file

MAX_NOTE_BYTES = 10_000_000


class Note(msgspec.Struct, frozen=True):
    """What is noted of a report that was written."""

    digest: str
    files: dict[str, tuple[int, int]]
    """Name -> bytes, and when it was changed, in nanoseconds."""
    summary: str
    """The lines that were printed."""


def note_report(context: Context, digest: str, files: Iterable[str], summary: str) -> None:
    """Note that a report was written: its files by name, and its digest from before it was made."""
    marks = {name: _mark(context.settings.reports / name) for name in files}
    with suppress(OSError):  # the report is there; without a note it is made again
        write_json(_place(context), Note(digest, marks, summary))


def unchanged_summary(context: Context) -> str | None:
    """Return the summary of the report that lies there; ``None`` where a new one may differ."""
    try:
        note = decode(unseal(read_file(_place(context), MAX_NOTE_BYTES)), Note)
        marks = {name: _mark(context.settings.reports / name) for name in note.files}
    except (OSError, UnreadableError, ValueError):  # damaged, or a name that no file can have
        return None
    same = marks == note.files and note.digest == digest_of_report(context)
    return note.summary if same else None


def digest_of_report(context: Context, package: Path = PACKAGE) -> str:
    """Return a digest of all that a profile's report is made of: what is judged, and what judges.

    Args:
        context: The profile, with all its cells.
        package: The folder of the code that judges and shows it.
    """
    loaded, settings = context.loaded, context.settings
    resolutions = [e for name in context.plan.environments for e in loaded.resolutions(name)]
    templates = sorted(path for path in package.rglob("templates/*") if path.is_file())
    return digest(
        [
            [settings.profile, str(settings.spec), str(settings.reports.resolve())],
            [loaded.spec, loaded.snapshot, context.machine],
            [methods_of(loaded.file), pairs_of(loaded.file)],
            [code_digest(package), [path.read_text(encoding="utf-8") for path in templates]],
            Path(sysconfig.get_path("purelib")).stat().st_mtime_ns,  # packages come and go there
            [context.lock(environment) for environment in resolutions],
            dict(_observed(context)),
            context.store.segments(),  # evidence of other machines stands beside this one's
            list(_models(context)),
        ]
    )


def _observed(context: Context) -> Iterator[tuple[str, Observation | None]]:
    """Give what was observed of each step of the profile, by key."""
    judge = context.fresh_judge()
    for cell in context.plan.cells:
        for key in judge.keys_of(cell).values():
            if key is not None:
                yield key.value, context.keys.observed(key)


def _models(context: Context) -> Iterator[tuple[Observation | None, Reference | None]]:
    """Give how each model was built, and the float model's own answers."""
    for model in context.plan.models:
        key = context.keys.of(build_of(model))
        yield context.keys.observed(key), context.store.reference(key.value) if key else None


def _mark(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _place(context: Context) -> Path:
    return context.store.path("report.json")
