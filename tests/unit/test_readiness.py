"""What is said of a machine by made-up facts: what is here, and of a lack what it means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from matrix.cli.doctor import Diagnosis, lines, seconds_ahead
from matrix.machine.hardware import Gpu, Machine
from matrix.machine.sandbox import Isolation
from matrix.run.readiness import Aspect, Facts, IndexReply, Room, State, aspects

GB = 10**9
MACHINE = Machine(
    processor="made up", cores=4, memory=64 * GB, system="Linux",
    instruction_set="x86-64-v3", note="no driver",
)  # fmt: skip
CARD = Gpu(0, "GPU-0", "Made Up 24", 24 * 2**30, "8.9")
WHOLE = Facts(
    profile="cpu", cells=740, isolation=Isolation.BUBBLEWRAP,
    rooms=[Room("the store", needed=30 * GB, free=40 * GB, remedy="Free some")],
    machine=MACHINE, memory_mb=8000, at_once=4, unmet={}, gpu_cells=0, shared_memory=8 * GB,
    uv="uv 0.13.9", pythons={"3.10": True, "3.11": True},
    index=IndexReply("https://index/simple", seconds_ahead=1.5),
)  # fmt: skip


def named(name: str, **changes: Any) -> Aspect:
    """Return an aspect of the whole machine with something changed."""
    (aspect,) = [a for a in aspects(msgspec.structs.replace(WHOLE, **changes)) if a.name == name]
    return aspect


def test_a_machine_that_lacks_nothing_is_told_without_any_remedy() -> None:
    assert {aspect.state for aspect in aspects(WHOLE)} == {State.OK}
    text = "\n".join(lines(Diagnosis(1, "cpu", aspects(WHOLE))))
    assert "what to do" not in text
    assert text.endswith("A run of profile cpu can begin.")


@pytest.mark.parametrize(
    ("name", "changes", "here", "means", "remedy"),
    [
        ("sandbox", {"isolation": Isolation.NONE, "sandbox_lack": "bubblewrap is not installed"},
         "not installed", "may read what you may read", "apt install bubblewrap"),
        ("sandbox", {"isolation": Isolation.NONE, "userns_restricted": True,
                     "sandbox_lack": "bubblewrap does not work here: setting up uid map"},
         "uid map", "reach the network", "apparmor_restrict_unprivileged_userns=0"),
        ("sandbox", {"isolation": Isolation.NONE,
                     "sandbox_lack": "bubblewrap does not work here: No permissions"},
         "No permissions", "reach the network", "unprivileged_userns_clone"),
        ("sandbox", {"isolation": Isolation.NONE, "sandbox_lack": "it is off"},
         "it is off", "reach the network", "MATRIX_SANDBOX unset"),
        ("user", {"isolation": Isolation.NONE, "root": True},
         "root", "change everything", "a user of its own"),
        ("memory", {"memory_limit": 20 * GB}, "of 20.0 GB", "4 environments", "nox -j 2"),
        ("memory", {"memory_limit": 2 * GB}, "of 2.0 GB", "infra", "more memory"),
        ("/dev/shm", {"isolation": Isolation.NONE, "shared_memory": 64 * 10**6},
         "64 MB", "SIGBUS", "--shm-size"),
        ("/dev/shm", {"isolation": Isolation.NONE, "shared_memory": None}, "none", "SIGBUS", ""),
        ("CPU", {"unmet": {"needs a CPU with AVX-512": 120, "needs 1 GPU": 7}},
         "x86-64-v3", "120 of 740 cells are untested here: needs a CPU with AVX-512", ""),
        ("GPUs", {"unmet": {"needs a CPU with AVX-512": 120, "needs 1 GPU": 7, "needs 2 GPUs": 9}},
         "no driver", "16 of 740 cells are untested here: needs 2 GPUs (9), and others", ""),
        ("Pythons", {"pythons": {"3.9": False, "3.11": True}, "downloads": False},
         "3.11", "Python 3.9 cannot be made", "uv python install 3.9"),
        ("index", {"index": IndexReply("https://index/simple", "does not answer in time")},
         "https://index/simple does not answer in time", "infra", "UV_DEFAULT_INDEX"),
        ("index", {"index": IndexReply("https://index/simple", offline=True)},
         "is not asked", "uv's cache", "UV_OFFLINE"),
        ("clock", {"index": IndexReply("https://index/simple", seconds_ahead=-7200)},
         "7,200 s behind", "certificates", "timedatectl"),
        ("clock", {"index": IndexReply("https://index/simple", seconds_ahead=301)},
         "301 s ahead of", "certificates", "timedatectl"),
    ],
)  # fmt: skip
def test_a_lack_is_told_with_what_it_means_and_what_helps(
    name: str, changes: dict[str, Any], here: str, means: str, remedy: str
) -> None:
    aspect = named(name, **changes)
    assert aspect.state is State.LACK
    assert here in aspect.here
    assert means in aspect.means
    assert aspect.remedy
    assert remedy in aspect.remedy


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sandbox", {"isolation": Isolation.NONE, "sandbox_lack": "not installed",
                     "sandbox_required": True}),
        ("disk of the store", {"rooms": [Room("the store", 30 * GB, 30 * GB - 1, "Free some")]}),
        ("uv", {"uv": ""}),
    ],
)  # fmt: skip
def test_what_stops_a_run_is_named_last(name: str, changes: dict[str, Any]) -> None:
    assert named(name, **changes).state is State.STOP
    changed = aspects(msgspec.structs.replace(WHOLE, **changes))
    *_, last = lines(Diagnosis(1, "cpu", changed))
    assert last == f"A run of profile cpu is stopped by: {name}."


def test_what_the_sandbox_takes_care_of_is_no_lack_in_it() -> None:
    assert named("user", root=True).state is State.OK
    assert named("/dev/shm", shared_memory=None).state is State.OK


def test_cards_are_told_with_their_driver() -> None:
    machine = msgspec.structs.replace(MACHINE, gpus=[CARD, CARD], driver="570.1", cuda="12.8")
    aspect = named("GPUs", machine=machine, gpu_cells=3)
    assert aspect.state is State.OK
    assert aspect.here == ("2 x Made Up 24, 24 GiB, capability 8.9; driver 570.1, CUDA 12.8")


def test_a_python_that_uv_may_download_is_no_lack() -> None:
    aspect = named("Pythons", pythons={"3.9": False, "3.11": True})
    assert (aspect.state, aspect.here) == (
        State.OK, "3.11; uv downloads 3.9 where it is needed",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Mon, 30 Nov 2026 12:00:00 GMT", 60.0),
        ("Mon, 30 Nov 2026 14:02:00 +0200", -60.0),
        ("", None),
        ("yesterday", None),
        ("Mon, 30 Nov 99999999999 12:00:00 GMT", None),
        ("Mon, 32 Nov 2026 12:00:00 GMT", None),
    ],
)
def test_a_clock_is_compared_with_what_a_server_says_where_that_can_be_read(
    date: str, ahead: float | None
) -> None:
    assert seconds_ahead(date, datetime(2026, 11, 30, 12, 1, tzinfo=UTC)) == ahead


def test_what_a_server_or_a_driver_says_cannot_act_on_a_terminal() -> None:
    reply = IndexReply("https://index/simple", "\x1b[2J\u202e")
    changed = aspects(msgspec.structs.replace(WHOLE, index=reply))
    shown = "\n".join(lines(Diagnosis(1, "cpu", changed)))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
