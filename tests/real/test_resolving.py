"""Resolved for real, with the index: what a release got when it came out, and what it gets today.

What is asserted was first seen by hand. A cache of uv of their own shows what was downloaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from matrix.environments import locks as environments
from matrix.environments.locks import Lock
from matrix.environments.resolving import Resolved, resolve_all
from matrix.machine.sandbox import find_sandbox
from matrix.spec.loading import LoadedSpec, load
from matrix.spec.tables import Resolution
from matrix.spec.versions import parsed
from matrix.store.store import Store

VLLM = "vllm-0.3.3+cuda"
AUTOAWQ = "autoawq-0.2.7+released"
STOCK_AUTOAWQ = "autoawq-0.2.7+transformers-4.46.3+cuda"
SOURCE_ONLY = "gptqmodel-2.2.0+transformers-4.51.3+cuda"
TAKEN_OVER = "vllm-0.6.3+cuda"
NAMES = (VLLM, AUTOAWQ, STOCK_AUTOAWQ, SOURCE_ONLY, TAKEN_OVER)
THEN_AND_NOW: tuple[Resolution, ...] = ("released", "today")


class Survey(NamedTuple):
    """What was asked of uv once, and where its cache and the answers lie."""

    loaded: LoadedSpec
    folder: Path
    locks: dict[tuple[str, Resolution], Lock]


def ask(loaded: LoadedSpec, folder: Path) -> list[Resolved]:
    environments = [loaded.at(name, resolution) for name in NAMES for resolution in THEN_AND_NOW]
    host = {**os.environ, "UV_CACHE_DIR": str(folder / "uv")}
    limits = loaded.spec.limits.resolve
    store = Store(folder / "store")
    return list(
        resolve_all(
            environments, folder / "none", store, host, limits, find_sandbox(), lambda _: None, 2
        )
    )


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    loaded, folder = load(), tmp_path_factory.mktemp("resolving")
    answers = ask(loaded, folder)
    troubles = [answer.conclusion.message for answer in answers if answer.lock is None]
    assert troubles == [], "the index could not be asked"
    locks = {
        (answer.environment.name, answer.environment.resolution): answer.lock
        for answer in answers
        if answer.lock is not None
    }
    return Survey(loaded, folder, locks)


def test_vllm_0_3_3_got_the_transformers_of_its_days_and_gets_todays(survey: Survey) -> None:
    then, now = survey.locks[VLLM, "released"], survey.locks[VLLM, "today"]
    assert then.pins["transformers"].startswith("4.38.")
    assert then.pins["torch"] == now.pins["torch"] == "2.1.2"
    assert now.pins["transformers"].startswith("5.")
    assert then.pins["outlines"] != now.pins["outlines"]


def test_autoawq_0_2_7_got_a_transformers_that_it_works_with_and_gets_one_that_breaks_it(
    survey: Survey,
) -> None:
    then, now = survey.locks[AUTOAWQ, "released"], survey.locks[AUTOAWQ, "today"]
    assert (then.pins["transformers"], then.pins["torch"]) == ("4.46.3", "2.5.1")
    today = parsed(now.pins["transformers"])
    assert today is not None
    assert today.major >= 5


def test_stock_autoawq_0_2_7_cannot_be_had_as_released_since_what_it_wants_was_yanked(
    survey: Survey,
) -> None:
    then, now = survey.locks[STOCK_AUTOAWQ, "released"], survey.locks[STOCK_AUTOAWQ, "today"]
    assert "intel-extension-for-pytorch" in then.refusal
    assert "yanked" in then.refusal
    assert now.refusal == ""
    assert "intel-extension-for-pytorch" in now.pins


def test_a_release_without_a_wheel_is_resolved_by_the_metadata_of_the_spec(survey: Survey) -> None:
    then = survey.locks[SOURCE_ONLY, "released"]
    assert (then.pins["tokenicer"], then.pins["logbar"]) == ("0.0.4", "0.0.4")


def test_a_package_whose_name_a_stranger_took_is_not_built(survey: Survey) -> None:
    then, now = survey.locks[TAKEN_OVER, "released"], survey.locks[TAKEN_OVER, "today"]
    assert "there are no versions of pyairports" in then.refusal
    assert now.refusal.startswith("pyairports==0.0.1 has no wheel")


def test_no_wheel_is_downloaded(survey: Survey) -> None:
    cache = survey.folder / "uv"
    assert list(cache.rglob("*.msgpack"))  # what packages say of themselves was
    assert [file.name for file in cache.rglob("*.so")] == []
    assert sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) < 100e6


def test_what_was_answered_is_only_read_again(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "run", None)  # calling it would raise
    again = ask(survey.loaded, survey.folder)
    locks = {
        (answer.environment.name, answer.environment.resolution): answer.lock for answer in again
    }
    assert locks == survey.locks
