"""What a machine has for a profile's run, and what each lack means. Pure: facts in, aspects out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec

from matrix.machine.hardware import Machine, gpus_in_words
from matrix.machine.sandbox import Isolation
from matrix.plan.predictions import GB, MB
from matrix.untrusted.text import counted

SHARED_MEMORY = GB
"""Bytes of ``/dev/shm`` below which workers of a tensor-parallel engine may die, where Docker gives
64 MB. Not measured here."""
CLOCK_SECONDS = 300
"""How far a clock may be off: certificates and days of releases bear some minutes."""
_CPU_WORDS = "a CPU with"
"""Of what a cell needs (``plan/needs.py``)."""
_USERNS = (
    "let bubblewrap make user namespaces: an AppArmor profile for /usr/bin/bwrap with `userns,`, "
    "or `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` for all programs"
)


class State(StrEnum):
    """What an aspect means for a run."""

    OK = "ok"
    LACK = "lack"
    """A run goes, and loses something by it."""
    STOP = "stop"
    """No run begins, or nothing comes of it."""


class Aspect(msgspec.Struct, frozen=True):
    """One aspect of a machine: what is here, and of a lack what it means and what helps."""

    name: str
    state: State
    here: str
    means: str = ""
    remedy: str = ""


class Room(msgspec.Struct, frozen=True):
    """What is still to be written in the file system of a folder, and what is free; bytes."""

    folder: str
    needed: int
    free: int
    remedy: str


class IndexReply(msgspec.Struct, frozen=True):
    """What an index said to a single request."""

    address: str
    """Without a password."""
    trouble: str = ""
    """Why there is no answer; empty where there is one."""
    offline: bool = False
    """Whether the settings say that it is not to be asked."""
    seconds_ahead: float | None = None
    """How far our clock is before the index's; ``None`` where it does not say."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked up about a machine and a profile."""

    profile: str
    cells: int
    isolation: Isolation
    sandbox_lack: str = ""
    sandbox_required: bool = False
    userns_restricted: bool = False
    """Whether AppArmor keeps unprivileged programs from making user namespaces."""
    root: bool = False
    rooms: list[Room]
    machine: Machine
    memory_limit: int | None = None
    """Bytes that a container or a service may take; ``None`` where there is no such limit."""
    memory_mb: int
    """Of one load, by the spec's limits; 10^6 bytes."""
    at_once: int
    """How many environments are worked on side by side."""
    unmet: Mapping[str, int]
    """What cells need and this machine lacks, in words -> how many."""
    gpu_cells: int
    """How many cells are for GPUs."""
    shared_memory: int | None
    """Bytes of ``/dev/shm``; ``None`` where there is none."""
    uv: str
    """uv's version; empty where it does not start."""
    pythons: Mapping[str, bool]
    """Each Python that the profile's environments need -> whether uv finds it here."""
    downloads: bool = True
    """Whether uv may download a Python."""
    index: IndexReply


def aspects(facts: Facts) -> list[Aspect]:
    """Return the aspects of a machine, in the order in which a person asks for them."""
    return [
        _sandbox(facts), _user(facts), *map(_disk, facts.rooms), _memory(facts),
        _shared_memory(facts), _instruction_set(facts), _gpus(facts), *_uv(facts),
        _index(facts.index), _clock(facts.index),
    ]  # fmt: skip


def _sandbox(facts: Facts) -> Aspect:
    if facts.isolation is not Isolation.NONE:
        return Aspect("sandbox", State.OK, f"{facts.isolation} works")
    remedy = "apt install bubblewrap, or what has it on this system"
    if "is off" in facts.sandbox_lack:
        remedy = "leave `sandbox` out of the spec, and MATRIX_SANDBOX unset"
    elif "not installed" not in facts.sandbox_lack:
        remedy = _USERNS if facts.userns_restricted else (
            "allow unprivileged user namespaces: `sysctl -w kernel.unprivileged_userns_clone=1` "
            "where there is that setting; in a container, a seccomp profile that lets clone and "
            "mount through"
        )  # fmt: skip
    if facts.sandbox_required:
        means = "the settings require one, so no run begins"
        return Aspect("sandbox", State.STOP, facts.sandbox_lack, means, remedy)
    means = (
        "packages under test may read what you may read, change what you may change, and reach "
        "the network, and evidence says that it was made so; environments are copies, which take "
        "several times the disk"
    )
    return Aspect("sandbox", State.LACK, facts.sandbox_lack, means, remedy)


def _user(facts: Facts) -> Aspect:
    if not facts.root:
        return Aspect("user", State.OK, "not root")
    if facts.isolation is not Isolation.NONE:
        return Aspect("user", State.OK, "root, with packages under test shut in")
    means = "without a sandbox, packages under test may change everything on this machine"
    return Aspect("user", State.LACK, "root", means, "run as a user of its own")


def _disk(room: Room) -> Aspect:
    name = f"disk of {room.folder}"
    here = f"{room.free / GB:,.1f} GB free, {room.needed / GB:,.1f} GB predicted to be needed"
    if room.needed <= room.free:
        return Aspect(name, State.OK, here)
    return Aspect(name, State.STOP, here, "a run ends before it begins", room.remedy)


