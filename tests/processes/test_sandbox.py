"""Commands that are shut in: what they see, how they end, and what is left of them."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import psutil
import pytest

from matrix.environments.interpreters import interpreter_folders
from matrix.machine.processes import Child, child_environ, run
from matrix.machine.sandbox import OPEN, SYSTEM_ALONE, Isolation, Sandbox, View, find_sandbox
from matrix.pipeline.ends import End, classify_end, classify_uv_end
from matrix.pipeline.outcomes import Outcome, Reason
from matrix.spec.tables import Limits

LIMITS = Limits(seconds=600, silence=600, memory_mb=2000, log_mb=10)
HERE = find_sandbox()
IS_SHUT_IN = HERE.isolation is Isolation.BUBBLEWRAP
PYTHON = (Path(sys.prefix), *interpreter_folders(Path(sys.executable)))


@pytest.fixture(params=[HERE, OPEN], ids=["here", "open"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """What this machine has, and nothing."""
    sandbox: Sandbox = request.param
    return sandbox


def perform(
    folder: Path,
    code: str,
    sandbox: Sandbox = HERE,
    view: View = SYSTEM_ALONE,
    limits: Limits = LIMITS,
) -> tuple[End, str]:
    """Run Python code in a folder of its own, in which alone it may write."""
    environ = child_environ(folder, {})
    read_only, writable = (*PYTHON, *view.read_only), (folder, *view.writable)
    whole = view._replace(read_only=read_only, writable=writable)
    return run([sys.executable, "-I", "-c", code], environ, folder, limits, sandbox, whole)


def test_a_lack_has_a_reason_and_bubblewrap_a_program() -> None:
    assert bool(HERE.program) is IS_SHUT_IN
    assert bool(HERE.lack) is not IS_SHUT_IN


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(3)", 3),
        ("import os; os.abort()", -6),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import ctypes; ctypes.string_at(0)", -11),
        ("import os; os.kill(os.getpid(), 31)", -31),
    ],
)
def test_a_command_ends_with_the_same_status(
    tmp_path: Path, sandbox: Sandbox, code: str, status: int
) -> None:
    end, _ = perform(tmp_path, code, sandbox)
    assert end.status == status


def test_a_status_is_that_of_no_signal_in_the_open(tmp_path: Path) -> None:
    end, _ = perform(tmp_path, "raise SystemExit(139)", OPEN)
    assert end.status == 139


def test_it_writes_to_its_own_folder_and_sees_no_other(tmp_path: Path, sandbox: Sandbox) -> None:
    own, other, shown = (tmp_path / name for name in ("own", "other", "shown"))
    for folder in (own, other, shown):
        folder.mkdir()
        (folder / "file").write_text("a")
    code = f"""
import os
for folder in ({str(own)!r}, {str(shown)!r}, {str(other)!r}):
    try:
        print(open(folder + "/file").read(), end="")
        open(folder + "/file", "a").write("b")
    except OSError as error:
        print(type(error).__name__, error.errno)
"""
    _, log = perform(own, code, sandbox, View(read_only=(shown,)))
    shut_in = sandbox.isolation is Isolation.BUBBLEWRAP
    texts = [(folder / "file").read_text() for folder in (own, shown, other)]
    assert texts == (["ab", "a", "a"] if shut_in else ["ab", "ab", "ab"])
    assert log.split() == (
        ["aaOSError", "30", "FileNotFoundError", "2"] if shut_in else ["aaa"]
    )  # 30: a file system that is read-only


def test_what_it_puts_into_shared_memory_and_temporary_files_goes_away(tmp_path: Path) -> None:
    name = f"matrix-test-{tmp_path.name}"
    end, _ = perform(
        tmp_path, f"for d in ('/dev/shm', '/tmp'): open(d + '/{name}', 'w').write('left')"
    )
    left = [place for place in (Path("/dev/shm", name), Path("/tmp", name)) if place.exists()]
    for place in left:
        place.unlink()
    assert end.status == 0
    assert bool(left) is not IS_SHUT_IN


def test_it_has_a_loopback_of_its_own_by_which_it_finds_itself(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    code = """
import socket
server = socket.create_server((socket.gethostbyname(socket.gethostname()), 0))
socket.create_connection(server.getsockname()).close()
print(server.getsockname()[0].split(".")[0])
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = f"import socket; socket.create_connection({server.getsockname()!r})"
        refused, _ = perform(tmp_path, reach, sandbox)
        allowed, _ = perform(tmp_path, reach, sandbox, View(network=True))
    shut_in = sandbox.isolation is Isolation.BUBBLEWRAP
    assert (refused.status, allowed.status) == (int(shut_in), 0)
    if shut_in:
        end, log = perform(tmp_path, code, sandbox)
        assert (end.status, log) == (0, "127\n")


