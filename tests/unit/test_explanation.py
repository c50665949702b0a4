"""What the known issues say of logs in the forms in which people show them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from io import BytesIO

import pytest

from matrix.diagnose.catalogue import Effect, load_issues, unmarked
from matrix.diagnose.explanation import Explanation, explain_log, repeated_in
from matrix.diagnose.matching import Side, literals
from matrix.diagnose.passages import read_excerpt

ISSUES = list(load_issues().values())
LITERALS = literals(ISSUES)
LOGS = [
    (issue.id, unmarked(log.text)[0])
    for issue in ISSUES
    for log in issue.logs
    if not log.check and issue.effect is not Effect.HARMLESS
]
MOON = "ValueError: the moon is in the seventh house"


def explain(data: bytes, **installed: str) -> Explanation:
    return explain_log(ISSUES, read_excerpt(BytesIO(data), LITERALS), Side(installed))


def first(data: bytes) -> str:
    explanation = explain(data)
    return explanation.matches[0].issue.id if explanation.is_explained else ""


def prefixed(prefix: str) -> Callable[[str], bytes]:
    return lambda text: "\n".join(prefix + line for line in text.splitlines()).encode()


def in_colours(text: str) -> bytes:
    return re.sub(r"\w+", lambda word: f"\x1b[31m{word[0]}\x1b[0m", text).encode()


def cut(text: str) -> bytes:
    parts = [
        line[at : at + 80] for line in text.splitlines() for at in range(0, max(len(line), 1), 80)
    ]
    return "\n".join(parts).encode()


FORMS: dict[str, Callable[[str], bytes]] = {
    "docker compose": prefixed("vllm-1  | "),
    "journalctl": prefixed("Nov 30 07:45:47 gpu01 vllm[1234]: "),
    "kubernetes": prefixed("2026-06-28T06:11:52.685300953Z stderr F "),
    "a process of vLLM": prefixed("(EngineCore_DP0 pid=24) ERROR 08-05 23:29:38 [core.py:700] "),
    "a mail": prefixed("> "),
    "windows": lambda text: text.replace("\n", "\r\n").encode(),
    "powershell": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "colours": in_colours,
    "no backticks": lambda text: text.replace("`", "").encode(),
    "80 columns": cut,
    "a server that ends after it": lambda text: (
        f"{text}\nTraceback (most recent call last):\nRuntimeError: Engine core initialization "
        "failed. See root cause above. Failed core proc(s): {}\n"
    ).encode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_log_is_explained_in_each_form(form: Callable[[str], bytes]) -> None:
    assert {name: first(form(text)) for name, text in LOGS} == {name: name for name, _ in LOGS}


def test_what_was_caught_does_not_explain_a_later_failure() -> None:
    later = f'INFO serving\nTraceback (most recent call last):\n  File "/x.py", line 3\n{MOON}\n'
    chained = re.compile(r"another exception occurred:\s*\Z")
    caught = [(name, text) for name, text in LOGS if not chained.search(text)]
    assert len(caught) > 0.9 * len(LOGS)
    explained = {name for name, text in caught if first(f"{text}\n{later}".encode())}
    assert explained <= {"tf5-chat-template-batch-encoding"}


def test_of_two_failures_the_one_that_ended_the_log_comes_first() -> None:
    caught = "ImportError: cannot import name 'shard_checkpoint' from 'transformers.modeling_utils'"
    ended = "RuntimeError: Failed to infer device type"
    for lines, name in (([caught, ended], "vllm-device-type"), ([ended, caught], "awq-shard-che")):
        assert first("\nINFO going on\n".join(lines).encode()).startswith(name)


def test_joining_lines_hides_no_later_failure() -> None:
    caught = "ImportError: cannot import name 'shard_checkpoint' from 'transformers.modeling_utils'"
    longest = f"INFO serving {'x' * len(caught)}"
    for later in ("Exception: the moon is full", "asyncio.TimeoutExpired: the moon is late"):
        assert not explain(f"{caught}\n{longest}\n{later}\n".encode()).is_explained


BARE = "torch._C._LinAlgError: linalg.cholesky: The factorization could not be completed because "
BARE += "the input is not positive-definite (the leading minor of order 16383)."


def test_of_an_error_alone_it_is_said_where_it_must_have_been_raised() -> None:
    explanation = explain(BARE.encode())
    assert not explanation.is_explained
    (match,) = explanation.matches
    assert (match.issue.id, match.raised_in) == ("gptq-cholesky", "auto_gptq/")


@pytest.mark.parametrize(
    ("before", "name"),
    [
        ("from gptqmodel import GPTQModel", "gptq-cholesky"),
        ("import auto_gptq", "gptq-cholesky"),
        ("import numpy", ""),
        ('  File "/x/site-packages/sklearn/mixture.py", line 3, in fit', ""),
        ('from gptqmodel import GPTQModel\n  File "/x/sklearn/mixture.py", line 3, in fit', ""),
    ],
)
def test_an_import_says_whose_error_it_is_where_no_frame_does(before: str, name: str) -> None:
    assert first(f"{before}\n{BARE}".encode()) == name


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("!" * 400, "!"),
        ("Generated text: '!!!!!!!!!!!!!!!!!!!!!!!!!!!!'", "!"),
        ("Prompt: who are you?\n" + "<unk>" * 40, "<unk>"),
        ("the the " * 30, "the"),
        ("of the of the " * 30, "of the"),
        ("' the the the …'", "the"),
        (" the the the the\n", "the"),
        ('Generated: " of the of the of the of th..."', "of the"),
        ("vllm says ‘the the the the’", "the"),
        ("INFO a step\nINFO a step\nINFO a step\nINFO done", ""),
        ("tensor([nan nan nan nan])", ""),
        ("it is 'very very good' and '--- --- --- ---'", ""),
        ("\u7684" * 60, "\u7684"),
        ("-" * 100, ""),
        ("=" * 80 + "\n" + "0 " * 100, ""),
        ("INFO all is well\n" * 200, ""),
        ("Loading: 100%|" + "\u2588" * 60 + "|", ""),
        ("A sentence of many words, none of which comes so often that it says anything.", ""),
        ("", ""),
    ],
)
def test_what_an_answer_repeats(text: str, repeated: str) -> None:
    assert repeated_in(text) == repeated


def test_garbage_may_come_of_the_issues_of_garbage_in_the_versions_that_are_there() -> None:
    explanation = explain(b"!" * 200)
    assert (explanation.repeated, explanation.is_explained) == ("!", False)
    assert all(match.issue.garbage for match in explanation.matches)
    names = [match.issue.id for match in explanation.matches]
    assert "awq-tied-embedding-dropped" in names
    newer = [match.issue.id for match in explain(b"!" * 200, autoawq="0.2.9").matches]
    assert "awq-tied-embedding-dropped" not in newer
    assert newer


def test_garbage_before_a_failure_is_a_failure() -> None:
    assert not explain(b"!" * 200 + f"\n{MOON}\n".encode()).repeated
