"""``matrix doctor``: what this machine has for a profile's run, and what each lack means."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import typer

from matrix.cli.options import (
    LINE_CHARS,
    Format,
    FormatOption,
    Profile,
    Spec,
    StoreFolder,
    as_json,
)
from matrix.cli.showing import Row, show
from matrix.environments.uv import uv_environ, uv_settings
from matrix.index.settings import index_settings, shown
from matrix.machine.hardware import environments_at_once
from matrix.run.beforehand import disk_needed, more_room
from matrix.run.context import Context, Settings
from matrix.run.estimates import estimate, existing
from matrix.run.readiness import Aspect, Facts, IndexReply, Room, State, aspects
from matrix.untrusted.text import counted, visible

UV_SECONDS = 30
INDEX_SECONDS, INDEX_MEGABYTES = 15.0, 16.0
RESTRICTION = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
PROJECT = "pip"
"""A project that every index has, and whose page is small."""


class Diagnosis(msgspec.Struct, frozen=True):
    """All that the command shows."""

    schema: int
    profile: str
    aspects: list[Aspect]


def doctor(
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say what this machine has for a run of a profile, and what each lack means and what helps.

    The index is asked once; nothing is built, and nothing of a package is run. Status 0 where a run
    can begin, whatever it has to do without; 1 where something stops it.
    """
    settings = Settings.of(spec=spec, profile=profile, store=store)
    context = Context(settings)
    required = (settings.sandbox or context.loaded.spec.sandbox) == "required"
    if required:  # and not there, it is to be told with all the rest
        context = Context(msgspec.structs.replace(settings, sandbox="auto"))
    facts = facts_of(context, sandbox_required=required)
    diagnosis = Diagnosis(1, context.plan.profile, aspects(facts))
    if output is Format.JSON:
        typer.echo(as_json(diagnosis, indent=2))
    else:
        show(lines(diagnosis))
    if any(aspect.state is State.STOP for aspect in diagnosis.aspects):
        raise typer.Exit(1)


def lines(diagnosis: Diagnosis) -> Iterator[str]:
    """Yield what a person reads: a row for each aspect, then what each lack means."""
    for aspect in diagnosis.aspects:
        here = visible(aspect.here, LINE_CHARS)
        yield Row(f"{aspect.state:5} {aspect.name}: {here}", aspect.state, aspect.name, here)
    lacks = [aspect for aspect in diagnosis.aspects if aspect.state is not State.OK]
    for aspect in lacks:
        yield ""
        yield visible(f"{aspect.name}: {aspect.means}", LINE_CHARS)
        yield visible(f"what to do: {aspect.remedy}", LINE_CHARS)
    stops = [aspect.name for aspect in lacks if aspect.state is State.STOP]
    yield ""
    if stops:
        yield f"A run of profile {diagnosis.profile} is stopped by: {', '.join(stops)}."
    else:
        less = f", with {counted(len(lacks), 'lack')}" if lacks else ""
        yield f"A run of profile {diagnosis.profile} can begin{less}."


def facts_of(
    context: Context, host: Mapping[str, str] = os.environ, *, sandbox_required: bool
) -> Facts:
    """Return the facts of this machine and of an opened profile. Asks the kernel, uv, the index."""
    plan, sandbox = context.plan, context.sandbox
    environments = plan.environments
    memory_mb = context.loaded.spec.limits.load.memory_mb
    settings = uv_settings(host, installing=True)
    with TemporaryDirectory(prefix="matrix-doctor-") as home:
        environ = uv_environ(host, Path(home), installing=True)
        version = _uv(["--version"], environ)
        wanted = sorted({environment.python for environment in environments.values()})
        pythons = {python: bool(_uv(["python", "find", python], environ)) for python in wanted}
    unmet = Counter(cell.unmet for cell in plan.cells if cell.unmet and cell.exclusion is None)
    on_gpus = {name for name, environment in environments.items() if environment.device == "cuda"}
    return Facts(
        profile=plan.profile,
        cells=len(plan.cells),
        isolation=sandbox.isolation,
        sandbox_lack=sandbox.lack,
        sandbox_required=sandbox_required,
        userns_restricted=_number(RESTRICTION) == 1,
        root=os.geteuid() == 0,
        rooms=_rooms(context, Path(settings["UV_CACHE_DIR"]), host),
        machine=context.machine,
        memory_limit=_memory_limit(),
        memory_mb=memory_mb,
        at_once=environments_at_once(memory_mb),
        unmet=unmet,
        gpu_cells=sum(cell.engine.environment in on_gpus for cell in plan.cells),
        shared_memory=_bytes_of(Path("/dev/shm")),
        uv=version,
        pythons=pythons,
        downloads=host.get("UV_PYTHON_DOWNLOADS", "automatic") == "automatic",
        index=_ask_index(host),
    )  # fmt: skip


