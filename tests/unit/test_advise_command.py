"""``python -m matrix advise``: what it takes, what it prints, and how it ends."""

from __future__ import annotations

import json
from datetime import date
from functools import cache
from pathlib import Path

import msgspec
import pytest
import typer
from hypothesis import given, settings
from typer.testing import CliRunner, Result

from matrix.cli import advise as command
from matrix.cli.advice_text import SHOWN, in_words
from matrix.judge.document import decode, encode
from matrix.judge.likeness import Wish
from matrix.judge.readings import readings
from matrix.judge.results import CanaryState, MatrixResult, SchemeFacts, Side
from matrix.pipeline.outcomes import Verdict
from matrix.report.locks import lock_files
from matrix.report.table import normalise
from matrix.spec.loading import LoadedSpec, load
from matrix.untrusted.text import visible
from tests.unit import hostile_results
from tests.unit.advice_results import AWQ, MODELS, cell, maker, result, vllm

GOOD, BAD = maker("autoawq 0.2.9"), maker("autoawq 0.2.7")
RESULT = result(
    cell(GOOD, vllm("0.32.0"), departures=["shim"]),
    cell(BAD, vllm("0.32.0"), Verdict.GARBAGE, message="only lm_head\x1b[31m"),
    cell(BAD, vllm("0.19.1"), model="untied"),
)


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_today", lambda: date(2026, 11, 30))


def write(folder: Path, of: MatrixResult = RESULT) -> Path:
    file = folder / "matrix.json"
    file.write_bytes(encode(normalise(of)))
    return file


