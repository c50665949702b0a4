"""An engine and a quantizer that misbehave as the option ``behaviour`` says, in the step named by
the option ``at``. With ``good`` they do what they should."""

import base64
import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]
RENAMED = (b'"model.embed_tokens.weight"', b'"lm_head.weight"           ')
"""A name of the header, and another one in as many bytes."""


def import_package(_options: Json) -> None:
    """Nothing to import."""


def load(job: Json) -> tuple[Json, Json]:
    """Load nothing."""
    misbehave("load", job)
    return job, {"kernel": "made-up", "kernels": {}}


def generate(_handle: Json, job: Json) -> Json:
    """Give the answers that the builder laid beside the model, or others."""
    misbehave("generate", job)
    answers: Json = json.loads(Path(job["checkpoint"], "answers.json").read_text())
    behaviour = job["options"]["behaviour"]
    if behaviour == "wrong-text":
        answers["outputs"] = [{"ids": [90, 91, 92], "text": "wrong"} for _ in answers["outputs"]]
        answers["held_out"] = [[v - 9 for v in values] for values in answers["held_out"]]
        other = base64.b64encode(struct.pack("<6i", *[3, 4] * 3)).decode()
        answers["likeliest"] = [{**text, "ids": other} for text in answers["likeliest"]]
    if behaviour == "token-zero":
        answers["outputs"] = [{"ids": [0, 0, 0], "text": "!!!"} for _ in answers["outputs"]]
        answers["held_out"] = [[None] * len(values) for values in answers["held_out"]]
    if behaviour == "nests":
        for _ in range(300):
            answers = {"outputs": [answers]}
    if behaviour == "wrong-shape":
        answers["held_out"] = answers["held_out"][:1]
    return answers


def quantize(job: Json) -> Json:
    """Copy the model, and spoil it as asked."""
    misbehave("quantize", job)
    output = Path(job["output"])
    shutil.copytree(job["model"], output)
    weights = output / "model.safetensors"
    behaviour = job["options"]["behaviour"]
    if behaviour == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    if behaviour == "dropped":
        weights.write_bytes(weights.read_bytes().replace(*RENAMED))
    if behaviour == "pickle":
        weights.unlink()
        (output / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'exit 1'\ntR.")
    return {}


def misbehave(step: str, job: Json) -> None:
    """Do what the options ask for in this step."""
    options = job["options"]
    if options.get("at") != step:
        return
    behaviour = options["behaviour"]
    if behaviour == "raise":
        raise ValueError("made to fail\nwith <b>two</b> lines")
    if behaviour == "needs-gpu":
        raise RuntimeError("a made-up GPU is required")
    if behaviour == "segfault":
        ctypes.string_at(0)
    if behaviour == "illegal-in-worker":
        if (pid := os.fork()) == 0:
            misbehave(step, {**job, "options": {**options, "behaviour": "illegal-instruction"}})
        os.waitpid(pid, 0)
        raise RuntimeError("Worker 0 died unexpectedly")
    if behaviour == "illegal-instruction":
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\x06")  # PUSH ES, which no 64-bit CPU of x86 has
        ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    if behaviour == "old-glibc":
        raise ImportError(
            "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found (required by x.so)"
        )
    if behaviour == "segfault-when-forked" and forked():
        ctypes.string_at(0)
    if behaviour == "exit-0":
        os._exit(0)
    if behaviour == "hang":
        while True:
            print("still there", flush=True)
            time.sleep(0.2)
    if behaviour == "silent":
        time.sleep(600)
    if behaviour == "says-events":
        while True:
            say('{"event": "progress"}', '{"event": "stage", "stage": "load"}')
            time.sleep(0.2)
    if behaviour == "floods-events":
        while True:
            say(*["{}"] * 1000)
    if behaviour == "ends-often":
        say(*['{"event": "ended", "status": 0}'] * 1000)
        time.sleep(0.2)
    if behaviour == "kills-itself":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "boasts":
        leave(job, facts={"outputs": "x" * 31_000_000})
    if behaviour == "boasts-of-little":
        leave(job, facts={"outputs": [[]] * 900_000})
    if behaviour == "warns":
        leave(job, warnings=["w"] * 700_000)
    if behaviour == "litters":
        deep = os.open(os.environ["TMPDIR"], os.O_RDONLY)
        for _ in range(3_000):
            os.mkdir("d", dir_fd=deep)
            deep, outer = os.open("d", os.O_RDONLY, dir_fd=deep), deep
            os.close(outer)
    if behaviour == "chatter":
        while True:
            os.write(1, b"x" * 65536)
    if behaviour == "all-memory":
        hoard: list[bytearray] = []
        while True:
            hoard.append(bytearray(20_000_000))
    if behaviour == "disk-full":
        raise OSError(errno.ENOSPC, "No space left on device", str(job.get("output")))
    if behaviour == "disk-full-for-results":
        os.write(2, b"OSError: [Errno 28] No space left on device: 'load.json'\n")
        os._exit(1)
    if behaviour == "writes-and-hangs":
        Path(job["results"], "load.json").write_text(
            '{"schema":1,"stage":"load","ok":true,"seconds":0,"peak_rss_bytes":0}'
        )
        time.sleep(600)
    if behaviour == "writes-no-text":
        Path(job["results"], "load.json").write_bytes(b'{"schema":1,"stage":"\xff\xfe"}')
        os._exit(0)
    if behaviour == "daemon":
        subprocess.Popen(
            [sys.executable, "-c", "import time\nwhile True: time.sleep(1)", "matrix-test-daemon"],
            start_new_session=True,
        )
    if behaviour == "lie":
        os.write(1, b'{"event": "ended", "status": 0}\n')


def say(*events: str) -> None:
    """Write lines to the pipe of events, wherever it is open."""
    for place in Path("/proc/self/fd").iterdir():
        handle = int(place.name)
        with contextlib.suppress(OSError):
            is_pipe = str(place.readlink()).startswith("pipe:")
            if is_pipe and handle > 2 and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_WRONLY:
                os.write(handle, "".join(f"{event}\n" for event in events).encode())


def leave(job: Json, **more: Any) -> None:
    """Write the result of a load by its own hand, and end."""
    result = {"schema": 1, "stage": "load", "ok": True, "seconds": 0, "peak_rss_bytes": 0}
    Path(job["results"], "load.json").write_text(json.dumps({**result, **more}))
    os._exit(0)


def forked() -> bool:
    """Whether this is the server's forked child: its parent has the same command line."""
    parent = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    return parent == Path("/proc/self/cmdline").read_bytes()
