"""A commit is looked up once, kept, and held to: against a made-up Hub on the loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from matrix.index import hub as module
from matrix.index.hub import FIRST_SEEN, HubUnreachableError, RevisionError, Revisions
from matrix.store.sealing import unseal
from tests.processes import index_server as served
from tests.processes.made_hub import NEW, OLD, REPOSITORY, Hub, serving

NOW = datetime(2026, 11, 22, 7, 0, tzinfo=UTC)
ASKED = {"repository": REPOSITORY, "revision": FIRST_SEEN}
LOCK = "Qwen--Qwen1.5-14B-Chat-AWQ.json"


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def endpoint(hub: Hub) -> Iterator[str]:
    with serving(hub) as address:
        yield address


@pytest.fixture
def revisions(tmp_path: Path, endpoint: str) -> Revisions:
    return made(tmp_path, endpoint)


def made(folder: Path, endpoint: str) -> Revisions:
    host = {"HF_ENDPOINT": f"{endpoint}/", "HF_TOKEN": "secret"}
    return Revisions(folder / "spec", folder / "store", host, lambda: NOW)


def commit_lock(folder: Path, revision: str) -> None:
    pin = {"schema": 1, "repository": ASKED["repository"], "revision": revision, "seen": "then"}
    folder.mkdir()
    (folder / LOCK).write_text(json.dumps(pin))


def test_the_first_run_records_the_commit_and_later_ones_hold_to_it(
    revisions: Revisions, hub: Hub, tmp_path: Path, endpoint: str
) -> None:
    assert revisions.held(ASKED)["revision"] == FIRST_SEEN
    assert hub.asked == []
    assert revisions.settle(ASKED) == {**ASKED, "revision": OLD}
    kept = json.loads((tmp_path / "store" / LOCK).read_text())
    assert kept == {
        "sha256": kept["sha256"], "schema": 1, "repository": ASKED["repository"], "revision": OLD,
        "seen": "2026-11-22T07:00:00+00:00",
    }  # fmt: skip
    hub.main = NEW
    later = made(tmp_path, endpoint)
    assert later.held(ASKED)["revision"] == OLD
    assert later.settle(ASKED)["revision"] == OLD
    assert hub.asked[-1].endswith(OLD)


def test_a_committed_lock_comes_before_the_stores(
    revisions: Revisions, hub: Hub, tmp_path: Path
) -> None:
    revisions.settle(ASKED)
    commit_lock(tmp_path / "spec", NEW)
    hub.asked.clear()
    assert revisions.held(ASKED)["revision"] == NEW
    assert hub.asked == []


def test_a_vanished_commit_is_an_error_that_names_it_and_what_is_there_now(
    revisions: Revisions, hub: Hub, tmp_path: Path
) -> None:
    revisions.settle(ASKED)
    hub.main, hub.commits = NEW, {NEW}
    for options in (ASKED, {**ASKED, "revision": OLD}):
        with pytest.raises(RevisionError, match=rf"{OLD} is gone.* main is {NEW} now") as caught:
            revisions.settle(options)
        assert not isinstance(caught.value, HubUnreachableError)
    assert json.loads((tmp_path / "store" / LOCK).read_text())["revision"] == OLD


def test_no_connection_is_told_apart_and_records_nothing(tmp_path: Path) -> None:
    revisions = made(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(HubUnreachableError, match="cannot be reached"):
        revisions.settle(ASKED)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("slow", [served.drip_headers, served.drip, served.silent])
def test_a_hub_that_never_ends_its_answer_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: served.Respond
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.3)
    monkeypatch.setenv("NO_PROXY", "*")
    with served.running() as server:
        server.answers[f"/api/models/{REPOSITORY}/revision/main"] = slow
        revisions = made(tmp_path, server.address.removesuffix("/simple"))
        with pytest.raises(HubUnreachableError, match=r"no whole answer|not answer in time"):
            revisions.settle(ASKED)


@pytest.mark.parametrize(
    ("status", "raw", "message"),
    [
        (503, b"{}", "status 503"),
        (401, b"{}", "status 401"),
        (200, b"<html>captive portal</html>", "names no commit"),
        (200, b'{"sha": "main"}', "names no commit"),
        (200, b'{"sha": "../../x"}', "names no commit"),
        (200, b" " * 8_000_001, "more than 8 MB"),
    ],
)
def test_an_answer_that_is_none_records_nothing(
    revisions: Revisions, hub: Hub, tmp_path: Path, status: int, raw: bytes, message: str
) -> None:
    hub.status, hub.raw = status, raw
    with pytest.raises(HubUnreachableError, match=message):
        revisions.settle(ASKED)
    assert not (tmp_path / "store").exists()


def test_a_hub_that_names_another_commit_than_asked_is_not_believed(
    revisions: Revisions, hub: Hub
) -> None:
    hub.raw = json.dumps({"sha": NEW}).encode()
    with pytest.raises(RevisionError, match=f"asked for {OLD}, the Hub names {NEW}"):
        revisions.settle({**ASKED, "revision": OLD})


def test_a_repository_that_is_gone_or_none_is_an_error(revisions: Revisions, hub: Hub) -> None:
    with pytest.raises(RevisionError, match="no such repository"):
        revisions.settle({**ASKED, "repository": "Qwen/nothing"})
    hub.asked.clear()
    for repository in ("Qwen", "../../etc/passwd", "a/b/c", "a/b?x=1"):
        with pytest.raises(RevisionError, match="write it as owner/name"):
            revisions.settle({**ASKED, "repository": repository})
    assert hub.asked == []


@pytest.mark.parametrize(
    "options", [{}, {"directory": "/model"}, {"repository": "a/b", "revision": "main"}, {"seed": 0}]
)
def test_what_is_no_commit_to_settle_is_left_as_it_is(
    revisions: Revisions, hub: Hub, options: dict[str, Any]
) -> None:
    assert revisions.settle(options) == revisions.held(options) == options
    assert hub.asked == []


@pytest.mark.parametrize("text", ["{", '{"schema": 2}', "{}"])
def test_a_lock_that_cannot_be_read_is_not_passed_over(
    revisions: Revisions, hub: Hub, tmp_path: Path, text: str
) -> None:
    commit_lock(tmp_path / "spec", OLD)
    (tmp_path / "spec" / LOCK).write_text(text)
    assert revisions.held(ASKED) == ASKED
    with pytest.raises(RevisionError, match=f"{LOCK} cannot be read"):
        revisions.settle(ASKED)
    assert hub.asked == []


def test_a_lock_of_a_store_that_was_changed_is_not_passed_over(
    revisions: Revisions, tmp_path: Path, endpoint: str
) -> None:
    revisions.settle(ASKED)
    lock = tmp_path / "store" / LOCK
    lock.write_text(lock.read_text().replace(OLD, NEW))
    with pytest.raises(RevisionError, match=rf"{LOCK} cannot be read \(is not what was written"):
        made(tmp_path, endpoint).settle(ASKED)
    lock.write_bytes(unseal(lock.read_bytes().replace(NEW.encode(), OLD.encode())))
    with pytest.raises(RevisionError, match=r"has no digest.* put it beside the spec"):
        made(tmp_path, endpoint).settle(ASKED)
    (tmp_path / "spec").mkdir()
    lock.rename(tmp_path / "spec" / LOCK)
    assert made(tmp_path, endpoint).settle(ASKED)["revision"] == OLD


def test_a_lock_of_another_repository_is_not_believed(
    revisions: Revisions, hub: Hub, tmp_path: Path
) -> None:
    commit_lock(tmp_path / "spec", OLD)
    lock = tmp_path / "spec" / LOCK
    lock.write_text(lock.read_text().replace("14B", "7B"))
    with pytest.raises(RevisionError, match=r"is of Qwen/Qwen1\.5-7B-Chat-AWQ"):
        revisions.settle(ASKED)
    assert hub.asked == []


def test_of_two_processes_the_first_to_record_wins(
    revisions: Revisions, hub: Hub, tmp_path: Path, endpoint: str
) -> None:
    other = made(tmp_path, endpoint)
    answer = hub.answer

    def meanwhile(path: str) -> tuple[int, bytes]:
        hub.answer = answer  # type: ignore[method-assign]
        reply = answer(path)
        hub.main = NEW
        assert other.settle(ASKED)["revision"] == NEW
        return reply

    hub.answer = meanwhile  # type: ignore[method-assign]
    assert revisions.settle(ASKED)["revision"] == NEW


def test_a_commit_that_was_found_is_asked_for_once(revisions: Revisions, hub: Hub) -> None:
    for _ in range(3):
        revisions.settle({**ASKED, "revision": OLD})
    assert len(hub.asked) == 1


def test_no_token_is_sent(revisions: Revisions, hub: Hub) -> None:
    revisions.settle(ASKED)
    assert hub.tokens == [None]