def ask(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(command.advise)
    return CliRunner().invoke(app, list(arguments))


def about(folder: Path, *arguments: str, of: MatrixResult = RESULT, model: str = "tied") -> Result:
    file = write(folder, of)
    return ask("--evidence", str(file), "--model", model, "--method", "awq", *arguments)


def test_what_is_proven_comes_with_its_evidence_and_what_it_departs_in(tmp_path: Path) -> None:
    done = about(tmp_path)
    assert done.exit_code == 0
    for line in (
        "awq of qwen2 (tied): proven, the newest releases first:",
        "  autoawq-0.2.9+transformers-4.51.3 in vllm-0.32.0 (awq-g64: tied)",
        "    2026-11-20, 10 days old, 1 run, cpu x86-64-v4, avx512_bf16; departs: shim",
        "  shim: a shim, because it must be",
        "  garbage: autoawq-0.2.7+transformers-4.51.3 in vllm-0.32.0",
        "    only lm_head␛[31m",
    ):
        assert line in done.stdout.splitlines()
    assert "\x1b" not in done.stdout


def test_what_all_proofs_ran_on_is_said_once(tmp_path: Path) -> None:
    of = result(cell(GOOD, vllm("0.32.0")), cell(GOOD, vllm("0.19.1")))
    lines = about(tmp_path, of=of).stdout.splitlines()
    assert [line for line in lines if "avx512_bf16" in line] == [
        "all of it on cpu x86-64-v4, avx512_bf16"
    ]
    assert sum(line == "    2026-11-20, 10 days old, 1 run" for line in lines) == 2
    other = cell(GOOD, vllm("0.19.1"), device="cpu x86-64-v3")
    lines = about(tmp_path, of=result(cell(GOOD, vllm("0.32.0")), other)).stdout.splitlines()
    assert "    2026-11-20, 10 days old, 1 run, cpu x86-64-v4, avx512_bf16" in lines
    assert not [line for line in lines if line.startswith("all of it")]


def test_a_checkpoint_that_was_repaired_first_is_told_as_such(tmp_path: Path) -> None:
    repaired = msgspec.structs.replace(BAD, name=f"{BAD.name}+repaired", repairs=["tied-embedding"])
    done = about(tmp_path, of=result(cell(repaired, vllm("0.32.0"))))
    line = "    after `matrix repair` of the checkpoint: tied-embedding"
    assert line in done.stdout.splitlines()
    assert "after `matrix repair`" not in about(tmp_path).stdout


def test_requirements_files_are_the_locks_of_what_passed_and_of_nothing_else(
    tmp_path: Path,
) -> None:
    out = tmp_path / "my folder"
    done = about(tmp_path, "--out", str(out))
    names = [GOOD.environment, vllm("0.32.0").environment]
    assert sorted(file.name for file in (out / "locks").iterdir()) == [f"{n}.txt" for n in names]
    locks = lock_files(decode(write(tmp_path).read_bytes()))
    for name in names:
        assert (out / f"locks/{name}.txt").read_text() == locks[f"locks/{name}.txt"]
    assert f"  cd '{out}' && uv venv --python 3.11 vllm-0.32.0 && uv pip install" in done.stdout


def test_no_folder_of_requirements_is_named_where_nothing_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = about(tmp_path, "--quantizer", "autoawq==0.2.7", "--out", str(out))
    assert (done.exit_code, out.exists()) == (1, False)
    assert str(out) not in done.stdout
    assert "requirements files" not in done.stdout


def test_json_has_all_for_programs(tmp_path: Path) -> None:
    document = json.loads(about(tmp_path, "--format", "json").stdout)
    (proof,) = document["advice"]["proven"]
    assert proof["cells"] == ["tied/awq-g64/autoawq-0.2.9+transformers-4.51.3/vllm-0.32.0"]
    assert set(document["installs"]) == set(proof["environments"])
    install = document["installs"]["vllm-0.32.0"]
    assert "torch==2.13.0" in install["files"]["locks/vllm-0.32.0.txt"]
    assert (document["schema"], document["commands"]) == (1, [])


def test_json_for_a_terminal_holds_nothing_that_acts_on_it(tmp_path: Path) -> None:
    hostile = "\x9b31m\u202e\x7f\U0001f600"
    of = result(cell(GOOD, vllm("0.32.0"), Verdict.BROKEN, message=hostile))
    shown = about(tmp_path, "--format", "json", of=of).stdout
    assert shown.isascii()
    assert "\x7f" not in shown
    assert json.loads(shown)["advice"]["failed"][0]["message"] == hostile


def test_old_evidence_stands_below_with_its_age(tmp_path: Path) -> None:
    done = about(tmp_path, "--days", "5")
    assert done.exit_code == 0
    assert "proven by old evidence alone" in done.stdout
    assert "2026-11-20, 10 days old" in done.stdout


def test_without_evidence_it_names_the_command_that_would_give_some(tmp_path: Path) -> None:
    done = about(tmp_path, "--quantizer", "autoawq==0.2.7", "--engine", "vllm==0.19.1")
    assert done.exit_code == 1
    assert done.stdout.startswith("no evidence: nothing is proven to work for awq of qwen2 (tied)")
    cells = "run --cell twin-tied/awq-4bit-g64/autoawq-0.2.7+transformers-5.23.0/vllm-0.19.1"
    assert cells in done.stdout
    assert "they work with the model untied (qwen2, untied)" in done.stdout


def test_where_no_profile_has_such_a_cell_it_shows_what_to_add(tmp_path: Path) -> None:
    done = about(tmp_path, "--bits", "3", "--group", "32")
    assert done.exit_code == 1
    assert "[schemes.awq-3bit-g32]" in done.stdout
    assert "[profiles.wanted]" in done.stdout
    assert "run --profile wanted" in done.stdout


def test_a_folder_is_matched_by_its_config(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "qwen2", "tie_word_embeddings": true}')
    assert about(tmp_path, model=str(model)).exit_code == 0
    (model / "config.json").write_text('{"model_type": "qwen2"}')  # whose default is two tensors
    done = about(tmp_path, model=str(model))
    assert "(not tied): proven" in done.stdout
    (model / "config.json").write_text('{"model_type": "gemma3_text"}')  # whose default is one
    done = about(tmp_path, model=str(model))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "does not say whether embedding and head are one tensor" in done.stderr
    (model / "config.json").write_text("{}")
    done = about(tmp_path, model=str(model))
    assert (done.exit_code, "has no model_type" in done.stderr) == (2, True)
    (model / "config.json").write_text("[")
    assert about(tmp_path, model=str(model)).exit_code == 2


def test_a_folder_comes_before_the_spec_and_the_spec_before_the_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    llama = MODELS["llama"]
    of = msgspec.structs.replace(RESULT, models={**MODELS, "twin-tied": llama, "own": llama})
    assert "awq of qwen2 (tied)" in about(tmp_path, of=of, model="twin-tied").stdout
    assert "awq of llama (tied)" in about(tmp_path, of=of, model="own").stdout
    for name in ("own", "twin-tied"):
        (tmp_path / name).mkdir()
        config = '{"model_type": "mistral", "tie_word_embeddings": true}'
        (tmp_path / name / "config.json").write_text(config)
        assert "awq of mistral (tied)" in about(tmp_path, of=of, model=name).stdout


def test_a_model_that_only_the_evidence_names_is_added_to_no_spec(tmp_path: Path) -> None:
    done = about(tmp_path, of=msgspec.structs.replace(
        RESULT, models={**MODELS, "own": msgspec.structs.replace(MODELS["tied"], model_type="x")}
    ), model="own")  # fmt: skip
    assert done.exit_code == 1
    assert "[models.wanted]" not in done.stdout
    assert "then:" not in done.stdout


def test_a_model_of_the_hub_that_the_spec_names_is_not_asked_for(tmp_path: Path) -> None:
    done = about(tmp_path, model="Qwen/Qwen2.5-0.5B-Instruct")
    assert done.exit_code == 0


def test_a_void_run_gives_no_advice(tmp_path: Path) -> None:
    void = msgspec.structs.replace(RESULT, canaries=CanaryState.VOID)
    done = about(tmp_path, of=void)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("no advice: the canaries are void")


def test_evidence_of_before_is_read_and_says_that_it_tells_too_little(tmp_path: Path) -> None:
    document = msgspec.to_builtins(RESULT)
    for name in ("models", "schemes"):
        del document[name]
    for row in document["cells"]:
        for name in ("at", "runs", "attempts", "made_on"):
            del row[name]
        del row["engine"]["adapter"], row["quantizer"]["adapter"]
    old = msgspec.convert(document, MatrixResult)
    done = about(tmp_path, of=old, model="twin-tied")
    assert done.exit_code == 1
    assert "of an earlier version" in done.stderr


@pytest.mark.parametrize("name", ["autoawq", "AutoAWQ", "auto-awq", "auto_awq"])
def test_a_package_is_meant_however_its_name_is_hyphened(tmp_path: Path, name: str) -> None:
    done = about(tmp_path, "--quantizer", f"{name}==0.2.9", "--format", "json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["advice"]["proven"]


def test_llm_compressor_is_the_package_llmcompressor() -> None:
    loaded = load()
    for name in ("llm-compressor", "llmcompressor", "LLM_Compressor"):
        wanted = command._requirement("--quantizer", f"{name}>=0.13", loaded)
        assert str(wanted) == "llmcompressor>=0.13"
    assert str(command._requirement("--engine", "vllm==0.32.0", loaded)) == "vllm==0.32.0"
    assert str(command._requirement("--engine", "My.Own", loaded)) == "my-own"


@pytest.mark.parametrize(
    ("text", "method", "written"),
    [
        ("AWQ", "awq", ""),
        ("gptq", "gptq", ""),
        ("gptq_v2", "gptq", "gptq_v2"),
        ("GPTQ-v2", "gptq", "gptq_v2"),
        ("compressed_tensors", "compressed-tensors", ""),
        ("pack-quantized", "compressed-tensors", "pack-quantized"),
        ("nvfp4_pack_quantized", "compressed-tensors", "nvfp4-pack-quantized"),
    ],
)
def test_a_format_is_a_method_with_its_way_of_storing(text: str, method: str, written: str) -> None:
    scheme = command._scheme(text)
    assert (scheme.method, scheme.format) == (method, written)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "fp8"], "--method: 'fp8' is none of awq, gptq, compressed-tensors, and no "),
        (["--engine", "==1"], "--engine: '==1' is no release"),
        (["--with", "?"], "--with: '?' is no release"),
        (["--gpu", "8"], "--gpu: '8' is no compute capability"),
        (["--gpu", "8.9", "--cpu", "avx2"], "Give one of them"),
        (["--model", "none\x1b"], "--model: 'none\\x1b' is no folder"),
        (["--model", "nobody/.."], "--model: 'nobody/..' is no folder"),
        (["--evidence", "ftp://user:secret@host/x"], "ftp://host/x: is no address that begins"),
        (["--evidence", "/nowhere/matrix.json"], "No such file or directory"),
        (["--evidence", "/dev/zero"], "is no regular file"),
    ],
)
def test_a_question_that_cannot_be_understood_is_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = about(tmp_path, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("data", [b"", b"[" * 100_000, b'{"cells": 1}', b"\xff\xfe"])
def test_a_file_that_is_no_report_is_one_line(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(data)
    done = ask("--evidence", str(file), "--model", "tied", "--method", "awq")
    assert done.exit_code == 2
    assert "is no matrix.json of this version" in done.stderr


def test_a_lock_that_names_anything_but_packages_is_not_written(tmp_path: Path) -> None:
    bad = [
        msgspec.structs.replace(
            shown,
            install=shown.install
            and msgspec.structs.replace(shown.install, pins={"-e /tmp/x": "1"}),
        )
        for shown in RESULT.environments
    ]
    out = tmp_path / "out"
    hostile = msgspec.structs.replace(RESULT, environments=bad)
    done = about(tmp_path, "--out", str(out), of=hostile)
    assert done.exit_code == 0
    assert not out.exists()
    assert "vllm-0.32.0: the evidence has no lock of it" in done.stdout
    assert str(out) not in done.stdout


def test_the_report_beside_an_empty_store_is_the_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATRIX_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MATRIX_REPORTS", str(tmp_path))
    write(tmp_path)
    assert ask("--model", "tied", "--method", "awq").exit_code == 0


def test_with_no_evidence_at_all_it_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATRIX_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MATRIX_REPORTS", str(tmp_path))
    wish = ["--model", "twin-tied", "--method", "awq", "--engine", "vllm"]
    done = ask(*wish, "--quantizer", "autoawq")
    assert done.exit_code == 1
    assert "run --cell twin-tied/awq-4bit-g64/autoawq-0.2.9+" in done.stdout


def test_the_models_of_the_evidence_are_known_by_name(tmp_path: Path) -> None:
    assert [about(tmp_path, model=name).exit_code for name in MODELS] == [0, 0, 0, 1]


@cache
def ours() -> LoadedSpec:
    return load()


@settings(max_examples=30)
@given(hostile_results.results())
def test_whatever_evidence_holds_is_shown_as_text_and_nothing_else(hostile: MatrixResult) -> None:
    of = msgspec.structs.replace(
        hostile,
        canaries=CanaryState.NONE,
        models={cell.model: MODELS["tied"] for cell in hostile.cells},
        schemes={cell.scheme: AWQ for cell in hostile.cells},
    )
    wish = Wish(model=MODELS["tied"], scheme=SchemeFacts(method="awq"))
    lines = in_words(command._answer(of, wish, ours(), 90), None, of_all_engines=False)
    for line in [*lines, *readings(of, wish.model, wish.scheme)]:
        assert visible(line, len(line)) == line


def test_of_all_engines_the_newest_few_of_each_are_shown(tmp_path: Path) -> None:
    releases = [f"0.{minor}.0" for minor in range(10, 20)]
    others = [Side(name=f"transformers-5.{n}.0", environment=f"hf-{n}") for n in range(2)]
    engines = [*map(vllm, releases), *others]
    of = result(*(cell(GOOD, engine) for engine in engines))
    shown = about(tmp_path, of=of).stdout.splitlines()
    proofs = [
        line.split(" in ")[1].split(" ")[0] for line in shown if line.endswith("(awq-g64: tied)")
    ]
    assert sorted(name.split("-")[0] for name in proofs) == ["transformers"] * 2 + ["vllm"] * 3
    assert "  and 7 more (--engine NAME has more of one engine, --format json all)" in shown
    of_engine = about(tmp_path, "--engine", "vllm-cpu", of=of).stdout
    assert sum(line.endswith("(awq-g64: tied)") for line in of_engine.splitlines()) == SHOWN
    assert f"  and {len(releases) - SHOWN} more (--format json has all)" in of_engine.splitlines()