def _memory(facts: Facts) -> Aspect:
    wanted, memory = facts.memory_mb * MB, facts.machine.memory
    here = f"{memory / GB:,.1f} GB; each load may take {wanted / GB:,.1f} GB"
    if facts.memory_limit is not None and facts.memory_limit < memory:
        memory = facts.memory_limit
        here += f"; a limit of this container or service of {memory / GB:,.1f} GB"
    side = f"{counted(facts.at_once, 'environment')} side by side"
    fits = int(memory // wanted)
    if fits >= facts.at_once:
        return Aspect("memory", State.OK, f"{here}; {side}")
    means = f"with {side}, loads may be ended by the system, which counts as infra"
    remedy = f"`nox -j {fits}`" if fits else "more memory, or a smaller limit in the spec"
    return Aspect("memory", State.LACK, here, means, remedy)


def _shared_memory(facts: Facts) -> Aspect:
    size = facts.shared_memory
    if facts.isolation is not Isolation.NONE:
        return Aspect("/dev/shm", State.OK, "each step has one of its own, in the sandbox")
    if size is not None and size >= SHARED_MEMORY:
        return Aspect("/dev/shm", State.OK, f"{size / GB:,.1f} GB")
    here = "none" if size is None else f"{size / MB:,.0f} MB"
    means = "workers of tensor-parallel engines may die of it (SIGBUS)"
    return Aspect("/dev/shm", State.LACK, here, means, "`docker run --shm-size=4g`, or mount more")


def _instruction_set(facts: Facts) -> Aspect:
    here = facts.machine.instruction_set or "not told"
    lacking = {words: count for words, count in facts.unmet.items() if _CPU_WORDS in words}
    if not lacking:
        return Aspect("CPU", State.OK, here)
    return Aspect("CPU", State.LACK, here, _out_of_reach(lacking, facts), "a machine that has it")


def _gpus(facts: Facts) -> Aspect:
    machine = facts.machine
    here = gpus_in_words(machine.gpus) or machine.note or "none"
    if machine.driver:
        here += f"; driver {machine.driver}, CUDA {machine.cuda or 'not told'}"
    lacking = {words: count for words, count in facts.unmet.items() if _CPU_WORDS not in words}
    if lacking:
        means, remedy = _out_of_reach(lacking, facts), "a machine that has it"
        return Aspect("GPUs", State.LACK, here, means, remedy)
    if not facts.gpu_cells:
        here += f"; profile {facts.profile} asks for none"
    return Aspect("GPUs", State.OK, here)


def _out_of_reach(lacking: Mapping[str, int], facts: Facts) -> str:
    """Return how many cells cannot run here, and what most of them need."""
    first = max(lacking, key=lambda words: lacking[words])
    most = first if len(lacking) == 1 else f"{first} ({lacking[first]:,}), and others"
    return f"{sum(lacking.values()):,} of {counted(facts.cells, 'cell')} are untested here: {most}"


def _uv(facts: Facts) -> Iterator[Aspect]:
    if not facts.uv:
        means, remedy = "no environment can be made", "install the project again: it brings uv"
        yield Aspect("uv", State.STOP, "does not start", means, remedy)
        return
    yield Aspect("uv", State.OK, facts.uv)
    here = ", ".join(version for version, is_here in facts.pythons.items() if is_here) or "none"
    lacking = ", ".join(version for version, is_here in facts.pythons.items() if not is_here)
    if not lacking:
        yield Aspect("Pythons", State.OK, here)
    elif facts.downloads:
        yield Aspect("Pythons", State.OK, f"{here}; uv downloads {lacking} where it is needed")
    else:
        means = f"environments of Python {lacking} cannot be made"
        remedy = f"`uv python install {lacking.replace(',', '')}`, or unset UV_PYTHON_DOWNLOADS"
        yield Aspect("Pythons", State.LACK, here, means, remedy)


def _index(reply: IndexReply) -> Aspect:
    if reply.offline:
        means = "only what uv's cache and folders of wheels hold can be installed"
        remedy = "unset UV_OFFLINE or PIP_NO_INDEX"
        return Aspect("index", State.LACK, "is not asked (offline)", means, remedy)
    if not reply.trouble:
        return Aspect("index", State.OK, f"{reply.address} answers")
    means = "what uv's cache and folders of wheels do not hold cannot be installed: infra"
    remedy = "ask again later, or name another index (UV_DEFAULT_INDEX or PIP_INDEX_URL)"
    return Aspect("index", State.LACK, f"{reply.address} {reply.trouble}", means, remedy)


def _clock(reply: IndexReply) -> Aspect:
    ahead = reply.seconds_ahead
    if ahead is None:
        return Aspect("clock", State.OK, "not compared: no index says what time it is")
    if abs(ahead) <= CLOCK_SECONDS:
        return Aspect("clock", State.OK, "as the index's")
    here = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the index's"
    means = "certificates are refused, releases wait too long or too short, evidence has wrong days"
    return Aspect("clock", State.LACK, here, means, "`timedatectl set-ntp true`, or set it")
