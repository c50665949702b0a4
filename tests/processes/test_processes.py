"""Children see what they may, end when they must, and leave nothing behind. All are real."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psutil
import pytest

from matrix.machine import measuring, processes
from matrix.machine.measuring import LOOK_SECONDS, Stopwatch, memory_of
from matrix.machine.output import LOG_TAIL_BYTES, Log, Output
from matrix.machine.processes import Child, child_environ, run
from matrix.machine.sandbox import OPEN, Isolation, Sandbox, View, find_sandbox
from matrix.pipeline.ends import End
from matrix.spec.tables import Limits
from tests import REPOSITORY

GENEROUS = Limits(seconds=600, silence=600, memory_mb=2000, log_mb=10)
DAEMON = """
import os, time
def daemonise(then):
    "Fork twice, leave session and group, close what was inherited: as a daemon does."
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if (pid := os.fork()) == 0:
            for number in range(write):
                os.close(number)
            then()
            while True: time.sleep(1)
        os.write(write, str(pid).encode())
        os._exit(0)
    return int(os.read(read, 20))
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-c", code, *arguments]


def is_gone(pid: int, within: float = 120.0) -> bool:
    """Whether a process has ended, or ends soon; a zombie has."""
    give_up = time.monotonic() + within
    while time.monotonic() < give_up:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return child_environ(tmp_path / "home", {})


# -------------------------------------------------------------------------------- what it may see


def test_a_child_sees_no_token_no_index_and_no_home_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY"]
    secrets += ["PIP_INDEX_URL", "UV_INDEX_URL", "HTTPS_PROXY", "PYTHONPATH"]
    for name in secrets:
        monkeypatch.setenv(name, "s3cr3t")
    home = tmp_path / "home"
    more = child_environ(home, {"VLLM_NO_USAGE_STATS": "1"})
    code = "import os, json; print(json.dumps([dict(os.environ), os.path.expanduser('~')]))"
    end, log = run(python(code), more, tmp_path, GENEROUS)
    variables, user = json.loads(log)
    assert end.status == 0
    assert not set(secrets) & set(variables)
    assert "s3cr3t" not in log
    assert user == variables["HOME"] == str(home)
    places = [variables[name] for name in ("HF_HOME", "XDG_CACHE_HOME", "TMPDIR")]
    assert all(Path(place).is_relative_to(home) for place in places)
    assert Path(variables["TMPDIR"]).is_dir()
    assert variables["HF_HUB_OFFLINE"] == variables["VLLM_NO_USAGE_STATS"] == "1"


