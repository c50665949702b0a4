"""The command that resolves all: what it counts and shows, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from matrix.spec.snapshot import Release, Snapshot, encode
from tests import REPOSITORY
from tests.processes.test_resolving import WAIT_SECONDS, locks
from tests.unit import small_spec

UV_OF_A_COMMAND = """#!/bin/sh
today() { grep -q '^exclude-newer = "2026' uv.toml; }
case "$(cat requirements.in)" in
  maker==1.0) echo maker==1.0; if today; then echo torch==2.9.1; else echo torch==2.1.2; fi ;;
  maker==2.0) if today; then HANG; fi; echo maker==2.0 ;;
  *) cat requirements.in ;;
esac > resolved.txt
"""
IN_PLACE = """
import sys, uv
place = sys.argv.pop(1)
uv.find_uv_bin = lambda: place
from matrix.cli.app import main
main()
"""


def spec_and_uv(tmp_path: Path, second: str) -> list[str]:
    """Write a spec, a snapshot in which its releases have dates, and an executable as uv."""
    dated = [Release(version, uploaded="2024-01-01T00:00:00Z") for version in ("1.0", "2.0")]
    packages = {"maker": dated, "runner": [Release("3.0", uploaded="2024-01-01T00:00:00Z")]}
    longer = ("resolve = { seconds = 10, silence = 10", "resolve = { seconds = 300, silence = 300")
    file = small_spec.write(tmp_path, longer)
    (tmp_path / "releases.json").write_bytes(encode(Snapshot(1, "2026-11-22T00:00:00Z", packages)))
    uv = tmp_path / "uv"
    uv.write_text(UV_OF_A_COMMAND.replace("HANG", second))
    uv.chmod(0o755)
    store = str(tmp_path / "store")
    return [sys.executable, "-c", IN_PLACE, str(uv), "resolve", "--spec", str(file),
            "--store", store, "--jobs", "1"]  # fmt: skip


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False
    )


def test_the_command_counts_and_shows_what_differs(tmp_path: Path) -> None:
    refuse = r"printf 'error: No solution found\n  cause: torch is gone\n' >&2; exit 1"
    command = spec_and_uv(tmp_path, refuse)
    done = run(command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 environments, 2 pairs of quantizer and engine" in done.stdout
    assert "released  3 resolved; both of 2 pairs resolved" in done.stdout  # twins has no date
    assert "today     1 refused, 3 resolved; both of 1 pairs resolved" in done.stdout
    assert "1 rotted\n  maker-2.0: resolved as released, is refused today" in done.stdout
    assert "  maker-1.0: torch 2.1.2 then, 2.9.1 today" in done.stdout
    as_json = json.loads(run([*command, "--format", "json"]).stdout)
    assert as_json["counts"]["today"] == {"resolved": 3, "refused": 1}
    refused = [row for row in as_json["environments"] if row["environment"] == "maker-2.0"]
    assert refused[0]["standings"][1]["refusal"].endswith("cause: torch is gone")


def test_one_resolution_or_one_profile_can_be_asked_for(tmp_path: Path) -> None:
    command = spec_and_uv(tmp_path, "exit 1")
    done = run([*command, "--profile", "all", "--resolution", "released"])
    assert "today " not in done.stdout.split("\n(", 1)[0]
    assert "released  3 resolved" in done.stdout


def test_an_interrupted_command_keeps_its_answers_and_leaves_no_process(tmp_path: Path) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    command = spec_and_uv(tmp_path, f"echo $$ > {started}; exec tail -f /dev/null")
    environ = {**os.environ, "MATRIX_SANDBOX": "off"}  # which hides pipe and pid
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environ, stderr=subprocess.PIPE, text=True
    ) as child:
        hanging = int(started.read_text())  # waits until it is written
        child.send_signal(signal.SIGINT)
        try:
            _, error = child.communicate(timeout=WAIT_SECONDS)
        finally:
            child.kill()
    assert child.returncode == 130
    assert "interrupted" in error
    assert "Traceback" not in error
    ended = subprocess.run(
        ["timeout", str(WAIT_SECONDS), "tail", f"--pid={hanging}", "-f", "/dev/null"], check=False
    )
    assert ended.returncode == 0
    kept = locks(tmp_path)
    assert kept
    again = run(spec_and_uv(tmp_path, "true"))
    assert again.returncode == 0
    assert kept < locks(tmp_path)
    assert len(locks(tmp_path)) == 7
