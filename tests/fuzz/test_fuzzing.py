"""What holds the properties here: the bounds are kept to, and no input that broke one is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.fuzz import fuzzing
from tests.fuzz.fuzzing import (
    CORPUS,
    MOST_BYTES,
    MOST_RESERVED,
    TooMuchWork,
    bounded,
    fuzzed,
)


def test_work_without_end_is_ended_whatever_it_catches() -> None:
    def work() -> None:
        while True:
            try:
                len("")
            except Exception:  # noqa: BLE001 - as a reader might
                return

    with pytest.raises(TooMuchWork), bounded(1_000):
        work()


def test_more_memory_than_it_may_have_is_told() -> None:
    with bounded(1_000):
        assert len(b"x" * (MOST_BYTES // 2))
    with pytest.raises(TooMuchWork, match="MB of memory"), bounded(1_000):
        assert len(b"x" * (2 * MOST_BYTES))
    with pytest.raises(MemoryError), bounded(1_000):
        bytes(2 * MOST_RESERVED)


def test_the_corpus_comes_first_and_what_breaks_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzing, "CORPUS", tmp_path / "corpus")
    monkeypatch.setattr(fuzzing, "BROKE", tmp_path / "broke")
    (tmp_path / "corpus" / "kind").mkdir(parents=True)
    (tmp_path / "corpus" / "kind" / "bad").write_bytes(b"bad")
    inputs = []

    @fuzzed("kind", st.just(b"good"))
    def holds(data: bytes) -> None:
        inputs.append(data)
        assert data != b"bad"

    with pytest.raises(AssertionError) as raised:
        holds()
    assert inputs == [b"bad"]
    assert (tmp_path / "broke" / "kind").read_bytes() == b"bad"
    assert "tests/fuzz/corpus/kind" in raised.value.__notes__[0]


def test_all_of_the_corpus_is_of_a_kind_that_is_tried() -> None:
    texts = (file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    kinds = {kind for text in texts for kind in re.findall(r'@fuzzed\("(\w+)"', text)}
    assert {folder.name for folder in CORPUS.iterdir()} <= kinds