def test_the_spec_has_the_last_word_on_a_variable(tmp_path: Path) -> None:
    assert child_environ(tmp_path, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_only_one_that_downloads_sees_how_to_get_to_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    monkeypatch.setenv("HF_TOKEN", "s")
    online = child_environ(tmp_path, {"HF_HUB_OFFLINE": "0"})
    assert online["HF_ENDPOINT"] == "https://mirror.example"
    assert online["HTTPS_PROXY"] == "http://proxy.example"
    assert "s" not in online.values()
    assert not {"HF_ENDPOINT", "HTTPS_PROXY"} & child_environ(tmp_path, {}).keys()


def test_a_child_sees_the_gpus_that_it_is_given_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    more = {"CUDA_VISIBLE_DEVICES": "7"}  # not even by the spec
    assert child_environ(tmp_path, more)["CUDA_VISIBLE_DEVICES"] == ""
    assert (
        child_environ(tmp_path, more, ["GPU-a", "GPU-b"])["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    )


def test_one_thread_is_for_those_that_fork(tmp_path: Path) -> None:
    assert child_environ(tmp_path, {})["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in child_environ(tmp_path, {}, ["GPU-a"])


# ------------------------------------------------------------------------------------- its status


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("1 / 0", 1),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV),
        ("import os; os.abort()", -signal.SIGABRT),
    ],
)
def test_it_ends_as_the_command_ended(
    tmp_path: Path, environ: dict[str, str], code: str, status: int
) -> None:
    end, _ = run(python(code), environ, tmp_path, GENEROUS)
    assert (end.limit, end.status) == ("", status)
    assert not list(tmp_path.glob("core*"))


def test_a_command_that_is_not_there_is_named(tmp_path: Path, environ: dict[str, str]) -> None:
    end, log = run(["/no/such/program"], environ, tmp_path, GENEROUS)
    assert end.status == 127
    assert log == "/no/such/program: No such file or directory\n"


def test_output_and_errors_are_the_log_whatever_bytes_they_are(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    code = "import os; os.write(1, b'one\\n'); os.write(2, b'two \\xff\\n')"
    assert run(python(code), environ, tmp_path, GENEROUS)[1] == "one\ntwo \ufffd\n"


def test_a_log_keeps_its_end_and_its_size() -> None:
    log = Log()
    log.add(b"a" * LOG_TAIL_BYTES)
    log.add(b"the end")
    assert log.size == LOG_TAIL_BYTES + 7
    assert log.take().endswith("the end")
    assert log.take() == ""


# ------------------------------------------------------------------------------------- its limits

BAD = {
    "timeout": "import time\nwhile True: print('.', flush=True); time.sleep(0.02)",
    "silence": "import time; time.sleep(3600)",
    "oom": "import time; hoard = b'x' * 300_000_000; time.sleep(3600)",
    "log-limit": "import os\nwhile True: os.write(1, b'x' * 65536)",
}


@pytest.mark.parametrize("limit", BAD)
def test_each_limit_ends_it(tmp_path: Path, environ: dict[str, str], limit: str) -> None:
    limits = {
        "timeout": Limits(seconds=0.6, silence=600, memory_mb=2000, log_mb=10),
        "silence": Limits(seconds=600, silence=0.5, memory_mb=2000, log_mb=10),
        "oom": Limits(seconds=600, silence=600, memory_mb=150, log_mb=10),
        "log-limit": Limits(seconds=600, silence=600, memory_mb=2000, log_mb=0.5),
    }[limit]
    end, log = run(python(BAD[limit]), environ, tmp_path, limits)
    assert (end.limit, end.status) == (limit, None)
    assert len(log) <= LOG_TAIL_BYTES


def test_memory_is_that_of_the_whole_tree(tmp_path: Path, environ: dict[str, str]) -> None:
    code = f"{DAEMON}\nhoard = []\ndaemonise(lambda: hoard.append(b'x' * 300_000_000))\n"
    limits = Limits(seconds=600, silence=600, memory_mb=150, log_mb=1)
    end, _ = run(python(f"{code}time.sleep(3600)"), environ, tmp_path, limits)
    assert end.limit == "oom"
    assert end.peak_bytes > 150_000_000


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_files_that_a_sandbox_keeps_in_memory_count(
    tmp_path: Path, environ: dict[str, str], folder: str
) -> None:
    sandbox = find_sandbox()
    shut_in = sandbox.isolation is Isolation.BUBBLEWRAP
    code = f"""
import tempfile, time
with tempfile.TemporaryFile(dir={folder!r}) as file:
    for _ in range(30):
        file.write(bytes(10_000_000))
    time.sleep({3600 if shut_in else 0})
"""
    limits = Limits(seconds=600, silence=600, memory_mb=150, log_mb=10)
    with Child(
        python(code), environ=environ, cwd=tmp_path, sandbox=sandbox, view=view(tmp_path)
    ) as child:
        assert child.watch(limits).limit == ("oom" if shut_in else "")


def test_what_is_shared_after_a_fork_counts_once(tmp_path: Path, environ: dict[str, str]) -> None:
    code = """
import os, time
hoard = b'x' * 120_000_000
for _ in range(3):
    if os.fork() == 0:
        time.sleep(3600)
print('all are there', flush=True)
time.sleep(3600)
"""
    with Child(python(code), environ=environ, cwd=tmp_path, events=True) as child:
        assert child.watch(GENEROUS, lambda _: True).status == 0
        in_each, once = (
            memory_of(child._process.pid, enough, in_sandbox=False) for enough in (10**12, 0)
        )
    assert in_each > 4 * 120_000_000
    assert 120_000_000 < once < 260_000_000


def test_events_count_as_output(tmp_path: Path, environ: dict[str, str]) -> None:
    code = "import os\nwhile True: os.write(1, b'{}\\n' * 1000)"
    limits = Limits(seconds=600, silence=600, memory_mb=2000, log_mb=0.5)
    with Child(python(code), environ=environ, cwd=tmp_path, events=True) as child:
        assert child.watch(limits).limit == "log-limit"


def test_one_that_leaves_no_space_is_ended(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "SPACE_BYTES", 2**63)
    end, _ = run(python("import time; time.sleep(3600)"), environ, tmp_path, GENEROUS)
    assert end.limit == "no-space"


def test_time_in_which_the_harness_was_stopped_does_not_count() -> None:
    times = iter([100.0, 101.0, 3701.0, 3702.5])
    stopwatch = Stopwatch(lambda: next(times))
    assert [stopwatch.look() for _ in range(3)] == [1.0, 1.0 + LOOK_SECONDS, 2.5 + LOOK_SECONDS]


def test_a_child_of_a_harness_that_was_stopped_meanwhile_goes_on(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = count()
    late = lambda: time.monotonic() + (3600 if next(looks) > 2 else 0)  # noqa: E731
    monkeypatch.setattr(processes, "Stopwatch", lambda: Stopwatch(late))
    code = "import sys\nfor line in sys.stdin: print(line, flush=True)"
    with Child(python(code), environ=environ, cwd=tmp_path, events=True) as child:

        def answered(_: str) -> bool:
            child.send("go on")
            return next(looks) > 10

        child.send("go on")
        assert child.watch(GENEROUS, answered).limit == ""


def test_what_the_kernel_ended_for_want_of_memory_is_counted_from_one_end_to_the_next(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([5, 5, 7])
    monkeypatch.setattr(processes, "count_oom_kills", lambda: next(counts))
    code = "import sys\nfor line in sys.stdin: print(line, flush=True)"
    kills = []
    with Child(python(code), environ=environ, cwd=tmp_path, events=True) as child:
        for _ in range(2):
            child.send("go on")
            kills.append(child.watch(GENEROUS, lambda _: True).oom_kills)
    assert kills == [0, 2]


@pytest.mark.parametrize("sandbox", [OPEN, find_sandbox()])
def test_one_that_fills_the_pipe_of_its_orders_keeps_nobody_waiting(
    tmp_path: Path, environ: dict[str, str], sandbox: Sandbox
) -> None:
    code = """
import os, time
orders = os.open("/proc/self/fd/0", os.O_WRONLY | os.O_NONBLOCK)
for size in (4096, 1):
    try:
        while True: os.write(orders, b"x" * size)
    except BlockingIOError:
        continue
print("full", flush=True)
time.sleep(3600)
"""
    with Child(
        python(code), environ=environ, cwd=tmp_path, events=True, sandbox=sandbox,
        view=view(tmp_path),
    ) as child:  # fmt: skip
        assert child.watch(GENEROUS, lambda line: line == "full").status == 0
        child.send("an order")
        limits = Limits(seconds=1, silence=600, memory_mb=2000, log_mb=10)
        assert child.watch(limits).limit == "timeout"


# ---------------------------------------------------------------------------------- nothing is left

LEFT = f"{DAEMON}\nprint(daemonise(lambda: None), flush=True)\n"


def test_a_daemon_dies_when_the_command_has_ended(tmp_path: Path, environ: dict[str, str]) -> None:
    end, log = run(python(LEFT), environ, tmp_path, GENEROUS)
    assert end.status == 0
    assert is_gone(int(log))


def test_a_daemon_dies_on_a_limit(tmp_path: Path, environ: dict[str, str]) -> None:
    limits = Limits(seconds=600, silence=0.7, memory_mb=2000, log_mb=10)
    argv = python(f"{LEFT}time.sleep(3600)")
    with Child(argv, environ=environ, cwd=tmp_path, events=True) as child:
        daemon = first_line(child)
        assert child.watch(limits).limit == "silence"
        assert is_gone(int(daemon))


def test_leaving_ends_a_child_that_will_not_be_asked(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    deaf = "import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
    with Child(python(f"{deaf}{LEFT}time.sleep(3600)"), environ=environ, cwd=tmp_path) as child:
        pids: list[int] = []
        while not pids:
            time.sleep(0.02)
            child.drain()
            pids += [int(line) for line in child.log.take().splitlines()]
    assert is_gone(pids[0])


FLEES = """
import fcntl, os, sys
held = open(sys.argv[1], "w")
fcntl.flock(held, fcntl.LOCK_EX)
def flee():
    "Fork and exit, again and again, so that no process lives long enough to be looked for."
    while True:
        if os.fork():
            os._exit(0)
"""


def is_held(file: Path) -> bool:
    """Whether a process lives that has a lock, or inherited it."""
    with file.open() as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


SHUT_IN = [OPEN, find_sandbox()]
"""Without a sandbox, and in one where it is there."""


def view(folder: Path) -> View:
    """Return what a child of this Python needs, with one folder to write to."""
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    return View(read_only=tuple(prefixes), writable=(folder,))


@pytest.mark.parametrize("sandbox", SHUT_IN)
@pytest.mark.parametrize("limit", ["", "silence"])
def test_nothing_is_left_of_daemons_and_of_shared_memory(
    tmp_path: Path, environ: dict[str, str], sandbox: Sandbox, limit: str
) -> None:
    lock, segment = tmp_path / "lock", Path("/dev/shm", f"matrix-test-{secrets.token_hex(4)}")
    code = f"""{DAEMON}
import fcntl
held = open({str(lock)!r}, "w")
fcntl.flock(held, fcntl.LOCK_EX)
def share():
    import mmap
    with open({str(segment)!r}, "w+b") as file:
        file.truncate(4096)
        mapped = mmap.mmap(file.fileno(), 0)
    os.write(ready[1], b".")
    while True: time.sleep(1)
ready = os.pipe()
if os.fork() == 0: share()
os.read(ready[0], 1)
os.set_inheritable(held.fileno(), True)
daemonise(lambda: None)
time.sleep({3600 if limit else 0})
"""
    limits = Limits(seconds=600, silence=1.5 if limit else 600, memory_mb=2000, log_mb=10)
    with Child(
        python(code), environ=environ, cwd=tmp_path, sandbox=sandbox, view=view(tmp_path)
    ) as child:
        assert child.watch(limits).limit == limit
    assert not is_held(lock)
    assert not segment.exists()


@pytest.mark.parametrize("sandbox", SHUT_IN)
@pytest.mark.parametrize("chains", [1, 8])
def test_those_that_fork_and_exit_for_ever_are_caught(
    tmp_path: Path, environ: dict[str, str], chains: int, sandbox: Sandbox
) -> None:
    lock = tmp_path / "lock"
    start = f"{FLEES}\nfor _ in range({chains}):\n    if os.fork() == 0: flee()\n"
    argv = python(start, str(lock))
    with Child(argv, environ=environ, cwd=tmp_path, sandbox=sandbox, view=view(tmp_path)) as child:
        assert child.watch(GENEROUS).status == 0
    assert not is_held(lock)


STOPS = "import os, signal, time; os.kill(os.getppid(), signal.SIGSTOP)\n"


def first_line(child: Child) -> str:
    """Return the first line that a child writes as an event."""
    lines: list[str] = []

    def keep(line: str) -> bool:
        lines.append(line)
        return True

    child.watch(GENEROUS, keep)
    return lines[0]


def wait_until_stopped(process: psutil.Process) -> None:
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.02)


def test_a_keeper_that_was_stopped_ends_its_child_all_the_same(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    code = (
        f"{DAEMON}\npids = os.getpid(), daemonise(lambda: None)\n{STOPS}print(*pids, flush=True)\n"
    )
    with Child(
        python(f"{code}time.sleep(3600)"), environ=environ, cwd=tmp_path, events=True
    ) as child:
        line = first_line(child)
        wait_until_stopped(psutil.Process(child._process.pid))
    assert all(is_gone(int(pid)) for pid in line.split())


def test_a_child_that_stops_its_keeper_and_ends_is_silent(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    limits = Limits(seconds=600, silence=0.5, memory_mb=2000, log_mb=10)
    end, _ = run(python(STOPS), environ, tmp_path, limits)
    assert end.limit == "silence"


def test_a_child_that_is_stopped_is_silent(tmp_path: Path, environ: dict[str, str]) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"
    limits = Limits(seconds=600, silence=0.5, memory_mb=2000, log_mb=10)
    end, _ = run(python(code), environ, tmp_path, limits)
    assert end.limit == "silence"


def test_what_a_child_leaves_that_killed_its_keeper_is_ended(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    code = f"{DAEMON}\nprint(daemonise(lambda: None), flush=True)\nos.kill(os.getppid(), 9)\n"
    end, log = run(python(f"{code}time.sleep(3600)"), environ, tmp_path, GENEROUS)
    assert end.status == -signal.SIGKILL
    assert is_gone(int(log))


def test_what_is_left_of_one_child_is_not_taken_for_another(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    with Child(
        python(f"{LEFT}time.sleep(3600)"), environ=environ, cwd=tmp_path, events=True
    ) as child:
        line = first_line(child)
        run(python("import os; os.kill(os.getppid(), 9)"), environ, tmp_path, GENEROUS)
        assert psutil.pid_exists(int(line))


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start a harness of its own with a child and its daemon; give it and their pids."""
    code = """
import signal, sys
from pathlib import Path
from matrix.machine.processes import Child, child_environ
from matrix.spec.tables import Limits
# A shell without a terminal starts what runs in the background deaf to SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
limits = Limits(seconds=600, silence=600, memory_mb=2000, log_mb=1)
with Child([sys.executable, "-I", "-c", sys.argv[2]], environ=child_environ(folder, {}),
           cwd=folder, events=True) as child:
    child.watch(limits, lambda line: print(line, flush=True) or False)
"""
    inner = f"{DAEMON}\nprint(os.getpid(), os.getppid(), daemonise(lambda: None), flush=True)\n"
    argv = [sys.executable, "-c", code, str(tmp_path), f"{inner}time.sleep(3600)"]
    with subprocess.Popen(
        argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        yield process, [int(pid) for pid in process.stdout.readline().split()]
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_harness_however_it_ends(
    harness: tuple[subprocess.Popen[str], list[int]], number: signal.Signals
) -> None:
    process, pids = harness
    assert len(pids) == 3
    assert all(psutil.pid_exists(pid) for pid in pids)
    process.send_signal(number)
    process.wait(timeout=600)
    assert all(is_gone(pid) for pid in pids)


# ------------------------------------------------------------------------------------------ events


def test_an_awaited_line_gives_back_control_and_the_child_lives_on(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    code = """
import sys
for line in sys.stdin:
    print("log of", line.strip(), file=sys.stderr, flush=True)
    print("did", line.strip(), flush=True)
"""
    lines: list[str] = []

    def keep(line: str) -> bool:
        lines.append(line)
        return True

    with Child(python(code), environ=environ, cwd=tmp_path, events=True) as child:
        for word in ("one", "two"):
            child.send(word)
            assert child.watch(GENEROUS, keep).status == 0
            child.drain()
            assert child.log.take() == f"log of {word}\n"
    assert lines == ["did one", "did two"]


def test_a_child_that_is_gone_can_be_written_to(tmp_path: Path, environ: dict[str, str]) -> None:
    with Child(python("raise SystemExit(4)"), environ=environ, cwd=tmp_path, events=True) as child:
        assert child.watch(GENEROUS).status == 4
        child.send("hello")
        assert child.watch(GENEROUS).status == 4


def test_the_pipes_are_closed_afterwards(tmp_path: Path, environ: dict[str, str]) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - what is open, by number

    before = count()
    for _ in range(3):
        run(python("pass"), environ, tmp_path, GENEROUS)
    assert count() == before


def test_what_is_printed_between_the_last_look_and_the_end_is_in_the_log(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Child.watch

    def looks_just_before(self: Child, limits: Limits) -> End:
        self._process.wait()
        return watch(self, limits)

    monkeypatch.setattr(Output, "read", lambda *_: (False, False))
    monkeypatch.setattr(Child, "watch", looks_just_before)
    end, log = run(python("print('refused')"), environ, tmp_path, GENEROUS)
    assert (end.status, log) == (0, "refused\n")
