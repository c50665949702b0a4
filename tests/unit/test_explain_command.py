"""``matrix explain``: what it says of a log, and its status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from matrix.cli import explain as command
from matrix.cli import issues

REMOVED = "cannot import name 'shard_checkpoint' from 'transformers.modeling_utils'"
LOG = f"""Traceback (most recent call last):
  File "/opt/env/lib/python3.11/site-packages/awq/models/base.py", line 14, in <module>
    from transformers.modeling_utils import shard_checkpoint
ImportError: {REMOVED} (/opt/env/lib/python3.11/site-packages/transformers/modeling_utils.py)
"""
UNKNOWN = "ValueError: the moon is in the seventh house"


def ask(folder: Path, log: str | bytes, *options: str, stdin: bool = False) -> Result:
    app = typer.Typer()
    app.command()(command.explain)
    data = log.encode() if isinstance(log, str) else log
    if stdin:
        return CliRunner().invoke(app, ["-", *options], input=data)
    file = folder / "log.txt"
    file.write_bytes(data)
    return CliRunner().invoke(app, [str(file), *options])


@pytest.mark.parametrize("stdin", [False, True])
def test_a_known_failure_gets_its_cause_fix_and_sources(tmp_path: Path, stdin: bool) -> None:
    done = ask(tmp_path, LOG, stdin=stdin)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert "AutoAWQ up to 0.2.6 cannot be imported" in lines[0]
    assert REMOVED in lines[1]
    assert [word for word in ("cause", "fix", "source", "known") if f"  {word}" in done.stdout] == [
        "cause", "fix", "source", "known",
    ]  # fmt: skip


def test_with_the_versions_of_another_issue_it_is_not_known(tmp_path: Path) -> None:
    done = ask(tmp_path, LOG, "--with", "autoawq=0.2.9", "--with", "transformers==4.51.3")
    assert done.exit_code == 1
    assert done.stdout.startswith("not known")
    assert "looks like an issue of other versions" in done.stdout


def test_an_unknown_failure_is_not_explained_by_a_word_of_its_log(tmp_path: Path) -> None:
    done = ask(tmp_path, f"WARNING: {REMOVED}\nTraceback (most recent call last):\n{UNKNOWN}\n")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[:2] == [
        "not known: no known issue explains this log:", f"  {UNKNOWN}",
    ]  # fmt: skip
    assert "also in the log: AutoAWQ up to 0.2.6" in done.stdout


@pytest.mark.parametrize("log", [b"", b"\n \n", b"\xff\xfe"])
def test_of_an_empty_log_that_is_said(tmp_path: Path, log: bytes) -> None:
    done = ask(tmp_path, log)
    assert (done.exit_code, done.stdout) == (1, "not known: the log is empty\n")


@pytest.mark.parametrize("stdin", [False, True])
def test_garbage_is_told_with_what_it_may_come_of(tmp_path: Path, stdin: bool) -> None:
    done = ask(tmp_path, "!" * 300, stdin=stdin)
    assert done.exit_code == 0
    assert done.stdout.startswith("garbage: an engine answered '!' again and again")
    assert "matrix inspect DIR" in done.stdout
    assert "it may be: AutoAWQ 0.2.7 to 0.2.7.post2 drop the embedding" in done.stdout
    answers = json.loads(ask(tmp_path, "!" * 300, "--format", "json").stdout)
    assert answers
    assert not any(answer["explains"] for answer in answers)


def test_of_an_error_alone_it_is_said_where_it_must_have_been_raised(tmp_path: Path) -> None:
    done = ask(tmp_path, "KeyError: 'qwen3'\n")
    assert done.exit_code == 1
    assert "looks like, where it was raised in transformers/models/auto/: " in done.stdout


@pytest.mark.parametrize("log", [b"\0\xff" * 5000, LOG[:60].encode()])
def test_what_says_nothing_is_not_known(tmp_path: Path, log: bytes) -> None:
    done = ask(tmp_path, log)
    assert (done.exit_code, done.stdout.splitlines()[0]) == (
        1, "not known: no known issue explains this log",
    )  # fmt: skip


def test_a_log_that_was_cut_in_its_traceback_is_explained_by_what_is_left(tmp_path: Path) -> None:
    assert ask(tmp_path, LOG[LOG.index("ImportError") :]).exit_code == 0


def test_an_exception_after_what_was_recognised_is_shown(tmp_path: Path) -> None:
    words = "the log ends with"
    assert words not in ask(tmp_path, LOG).stdout
    assert words not in ask(tmp_path, f"{LOG}{LOG}INFO the server stops\n").stdout
    stopped = "RuntimeError: Engine core initialization failed. See root cause above."
    done = ask(tmp_path, f"{LOG}INFO stopping\n{stopped}\n")
    assert done.exit_code == 0
    assert f"{words} {stopped}" in " ".join(done.stdout.split())


def test_what_was_caught_before_an_unknown_failure_is_only_also_in_the_log(tmp_path: Path) -> None:
    done = ask(tmp_path, f"{LOG}INFO serving\n{UNKNOWN}\n")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[:2] == [
        "not known: no known issue explains this log:", f"  {UNKNOWN}",
    ]  # fmt: skip
    assert "also in the log: AutoAWQ up to 0.2.6" in done.stdout


def test_json_has_all_that_fit(tmp_path: Path) -> None:
    done = ask(tmp_path, LOG, "--format", "json", "--with", "autoawq=0.2.6")
    (answer,) = json.loads(done.stdout)
    assert (answer["id"], answer["explains"]) == ("awq-shard-checkpoint", True)
    assert answer["sources"]
    assert json.loads(ask(tmp_path, UNKNOWN, "--format", "json").stdout) == []


def test_json_of_a_log_that_holds_other_letters_is_ascii(tmp_path: Path) -> None:
    log = LOG.replace("(/opt", "\u00e4\u202e(/opt")
    done = ask(tmp_path, log, "--format", "json", "--with", "autoawq=0.2.6")
    (answer,) = json.loads(done.stdout)
    assert done.stdout.isascii()
    assert "\u00e4" in answer["line"]


def test_what_a_log_holds_is_shown_as_text(tmp_path: Path) -> None:
    done = ask(tmp_path, LOG.replace("(/opt", "\x07\u202e<b>(/opt"))
    assert "\x07" not in done.stdout
    assert "⟨U+202E⟩" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/no/such/log"], "/no/such/log"),
        (["/"], "Is a directory"),
        (["/dev/null", "--with", "autoawq"], "transformers==4.51.3"),
        (["/dev/null", "--with", "=1.0"], "transformers==4.51.3"),
        (["/dev/null", "--with", "autoawq=new"], "transformers==4.51.3"),
        (["/dev/null", "--with", f"autoawq={'1' * 5000}"], "transformers==4.51.3"),
        (["/dev/null", "--with", "autoawq @ https://example.org=1"], "transformers==4.51.3"),
    ],
)
def test_a_mistake_is_a_line_and_status_2(arguments: list[str], words: str) -> None:
    app = typer.Typer()
    app.command()(command.explain)
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert words in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-issue"], "there is no such issue"),
        (["--add", "/dev/null"], "name the issue"),
        (["awq-gelutanh", "--near-miss"], "give it by --add"),
        (["--source", "https://example.org"], "give it by --add"),
    ],
)
def test_a_mistake_about_issues_is_a_line_and_status_2(arguments: list[str], words: str) -> None:
    app = typer.Typer()
    app.command()(issues.issues)
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert words in done.stderr
