"""The server that runs inside an environment under test: import once, fork a child per job.

Started by path, ``python child.py --adapter FILE --import-result FILE [--departure NAME ...]``,
because nothing of the project is installed where packages are tested. Standard library and the
adapter's package only; Python 3.10 syntax.

    stdin    one JSON line a job, {"job": "/abs/job.json", "fork": true}; its end ends the server
    stdout   one JSON line an event: imported, then stage ... ended for each job
    stderr   the log: everything a package prints, to whichever stream
    files    import.json where --import-result says, <results>/<stage>.json for each stage of a job

The server imposes no limit: the harness watches the log and the clock, and ends the whole tree.
What the server does see to is that nothing outlives it: a job's stray processes are killed when the
job ends, and all of them when the harness is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
import resource
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

SCHEMA = 1
MESSAGE_LIMIT = 4000
TRACEBACK_LIMIT = 8000
WARNING_LIMIT = 20_000
WARNINGS_LIMIT = 50
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

Json = dict[str, Any]
Emit = Callable[[Json], None]

_loaded: list[Any] = []
"""What was loaded, kept to the end of the process: to tear an engine down takes a second."""


def main() -> int:
    """Import the adapter's package, then do jobs until stdin ends; 1 if the import raised."""
    # This file's folder is no place to import from; python -P would say so, from 3.11 on.
    sys.path[:] = [place for place in sys.path if place != str(Path(__file__).parent)]
    parser = argparse.ArgumentParser()
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--import-result", type=Path, required=True)
    parser.add_argument("--departure", action="append", default=[])
    arguments = parser.parse_args()
    jobs, emit = _take_streams()
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: _leave_nothing(143))

    adapter: ModuleType | None = None

    def import_package() -> Json:
        nonlocal adapter
        adapter = load_adapter(arguments.adapter)
        adapter.import_package({"departures": arguments.departure})
        return environment_facts()

    ok = record_stage("import", arguments.import_result, import_package)
    emit({"event": "imported", "ok": ok})
    if not ok or adapter is None:
        return 1
    # AutoAWQ calls gc.collect() in its loops; frozen, the modules cost each call nothing, and a
    # forked child's collector does not write to, and so copy, the pages it shares.
    gc.collect()
    gc.freeze()
    for line in jobs:
        order = json.loads(line)
        job = json.loads(Path(order["job"]).read_text(encoding="utf-8"))
        job["departures"] = list(dict.fromkeys([*arguments.departure, *job["departures"]]))
        if not order["fork"]:
            status = perform(adapter, job, emit)
            kill_children(keep=set())
            emit({"event": "ended", "status": status})
            _exit(status)
        emit({"event": "ended", "status": fork_and_perform(adapter, job, emit)})
    kill_children(keep=set())
    return 0


def perform(adapter: ModuleType, job: Json, emit: Emit) -> int:
    """Do a job's stages in order, up to the first that raises; 1 if one raised, else 0."""

    def load() -> Json:
        handle, facts = adapter.load(job)
        _loaded.append(handle)
        return {**facts}

    def write(action: Callable[[Json], Json]) -> Json:
        facts = action(job)
        return {**facts, "files": file_sizes(Path(job["output"]))}

    actions: dict[str, Callable[[], Json]] = {
        "build": lambda: write(adapter.build),
        "quantize": lambda: write(adapter.quantize),
        "load": load,
        "generate": lambda: adapter.generate(_loaded[-1], job),
    }

    def under_departures(action: Callable[[], Json]) -> Json:
        known = getattr(adapter, "DEPARTURES", {})
        with contextlib.ExitStack() as stack:
            for name in job["departures"]:
                if name not in known:
                    raise LookupError(f"departure {name!r}: this adapter has only {sorted(known)}")
                stack.enter_context(known[name]())
            facts = action()
            return {**gpu_facts(), **facts}

    for stage in job["stages"]:
        emit({"event": "stage", "stage": stage, "pid": os.getpid()})
        target = Path(job["results"]) / f"{stage}.json"
        if not record_stage(stage, target, lambda: under_departures(actions[stage])):  # noqa: B023
            return 1
    return 0


def fork_and_perform(adapter: ModuleType, job: Json, emit: Emit) -> int:
    """Do a job in a forked child and kill what it leaves; its exit code, negative for a signal."""
    server = os.getpid()
    before = child_processes()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == server:
                status = perform(adapter, job, emit)
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            print(f"the package ended the process: SystemExit({error.code!r})", file=sys.stderr)
        except BaseException:  # noqa: BLE001 - the child must not go on as a second server
            traceback.print_exc()
        finally:
            _exit(status & 0xFF)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    kill_children(keep=before)
    return os.waitstatus_to_exitcode(status)


def record_stage(stage: str, target: Path, action: Callable[[], Json]) -> bool:
    """Run one stage and leave its result at ``target``; whether it did not raise.

    ``SystemExit`` passes: a package that ends the process is recorded by the harness as what it
    did, an exit without a result.
    """
    started = time.perf_counter()
    facts: Json = {}
    failure = None
    with captured_warnings() as caught:
        try:
            facts = action()
            json.dumps(facts, allow_nan=False)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a package raises is its result,
            # and a panic of a Rust extension is no Exception
            facts, failure = {}, describe_exception(error)
    result = {
        "schema": SCHEMA,
        "stage": stage,
        "ok": failure is None,
        "seconds": time.perf_counter() - started,
        "peak_rss_bytes": peak_rss(),
        "exception": failure,
        "warnings": list(caught),
        "facts": facts,
    }
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(target)
    return failure is None