def _rooms(context: Context, cache: Path, host: Mapping[str, str]) -> list[Room]:
    """Return what a run still writes to the file systems of the store and of uv's cache."""
    expected = estimate(context, host)
    needed = disk_needed(expected, expected.unfinished, context.settings.store, cache)
    rooms = []
    for folder, size in needed.items():
        free, is_cache = shutil.disk_usage(existing(folder)).free, folder == cache
        name = "uv's cache" if is_cache else "the store"
        remedy = more_room(free, is_cache=is_cache, is_linked=expected.linked)
        rooms.append(Room(name, size, free, remedy))
    return rooms


def _uv(arguments: list[str], environ: Mapping[str, str]) -> str:
    """Return what uv prints, empty where it does not end well."""
    from uv import find_uv_bin

    try:
        done = subprocess.run(
            [find_uv_bin(), *arguments], env=dict(environ), capture_output=True,
            text=True, errors="replace", timeout=UV_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _ask_index(host: Mapping[str, str]) -> IndexReply:
    """Return what the index says to one request, which is bounded."""
    from matrix.index.fetching import Fetcher, FetchError, Limits, NotFoundError, in_parallel

    settings = index_settings(host)
    address = shown(settings.default)
    if settings.offline or settings.no_index:
        return IndexReply(address, offline=True)
    fetcher = Fetcher(settings.certificates, Limits(INDEX_SECONDS, INDEX_MEGABYTES))
    page = f"{settings.default.rstrip('/')}/{PROJECT}/"
    reply = in_parallel(fetcher.get, [page], INDEX_SECONDS)[page]
    match reply:
        case NotFoundError():
            return IndexReply(address)  # one of its own projects alone is an index too
        case FetchError():
            return IndexReply(address, trouble=str(reply))
    return IndexReply(address, seconds_ahead=seconds_ahead(reply.date, datetime.now(UTC)))


def seconds_ahead(date: str, now: datetime) -> float | None:
    """Return how far a time is ahead of a server's ``Date``; ``None`` where that cannot be read."""
    try:
        there = parsedate_to_datetime(date)
    except (ValueError, IndexError, OverflowError):
        return None
    return (now - there.replace(tzinfo=there.tzinfo or UTC)).total_seconds()


def _memory_limit() -> int | None:
    """Return the lowest limit of the control groups that this process is in (version 2)."""
    root = Path("/sys/fs/cgroup")
    try:
        group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    except OSError:
        return None
    places: Iterable[Path] = (root / group, *(root / group).parents)
    limits = [_number(place / "memory.max") for place in places if place.is_relative_to(root)]
    return min((limit for limit in limits if limit is not None), default=None)


def _number(file: Path) -> int | None:
    """Return the number in one of the kernel's files; ``None`` where there is none."""
    with suppress(OSError, ValueError):
        return int(file.read_text())
    return None


def _bytes_of(folder: Path) -> int | None:
    """Return how large the file system of a folder is; ``None`` where it is not there."""
    with suppress(OSError):
        return shutil.disk_usage(folder).total
    return None
