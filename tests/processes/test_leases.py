"""Leases: real locks between real processes, with made-up cards."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from matrix.machine.hardware import Gpu
from matrix.machine.leases import PATIENCE, lease, leases_folder, strangers

HOLDER = """
import sys
from pathlib import Path
from matrix.machine.hardware import Gpu
from matrix.machine.leases import lease
gpus = [Gpu(i, f"GPU-{i}", "made up", 2**30, "9.0") for i in range(int(sys.argv[2]))]
with lease(gpus, int(sys.argv[3]), Path(sys.argv[1]), lambda _: [], print) as mine:
    print(*(gpu.index for gpu in mine), flush=True)
    sys.stdin.readline()
"""


def cards(count: int) -> list[Gpu]:
    return [Gpu(i, f"GPU-{i}", "made up", 2**30, "9.0") for i in range(count)]


@contextmanager
def holder(folder: Path, count: int, of: int) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Another process that holds a lease until it is ended."""
    argv = [sys.executable, "-c", HOLDER, str(folder), str(of), str(count)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, [int(index) for index in process.stdout.readline().split()]
        finally:
            process.kill()


class GivenUp(BaseException):
    """As a signal's handler raises it."""


def give_up(_seconds: float) -> None:
    raise GivenUp


def nobody(_uuid: str) -> list[int]:
    return []


def free(folder: Path, of: int) -> list[int]:
    """Which cards could be leased now."""
    indices = []
    for gpu in cards(of):
        try:
            with lease([gpu], 1, folder, nobody, print, give_up):
                indices.append(gpu.index)
        except GivenUp:
            continue
    return indices


def test_a_lease_is_of_so_many_cards_and_is_freed_on_leaving(tmp_path: Path) -> None:
    with lease(cards(3), 2, tmp_path, nobody, print) as mine:
        assert [gpu.index for gpu in mine] == [0, 1]
        assert free(tmp_path, 3) == [2]
    assert free(tmp_path, 3) == [0, 1, 2]


def test_it_is_freed_when_what_was_done_on_it_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lease(cards(1), 1, tmp_path, nobody, print):
        raise RuntimeError
    assert free(tmp_path, 1) == [0]


def test_a_killed_holder_frees_its_cards(tmp_path: Path) -> None:
    with holder(tmp_path, count=2, of=3) as (process, theirs):
        assert free(tmp_path, 3) == [2]
        process.kill()
        process.wait()
        assert theirs == [0, 1]
        assert free(tmp_path, 3) == [0, 1, 2]


def test_a_child_that_outlives_its_holder_keeps_no_lease(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(lease(cards(1), 1, tmp_path, nobody, print))
        argv = [sys.executable, "-c", "import sys; print('there', flush=True); sys.stdin.read()"]
        pipe = subprocess.PIPE
        child = subprocess.Popen(argv, stdin=pipe, stdout=pipe, close_fds=False)
        assert child.stdout is not None
        child.stdout.readline()
        stack.close()
        assert free(tmp_path, 1) == [0]
        child.communicate()


def test_who_does_not_get_all_holds_none(tmp_path: Path) -> None:
    with holder(tmp_path, count=2, of=3):
        with pytest.raises(GivenUp), lease(cards(3), 2, tmp_path, nobody, print, give_up):
            pytest.fail("there is one left")
        assert free(tmp_path, 3) == [2]


def test_one_that_waits_goes_on_when_the_holder_is_gone(tmp_path: Path) -> None:
    with holder(tmp_path, count=2, of=3) as (process, _):

        def wait(_seconds: float) -> None:
            process.kill()
            process.wait()

        with lease(cards(3), 2, tmp_path, nobody, print, wait) as mine:
            assert [gpu.index for gpu in mine] == [0, 1]


def test_two_of_three_wanted_by_many_at_once_is_no_deadlock(tmp_path: Path) -> None:
    in_use: set[int] = set()

    def work(_number: int) -> None:
        with lease(cards(3), 2, tmp_path, nobody, print, lambda _: None) as mine:
            held = {gpu.index for gpu in mine}
            assert len(held) == 2
            assert not held & in_use
            in_use.update(held)
            in_use.difference_update(held)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(60)))
    assert free(tmp_path, 3) == [0, 1, 2]


def test_who_waits_for_two_is_not_passed_by_those_who_want_one(tmp_path: Path) -> None:
    passed = []

    def look(_seconds: float) -> None:
        passed.append(free(tmp_path, 2))
        raise GivenUp

    with (
        holder(tmp_path, count=1, of=1),
        pytest.raises(GivenUp),
        lease(cards(2), 2, tmp_path, nobody, print, look),
    ):
        pytest.fail("one card is leased")
    assert passed == [[]], "the queue is the waiting one's"
    assert free(tmp_path, 2) == [0, 1]


def looking(on: dict[str, list[int]]) -> Callable[[str], list[int]]:
    return lambda uuid: on.get(uuid, [])