@contextlib.contextmanager
def captured_warnings() -> Iterator[dict[str, None]]:
    """Collect Python warnings and log records from WARNING up, each text once, still logged.

    A record factory sees the records of loggers that do not propagate, as transformers' and
    vLLM's do; a handler on the root logger would not.
    """
    caught: dict[str, None] = {}
    show, factory = warnings.showwarning, logging.getLogRecordFactory()

    def keep(text: str) -> None:
        if len(caught) < WARNINGS_LIMIT:
            caught[bounded(text, WARNING_LIMIT)] = None

    def show_and_keep(message: Any, category: Any, *rest: Any, **named: Any) -> None:
        keep(f"{category.__name__}: {message}")
        show(message, category, *rest, **named)

    def make_and_keep(*values: Any, **named: Any) -> logging.LogRecord:
        record = factory(*values, **named)
        if record.levelno >= logging.WARNING:
            # A record whose arguments do not fit its format is the package's mistake, not ours.
            with contextlib.suppress(Exception):
                keep(f"{record.name}: {record.getMessage()}")
        return record

    warnings.showwarning = show_and_keep
    logging.setLogRecordFactory(make_and_keep)
    try:
        yield caught
    finally:
        warnings.showwarning = show
        logging.setLogRecordFactory(factory)


def describe_exception(error: BaseException) -> Json:
    """Qualified type, bounded message and the last part of the traceback."""
    kind = type(error)
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - an exception's __str__ is the package's own code
        message = "<the exception cannot be shown as text>"
    lines = "".join(traceback.format_exception(kind, error, error.__traceback__))
    return {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": bounded(message, MESSAGE_LIMIT),
        "traceback": bounded(lines[-TRACEBACK_LIMIT:], TRACEBACK_LIMIT),
    }


def bounded(text: str, limit: int) -> str:
    """The first ``limit`` characters of a text, as valid Unicode (no lone surrogates)."""
    return text[:limit].encode("utf-8", "replace").decode("utf-8")


def load_adapter(path: Path) -> ModuleType:
    """Load an adapter from its file, as a module of a package that is its folder.

    So it may import a file beside it (``from .other import name``). The folder itself never gets on
    the path, or it would shadow the packages under test.
    """
    package = ModuleType("probe_adapters")
    package.__path__ = [str(path.parent)]
    sys.modules[package.__name__] = package
    spec = importlib.util.spec_from_file_location(f"{package.__name__}.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: not a Python file; an adapter is one .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def environment_facts() -> Json:
    """Python, every installed distribution's version, and the device the package can use."""
    versions = {
        found.metadata["Name"]: found.version
        for found in importlib.metadata.distributions()
        if found.metadata["Name"]
    }
    facts: Json = {"python": platform.python_version(), "versions": dict(sorted(versions.items()))}
    torch = sys.modules.get("torch")
    # Asked through NVML, torch does not initialise CUDA, after which a fork would be unusable.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if torch is not None and torch.cuda.is_available():
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        cards = [card for card in cards if _field([card], "GPU UUID") in shown] or cards
        return {**facts, "device": "cuda", "device_name": _field(cards[:1], "Model")}
    return {**facts, "device": "cpu", "device_name": _field([Path("/proc/cpuinfo")], "model name")}


def gpu_facts() -> Json:
    """The device that a stage ran on, and the most bytes this process ever held on one GPU.

    One that is shown GPUs and has put nothing there ran on the CPU, whatever it was asked for; an
    adapter whose workers are other processes says otherwise. Nothing where no GPU is shown.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    cards = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
    peak = max((torch.cuda.max_memory_allocated(card) for card in cards), default=0)
    return {"device": "cuda", "gpu_peak_bytes": peak} if peak else {"device": "cpu"}


def _field(files: list[Path], name: str) -> str:
    for file in files:
        with contextlib.suppress(OSError):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    return platform.machine()


def file_sizes(folder: Path) -> dict[str, int]:
    """Relative name -> bytes of every plain file under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def peak_rss() -> int:
    """Most memory, in bytes, that this process or one of its ended children ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    usages = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return unit * max(resource.getrusage(who).ru_maxrss for who in usages)


def child_processes() -> set[int]:
    """Processes whose parent is this one; empty where there is no /proc."""
    own = str(os.getpid())
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The command stands in parentheses and may hold anything; state and parent follow it.
            if entry.read_text(errors="replace").rpartition(")")[2].split()[1] == own:
                found.add(int(entry.parent.name))
    return found


def kill_children(keep: set[int]) -> None:
    """Kill the children not in ``keep``, and theirs: as subreaper this process inherits them."""
    while strays := child_processes() - keep:
        for pid in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in strays:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _take_streams() -> tuple[Iterator[str], Emit]:
    """Keep stdin and stdout for the protocol alone; packages get /dev/null and the log."""
    orders = os.fdopen(os.dup(0), encoding="utf-8")
    events = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    # Lines reach the log as they are printed. Not unbuffered: for such a stream gptqmodel's logbar
    # starts a thread, which a forked child does not have and then waits for.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    threading.Thread(target=_watch, args=(events,), daemon=True).start()

    def emit(event: Json) -> None:
        # One write below PIPE_BUF is atomic, and the forked child writes here as well.
        os.write(events, json.dumps(event).encode() + b"\n")

    return iter(orders.readline, ""), emit


def _watch(events: int) -> None:
    """End everything when nobody can read the events any more: the harness is gone."""
    poll = select.poll()
    poll.register(events, 0)  # POLLERR, the reader's end closed, is reported unasked
    poll.poll()
    _leave_nothing(1)


def _leave_nothing(status: int) -> NoReturn:
    kill_children(keep=set())
    _exit(status)


def _exit(status: int) -> NoReturn:
    """End without teardown: a crash in a destructor must not hide a result that is written."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    _exit(main())
