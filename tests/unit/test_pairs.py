"""Which releases can share an environment: what is asked, what is made of answers, what is kept."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from matrix.environments.sharing import answers_of, clash
from matrix.spec.pairs import PAIRS, Pair, Questions, encode, pairs_of
from matrix.spec.tables import SpecError
from tests.unit.made_pairs import AS_OF, CLASH, PAIRS_MADE, TAKEN, loaded, resolver, write


def test_every_release_is_asked_beside_the_newest_of_each_other_package(tmp_path: Path) -> None:
    questions = Questions(loaded(tmp_path)).newest()
    assert [question.environment.name for question in questions] == [
        "maker-2.0+runner-3.0", "maker-2.0+runner-3.0",  # from both sides: one environment
        "maker-1.0+runner-3.0", "maker-2.0+runner-2.0",
    ]  # fmt: skip
    first = questions[0].environment
    assert first.requirements == ["maker==2.0", "runner==3.0"]
    assert (first.resolution, first.cutoff, first.device) == ("today", AS_OF, "cuda")
    assert first == questions[1].environment
    (metadata,) = questions[3].environment.metadata
    assert (metadata.package, metadata.version) == ("runner", "2.0")


def test_beside_any_release_uv_is_told_of_those_that_have_no_wheel(tmp_path: Path) -> None:
    questions = Questions(loaded(tmp_path))
    first = questions.newest()[0]
    question = questions.any_newer(first)
    assert question.environment.name == "maker-2.0+runner"
    assert question.environment.requirements == ["maker==2.0", "runner>=2.0"]
    assert [table.version for table in question.environment.metadata] == ["2.0"]
    newer = questions.any_newer(first, "2.0").environment
    assert newer.requirements == ["maker==2.0", "runner>=2.0,!=2.0"], "post-releases too"


def test_where_the_newest_is_refused_any_other_is_asked_for(tmp_path: Path) -> None:
    resolve, requirements = resolver(TAKEN)
    pairs, troubles = answers_of(Questions(loaded(tmp_path)), AS_OF, resolve)
    why = "runner wants torch==2.1, maker wants torch>=2.2"
    assert pairs.pairs == [
        Pair("maker", "2.0", "runner", "3.0", refusal=why),
        Pair("maker", "1.0", "runner", "3.0"),
        Pair("runner", "3.0", "maker", "2.0", refusal=why, instead="1.0"),
        Pair("runner", "2.0", "maker", "2.0"),
    ]
    assert troubles == []
    assert (pairs.as_of, pairs.since) == (AS_OF, {"maker": "1.0", "runner": "2.0"})
    assert requirements[3:] == [
        "maker==2.0 runner>=2.0", "maker>=1.0 runner==3.0",  # only beside what was refused
        "maker>=1.0,!=1.0 runner==3.0",  # whether 1.0 is the newest that does
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "newest"),
    [("1.0", "1.5", "1.5"), ("1.0", "2.0a1", "1.0"), ("2.0a1", "", "2.0a1")],
)
def test_what_uv_takes_is_asked_again_until_no_newer_release_will_do(
    tmp_path: Path, first: str, second: str, newest: str
) -> None:
    taken = {"maker>=1.0 runner==3.0": first, f"maker>={first},!={first} runner==3.0": second}
    resolve, _ = resolver({text: version for text, version in taken.items() if version})
    pairs, _ = answers_of(Questions(loaded(tmp_path)), AS_OF, resolve)
    assert [pair.instead for pair in pairs.pairs if pair.refusal] == ["", newest]


def test_what_uv_could_not_answer_is_no_pair_and_is_told(tmp_path: Path) -> None:
    resolve, _ = resolver(TAKEN, troubles={"maker-1.0+runner-3.0"})
    pairs, troubles = answers_of(Questions(loaded(tmp_path)), AS_OF, resolve)
    assert [(pair.package, pair.release) for pair in pairs.pairs] == [
        ("maker", "2.0"), ("runner", "3.0"), ("runner", "2.0"),
    ]  # fmt: skip
    assert troubles == ["maker-1.0+runner-3.0: the index is down"]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ('[pairs]\nmaker = { since = "9" }\nrunner = { since = "2.0" }\n', "no release of 'maker'"),
        ('[pairs]\nmaker = { since = "no" }\n', "since: 'no' is no version"),
        ('[pairs]\nunheard = { since = "1" }\n', "no release of 'unheard'"),
    ],
)
def test_a_range_that_takes_nothing_is_told(tmp_path: Path, table: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        Questions(loaded(tmp_path, table))


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        ("", ""),
        (CLASH, "runner wants torch==2.1, maker wants torch>=2.2"),
        (
            "error: No solution found when resolving dependencies\n  cause: Because vllm>=0.33.0 "
            "depends on transformers>=5.16.1,<5.21.0 and you require\n         vllm==0.33.0, "
            "we can conclude that you require transformers>=5.16.1,<5.21.0.",
            "vllm wants transformers>=5.16.1,<5.21.0",
        ),
        (
            "cause: Because vllm==0.30.0 depends on cutlass-dsl[cu13]==4.7.1 and sglang>=0.5.23 "
            "depends on cutlass-dsl[cu13]==4.8.0, we can conclude that",
            "vllm wants cutlass-dsl[cu13]==4.7.1, sglang wants cutlass-dsl[cu13]==4.8.0",
        ),
        (
            "cause: Because there is no version of gone==1 and you require gone==1, we can",
            "there is no version of gone==1 and you require gone==1, we can",
        ),
        ("cause: Because \x1b[31m", "␛[31m"),
    ],
)
def test_a_refusal_in_a_line_names_the_requirements_that_meet(refusal: str, line: str) -> None:
    assert clash(refusal) == line


def test_answers_are_kept_and_read_again(tmp_path: Path) -> None:
    spec = write(tmp_path)
    assert pairs_of(spec) is None
    (tmp_path / PAIRS).write_bytes(encode(PAIRS_MADE))
    assert pairs_of(spec) == PAIRS_MADE
    assert msgspec.json.decode(encode(PAIRS_MADE))["pairs"][1] == {
        "package": "maker", "release": "1.0", "partner": "runner", "newest": "3.0"
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 2}', "[" * 200])
def test_what_cannot_be_read_is_told_with_a_remedy(tmp_path: Path, text: str) -> None:
    spec = write(tmp_path)
    (tmp_path / PAIRS).write_text(text)
    with pytest.raises(SpecError, match="matrix pairs --take"):
        pairs_of(spec)