def test_a_card_that_somebody_computes_on_is_left_alone(tmp_path: Path) -> None:
    on = looking({"GPU-0": [4711]})
    with lease(cards(2), 1, tmp_path, on, print) as mine:
        assert [gpu.index for gpu in mine] == [1]
        assert free(tmp_path, 1) == [0], "what was only looked at is not held"


def test_a_stranger_is_waited_for_and_named_by_number_alone(tmp_path: Path) -> None:
    on, lines, looks = {"GPU-0": [4711]}, list[str](), list[float]()

    def wait(seconds: float) -> None:
        assert free(tmp_path, 1) == [0], "one that waits for a stranger keeps no place in the queue"
        looks.append(seconds)
        assert bool(lines) == (len(looks) > 1), "who is gone at the second look is not worth a line"
        if len(looks) == 3:
            on.clear()

    with lease(cards(1), 1, tmp_path, looking(on), lines.append, wait) as mine:
        assert [gpu.index for gpu in mine] == [0]
    assert lines == ["waiting for 1 of 1 GPUs: process 4711 computes on GPU 0"]


def test_after_a_stranger_the_queue_is_waited_for_again(tmp_path: Path) -> None:
    on, looks = {"GPU-0": [4711]}, list[float]()
    with ExitStack() as other:

        def wait(seconds: float) -> None:
            looks.append(seconds)
            if len(looks) == 1:  # another run looks for cards just when the stranger goes
                on.clear()
                queue = other.enter_context((tmp_path / "queue").open())
                fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                other.close()

        with lease(cards(1), 1, tmp_path, looking(on), print, wait):
            assert len(looks) == 2


def test_a_long_wait_for_other_runs_is_told_once(tmp_path: Path) -> None:
    lines, looks = list[str](), list[float]()

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) > 2 * PATIENCE:
            raise GivenUp

    with (
        lease(cards(1), 1, tmp_path, nobody, print),
        pytest.raises(GivenUp),
        lease(cards(1), 1, tmp_path, nobody, lines.append, wait),
    ):
        pytest.fail("it is leased")
    assert lines == ["waiting for 1 of 1 GPUs: other runs have them"]


def test_more_than_there_are_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 GPUs"), lease(cards(1), 2, tmp_path, nobody, print):
        pytest.fail("there is one")


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "leases").mkdir()
    (tmp_path / "leases" / "GPU-0").symlink_to(precious)
    with pytest.raises(OSError), lease(cards(1), 1, tmp_path / "leases", nobody, print):  # noqa: PT011
        pytest.fail("it would lock another's file")
    assert precious.read_text() == "mine"


def test_the_folder_is_for_all_users_where_it_is_made_here(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    with (
        lease(cards(1), 1, own, nobody, print),
        lease(cards(1), 1, tmp_path / "new", nobody, print),
    ):
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777
        assert own.stat().st_mode & 0o777 == 0o700


def test_the_folder_is_the_machines_unless_another_is_named() -> None:
    assert leases_folder({"MATRIX_LEASES": "elsewhere"}) == Path("elsewhere")
    assert leases_folder({}) == leases_folder({"HOME": "another"})


def test_the_folder_is_where_all_may_write_and_cleaners_do_not_come(tmp_path: Path) -> None:
    for name, mode in (("root's", 0o755), ("all's", 0o1777), ("temporary", 0o700)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    roots, alls, temporary = (tmp_path / name for name in ("root's", "all's", "temporary"))
    assert leases_folder({}, [tmp_path / "none", roots, alls, temporary]).parent == alls
    assert leases_folder({}, [tmp_path / "none", roots, temporary]).parent == temporary


@pytest.mark.parametrize("remade", [False, True])
def test_a_file_that_is_deleted_before_it_is_locked_is_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remade: bool
) -> None:
    file, lock, times = tmp_path / "GPU-0", fcntl.flock, list[int]()

    def deleted_first(opened: int, operation: int) -> None:
        if os.path.samestat(os.fstat(opened), file.stat()) if file.exists() else False:
            times.append(opened)
            if len(times) == 1:
                file.rename(tmp_path / "gone")
                if remade:
                    file.touch()
        lock(opened, operation)

    monkeypatch.setattr("fcntl.flock", deleted_first)
    with lease(cards(1), 1, tmp_path, nobody, print):
        assert len(times) == 2, "the first was of a file that is not there any more"
        assert free(tmp_path, 1) == []
    assert free(tmp_path, 1) == [0]


def test_who_has_just_ended_is_no_stranger() -> None:
    on, waited = {"GPU-0": [4711], "GPU-1": list[int]()}, list[float]()

    def end(seconds: float) -> None:
        waited.append(seconds)
        on["GPU-0"] = []

    assert strangers(cards(2), on.__getitem__, end) == 0
    assert strangers(cards(2), on.__getitem__, end) == 0
    assert len(waited) == 1, "where nobody is, nobody is waited for"
    on.update({"GPU-0": [4711, 4712], "GPU-1": [4712]})
    assert strangers(cards(2), on.__getitem__, waited.append) == 2, "each once"
