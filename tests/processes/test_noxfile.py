"""What loading the noxfile does: it is loaded by every session anew."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from matrix.store.sealing import seal
from tests import LIKE_ANY_USER, REPOSITORY
from tests.unit import small_spec

FREE = ("[departures.shim]", small_spec.FREE + "[departures.shim]")
"""A change to the small spec by which nothing is predicted to take any disk."""
LOADED = """
import json, os, sys
sys.argv[1:] = {arguments}
sys.path.insert(0, {repository!r})
import noxfile
heavy = {{"numpy", "pandas", "torch", "transformers"}} & set(sys.modules)
print(json.dumps({{
    "pending": noxfile.sessions.pending, "heavy": sorted(heavy),
    "parallel": noxfile.nox.options.parallel,
    "cells": [cell.id for cell in noxfile.context.plan.cells],
    "order": noxfile.sessions.first + noxfile.sessions.pending,
    "began": os.environ.get("MATRIX_BEGAN", ""),
}}))
"""


def noxfile(
    folder: Path,
    *changes: tuple[str, str],
    worker: bool = False,
    arguments: Sequence[str] = (),
    **variables: str,
) -> dict[str, Any]:
    """Load the noxfile in a process of its own; return what is left to do there."""
    arguments = ["--parallel-worker"] if worker else list(arguments)
    code = LOADED.format(arguments=arguments, repository=str(REPOSITORY))
    environ = {
        **os.environ, **variables, "MATRIX_SPEC": str(small_spec.write(folder, FREE, *changes)),
        "MATRIX_PROFILE": "all", "MATRIX_STORE": str(folder / "store"),
    }  # fmt: skip
    if worker:
        environ["MATRIX_UNDER_NOX"] = str(os.getpid())
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *lines, answer = done.stdout.splitlines()
    state: dict[str, Any] = json.loads(answer)
    return state | {"said": lines}


def test_what_has_something_to_do_is_waited_for_and_nothing_heavy_is_imported(
    tmp_path: Path,
) -> None:
    state = noxfile(tmp_path)
    assert state["pending"] == ["twins", "maker-1.0", "maker-2.0", "runner-3.0"]
    assert state["heavy"] == []
    assert int(state["parallel"]) >= 1


def test_the_longest_chain_is_begun_first_and_installing_before_all(tmp_path: Path) -> None:
    timed = [
        {"run": "r", "at": "2026", "step": "import", "key": "k", "outcome": "passed",
         "subject": name, "seconds": seconds}
        for name, seconds in (("maker-1.0", 5), ("maker-2.0", 50))
    ]  # fmt: skip
    records = tmp_path / "store" / "records" / "r-1.jsonl"
    records.parent.mkdir(parents=True)
    records.write_bytes(b"\n".join(seal(json.dumps(line).encode()) for line in timed))
    order = noxfile(tmp_path)["order"]
    assert order == ["canaries", "installs", "twins", "maker-2.0", "maker-1.0", "runner-3.0"]
    assert noxfile(tmp_path, worker=True)["order"] == []


def test_sessions_are_told_when_all_began_with_what_work_and_how_many_cells(
    tmp_path: Path,
) -> None:
    at, seconds, cells = map(float, noxfile(tmp_path)["began"].split())
    assert (at > 0, seconds, cells) == (True, 0, 6)
    assert noxfile(tmp_path, arguments=["-s", "lint"])["began"] == ""


def test_costs_are_said_where_the_matrix_is_asked_for_and_nowhere_else(tmp_path: Path) -> None:
    (cells, predicted, *_) = noxfile(tmp_path)["said"]
    assert cells == "profile all: 6 of 6 cells are to be done"
    assert "0.0 GB of downloads, 0.0 GB of disk" in predicted
    for arguments in (["-s", "lint"], ["-l"], ["-s", "tests", "report"]):
        assert noxfile(tmp_path, arguments=arguments)["said"] == []
    assert noxfile(tmp_path, worker=True)["said"] == []


def test_without_a_sandbox_nox_hides_its_secrets_and_still_tells_progress(tmp_path: Path) -> None:
    prying = (
        "import os; open(os.environ['MATRIX_PROGRESS'], 'a').write('progress\\n')\n"
        "open(f'/proc/{os.getppid()}/environ').read()"
    )
    code = (
        f"import subprocess, sys; sys.path.insert(0, {str(REPOSITORY)!r}); import noxfile\n"
        f"command = [sys.executable, '-c', {prying!r}]\n"
        "done = subprocess.run(command, stderr=subprocess.PIPE, text=True)\n"
        "print(done.stderr.splitlines()[-1])"
    )
    environ = {
        **os.environ, "MATRIX_SPEC": str(small_spec.write(tmp_path, FREE)), "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(tmp_path / "store"), "MATRIX_SANDBOX": "off",
    }  # fmt: skip
    done = subprocess.run(
        [*LIKE_ANY_USER, sys.executable, "-c", code], env=environ, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-2:-1] == ["progress"], done.stderr
    assert "PermissionError" in done.stdout.splitlines()[-1]
    assert "packages run without a sandbox: it is off" in done.stdout


def test_the_sessions_that_people_call_come_first_and_those_of_environments_are_tagged(
    tmp_path: Path,
) -> None:
    environ = {
        **os.environ, "MATRIX_SPEC": str(small_spec.write(tmp_path, FREE)),
        "MATRIX_PROFILE": "all", "MATRIX_STORE": str(tmp_path / "store"),
    }  # fmt: skip
    command = [sys.executable, "-m", "nox", "-l"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=True
    )
    listed = re.findall(r"^[*-] (\S+)( \[environment\])? ->", done.stdout, re.MULTILINE)
    names = [name for name, _ in listed]
    assert names[:5] == ["matrix", "report", "tests", "lint", "coverage"]
    assert [name for name, tag in listed if tag] == names[-4:]
    assert names[-4:] == ["twins", "maker-1.0", "maker-2.0", "runner-3.0"]


def test_a_disk_that_is_too_small_ends_it_before_any_session(tmp_path: Path) -> None:
    huge = ("torch_mb = 0", "torch_mb = 1e12")
    with pytest.raises(AssertionError, match="GB are predicted to be needed and") as caught:
        noxfile(tmp_path, huge)
    assert "Traceback" not in str(caught.value)
    assert noxfile(tmp_path, huge, arguments=["-s", "lint"])["said"] == []


def test_a_folder_that_is_not_there_ends_it_before_any_session(tmp_path: Path) -> None:
    options = 'adapter = "published"\noptions = { directory = "/proc/nope" }'
    brought = ('adapter = "./maker.py"', options)
    with pytest.raises(AssertionError, match=r"directory: /proc/nope cannot be listed") as caught:
        noxfile(tmp_path, brought)
    assert "Traceback" not in str(caught.value)
    assert noxfile(tmp_path, brought, arguments=["-s", "report"])["said"] == []


def test_a_worker_waits_for_nothing(tmp_path: Path) -> None:
    assert noxfile(tmp_path, worker=True)["pending"] == []


def test_what_cannot_run_on_this_machine_is_not_waited_for(tmp_path: Path) -> None:
    excluded = small_spec.TEXT.rpartition("[profiles.all.canaries]")[2]
    exclusion = """
