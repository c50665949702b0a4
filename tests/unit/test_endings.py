"""How a log ends: its last exception, and what belongs to the failure that ended it."""

from __future__ import annotations

import pytest

from matrix.diagnose.endings import ending_of
from matrix.diagnose.passages import excerpt_of_text

CAUGHT = """Traceback (most recent call last):
  File "/x/site-packages/peft/import_utils.py", line 3, in <module>
ImportError: cannot import name 'shard_checkpoint'
"""
LATER = """Traceback (most recent call last):
  File "/opt/app/serve.py", line 3, in <module>
    load()
ValueError: the moon is in the seventh house
"""
CAUSE = "ImportError: cannot import name 'shard_checkpoint'"
SERVING = "INFO peft is left out\nINFO serving\n"


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("Traceback (most recent call last):\n  x\nValueError: a\n", "ValueError: a"),
        ("torch.OutOfMemoryError: no memory.\nbye", "torch.OutOfMemoryError: no memory."),
        ("(EngineCore pid=3) ERROR 11-30 [core.py:7] KeyError: 'x'\n", "KeyError: 'x'"),
        ("    assert torch.isnan(w).sum() == 0\nAssertionError\n", "AssertionError"),
        ("    raise Exception\nException\n", "Exception"),
        ("subprocess.TimeoutExpired: timed out", "subprocess.TimeoutExpired: timed out"),
        ('{"log":"KeyError: 1\\n","stream":"stderr"}', '"KeyError: 1\\n","stream":"stderr"}'),
        ('{"message": "Traceback\\nKeyError: 1"}', '\\nKeyError: 1"}'),
        ("Segmentation fault (core dumped)\n", "Segmentation fault"),
        ("    except ValueError:\n        pass\n", ""),
        ("ERROR: 3 errors were found\n", ""),
    ],
)  # fmt: skip
def test_the_last_exception_is_told_from_other_lines(text: str, last: str) -> None:
    assert ending_of(text).exception == last


def test_the_last_exception_may_stand_before_much_that_was_logged_after_it() -> None:
    text = "ValueError: a\n" + "INFO the server stops\n" * 3_000
    assert excerpt_of_text(text, []).ending.exception == "ValueError: a"


def test_a_line_belongs_to_what_ended_a_log_or_was_before_it() -> None:
    ending = ending_of(f"{CAUGHT}{SERVING}{LATER}INFO the server stops\n")
    assert not ending.is_about(CAUSE)
    assert not ending.is_about("INFO serving")
    assert ending.failure.startswith(LATER)
    for line in LATER.splitlines():
        assert ending.is_about(line)


@pytest.mark.parametrize(
    "between",
    [
        "\nThe above exception was the direct cause of the following exception:\n\n",
        "\nDuring handling of the above exception, another exception occurred:\n\n",
    ],
)
def test_what_an_exception_came_of_belongs_to_it(between: str) -> None:
    assert ending_of(f"{CAUGHT}{between}{LATER}").is_about(CAUSE)
    chain = f"{CAUGHT}{between}{LATER}{between}{LATER.replace('ValueError', 'OSError')}"
    assert ending_of(chain).is_about(CAUSE)


@pytest.mark.parametrize(
    "end",
    [
        "RuntimeError: Engine core initialization failed. See root cause above.",
        "Exception: Call to load_model failed: the worker died",
        "subprocess.CalledProcessError: Command '['python']' returned non-zero exit status 1.",
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
        "KeyboardInterrupt",
        "SystemExit: 1",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
    ],
)
def test_a_consequence_leaves_the_failure_as_it_was(end: str) -> None:
    ending = ending_of(f"{CAUGHT}{SERVING}Traceback (most recent call last):\n{end}\n")
    assert ending.exception == end.strip()
    assert ending.is_about(CAUSE)
    caught = ending_of(f"{CAUGHT}{SERVING}{LATER}Traceback (most recent call last):\n{end}\n")
    assert not caught.is_about(CAUSE)


def test_what_a_destructor_raises_is_a_consequence() -> None:
    end = "Exception ignored in: <function LLM.__del__>\nTraceback (most recent call last):\n"
    assert ending_of(f"{CAUGHT}{SERVING}{end}AttributeError: 'LLM' has no engine").is_about(CAUSE)


def test_a_traceback_without_its_beginning_belongs_to_its_exception() -> None:
    frame = '  File "/x/site-packages/awq/quantizer.py", line 79, in scale'
    source = "    assert torch.isnan(w).sum() == 0"
    ending = ending_of(f"{CAUGHT}{SERVING}{frame}\n{source}\nAssertionError\n")
    assert ending.is_about(source)
    assert not ending.is_about(CAUSE)
    assert ending_of(f"{frame}\n    raise Exception\nException\n").is_about("    raise Exception")


def test_where_nothing_was_raised_no_line_is_told_from_another() -> None:
    assert ending_of(SERVING).is_about("INFO serving")
    assert ending_of("").is_about("")