def test_its_memory_is_measured_and_limited(tmp_path: Path, sandbox: Sandbox) -> None:
    code = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "held = b'x' * 300_000_000\\nwhile True: pass"])
time.sleep(3600)
"""
    limits = Limits(seconds=600, silence=600, memory_mb=200, log_mb=1)
    end, _ = perform(tmp_path, code, sandbox, limits=limits)
    assert end.limit == "oom"
    assert end.peak_bytes > 200 * 10**6


def test_its_daemons_end_with_it(tmp_path: Path, sandbox: Sandbox) -> None:
    mark = f"matrix-test-{tmp_path.name}"
    code = f"""
import subprocess, sys
code = "import os, time; print(1, flush=True)\\nwhile True: time.sleep(1)"
started = subprocess.Popen(
    [sys.executable, "-c", code, "{mark}"], start_new_session=True, stdout=subprocess.PIPE
)
started.stdout.readline()
"""
    end, _ = perform(tmp_path, code, sandbox)
    assert end.status == 0
    assert not [
        process for process in psutil.process_iter(["cmdline"])
        if mark in (process.info["cmdline"] or [])
    ]  # fmt: skip


def test_it_makes_no_file_elsewhere(tmp_path: Path) -> None:
    if not IS_SHUT_IN:
        assert HERE.lack  # nothing holds it back, as a run says
        return
    places = ("/", "/dev", "/etc", "/usr", "/sys", "/proc")
    code = f"""
for place in {places}:
    try:
        open(place + "/matrix-test", "w")
    except OSError:
        print("refused")
"""
    assert perform(tmp_path, code)[1].split() == ["refused"] * len(places)


def test_it_can_set_nothing_of_the_kernel(tmp_path: Path) -> None:
    code = """
import os
for folder, _, names in os.walk("/proc/sys"):
    for name in names:
        try:
            os.close(os.open(f"{folder}/{name}", os.O_WRONLY))
            print(f"{folder}/{name}")
        except OSError:
            continue
"""
    if IS_SHUT_IN:  # root may open them in the open, and an ordinary user may not
        assert perform(tmp_path, code)[1] == ""


def test_it_sees_no_process_but_its_own(tmp_path: Path) -> None:
    code = "import os; print(sum(name.isdecimal() for name in os.listdir('/proc')) < 5)"
    assert perform(tmp_path, code)[1].split() == [str(IS_SHUT_IN)]


def test_events_and_orders_pass(tmp_path: Path, sandbox: Sandbox) -> None:
    code = "print(input()[::-1], flush=True); input()"
    with Child(
        [sys.executable, "-I", "-c", code], environ=child_environ(tmp_path, {}), cwd=tmp_path,
        events=True, sandbox=sandbox, view=View(PYTHON, (tmp_path,)),
    ) as child:  # fmt: skip
        child.send("order")
        lines: list[str] = []

        def take(line: str) -> bool:
            lines.append(line)
            return True

        assert child.watch(LIMITS, take).status == 0
    assert lines == ["redro"]


def test_a_sandbox_that_cannot_be_made_is_trouble_of_the_machine(tmp_path: Path) -> None:
    end, log = perform(tmp_path, "pass", view=View(read_only=(tmp_path / "not there",)))
    if not IS_SHUT_IN:
        assert end.status == 0
        return
    for conclusion in (classify_end(end, None, [], log), classify_uv_end(end, log, Reason.CRASH)):
        assert (conclusion.outcome, conclusion.reason) == (Outcome.INFRA, Reason.NOT_RUN)
        assert "not there" in conclusion.message