[[exclusions]]
cells = "*/runner-3.0"
outcome = "needs-hardware"
reason = "made up"
source = "made up"
"""
    assert noxfile(tmp_path, (excluded, excluded + exclusion))["pending"] == []


def test_a_budget_leaves_the_chosen_cells_and_their_environments(tmp_path: Path) -> None:
    state = noxfile(tmp_path, ("torch_mb = 0", "torch_mb = 1"), MATRIX_DISK="0")
    assert (state["cells"], state["pending"]) == ([], [])
    all_cells = noxfile(tmp_path, MATRIX_MINUTES="1000000")["cells"]
    assert len(all_cells) == 6


def test_a_worker_takes_the_choice_that_was_made(tmp_path: Path) -> None:
    choice = {
        "minutes": 5, "disk_gb": None, "cells": {"tied/awq/maker-1.0/runner-3.0": "new"},
        "left_out": {}, "cost": {}, "profile": "all",
    }  # fmt: skip
    file = tmp_path / "cells.json"
    file.write_text(json.dumps(choice))
    state = noxfile(tmp_path, worker=True, MATRIX_CELLS=str(file), MATRIX_MINUTES="0")
    assert state["cells"] == ["tied/float/none/runner-3.0", "tied/awq/maker-1.0/runner-3.0"]


@pytest.mark.parametrize("text", ["", "{}"])
def test_a_broken_choice_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "cells.json"
    file.write_text(text)
    with pytest.raises(AssertionError, match="no choice can be read") as caught:
        noxfile(tmp_path, MATRIX_CELLS=str(file))
    assert "Traceback" not in str(caught.value)


SESSION = """
import sys
sys.argv[1:] = ["-s", "report"]
sys.path.insert(0, {repository!r})
import noxfile
class Session:
    posargs = ()
    def run(self, python, dash_m, *words, **options):
        print("ran", *words)
        if "--regressions" in words:
            raise noxfile.CommandFailed("killed")
    def warn(self, words):
        print("warned", words)
noxfile.matrix.func(Session())
"""


def test_a_report_is_written_though_regressions_could_not_be_run_again(tmp_path: Path) -> None:
    environ = {
        **os.environ, "MATRIX_SPEC": str(small_spec.write(tmp_path, FREE)),
        "MATRIX_PROFILE": "all", "MATRIX_STORE": str(tmp_path / "store"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SESSION.format(repository=str(REPOSITORY))], env=environ,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "ran matrix run --regressions",
        "warned what came out worse could not be run again: it is reported as it came out",
        "ran matrix report",
    ]
