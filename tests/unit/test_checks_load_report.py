from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.checks.load_report import MAX_NAMES, LoadReport, expand, read_load_report

# As each package prints them; the names are the twin's.
TRANSFORMERS_4_UNUSED = (
    "transformers.modeling_utils: Some weights of the model checkpoint at model were not used when "
    "initializing Qwen2ForCausalLM: ['model.layers.0.mlp.down_proj.bias', 'lm_head.weight']\n"
    "- This IS expected if you are initializing Qwen2ForCausalLM from the checkpoint of ..."
)
TRANSFORMERS_4_NEW = (
    "Some weights of Qwen2ForCausalLM were not initialized from the model checkpoint at model and "
    "are newly initialized: ['model.embed_tokens.weight', 'model.layers.0.mlp.up_proj.bias']\n"
    "You should probably TRAIN this model on a down-stream task"
)
TRANSFORMERS_4_SHAPES = (
    "Some weights of Qwen2ForCausalLM were not initialized from the model checkpoint at model and "
    "are newly initialized because the shapes did not match:\n- model.norm.weight: found shape "
    "torch.Size([128]) in the checkpoint and torch.Size([256]) in the model instantiated\n"
    "You should probably TRAIN this model on a down-stream task"
)
TRANSFORMERS_5 = """\x1b[1mQwen2ForCausalLM LOAD REPORT\x1b[0m from: model
Key                                       | Status     |  |
------------------------------------------+------------+--+-
model.layers.{0, 1}.mlp.down_proj.bias    | UNEXPECTED |  |
model.layers.{0...11}.mlp.up_proj.qweight | \x1b[31mMISSING\x1b[0m |
model.norm.weight                         | MISMATCH   | Reinit due to size mismatch - ckpt: ...
model.layers.0.self_attn.q_proj.qweight   | CONVERSION |

Notes:
- UNEXPECTED:\tcan be ignored when loading from different task/architecture; not ok if you expect
- MISSING:\tthose params were newly initialized because missing from the checkpoint."""
ACCELERATE = (
    "Some weights of the model checkpoint at model/model.safetensors were not used when "
    "initializing Qwen2ForCausalLM: {'model.layers.1.mlp.up_proj.bias', \"it's\"}. This may or may "
    "not be an issue - make sure that the checkpoint does not have unnecessary parameters"
)
TORCH = (
    "RuntimeError: Error(s) in loading state_dict for Qwen2ForCausalLM:\n"
    '\tMissing key(s) in state_dict: "model.norm.weight", "lm_head.weight". \n'
    '\tUnexpected key(s) in state_dict: "model.a". \n'
    "\tsize mismatch for model.embed_tokens.weight: copying a param with shape torch.Size([2, 3]) "
    "from checkpoint, the shape in current model is torch.Size([4, 3])."
)
VLLM_MISSING = (
    "(Worker_TP0 pid=12) ValueError: Following weights were not initialized from checkpoint: "
    "{'model.embed_tokens.weight'}"
)
VLLM_UNKNOWN = (
    "ValueError: There is no module or parameter named 'model.layers.0.mlp.gate' in "
    "Qwen2ForCausalLM. The available parameters belonging to model (Qwen2Model) are: {'b'}"
)
VLLM_TIED = (
    "ValueError: 'lm_head.weight' was skipped because it is tied to 'model.embed_tokens.weight' in "
    "Qwen2ForCausalLM, but 'model.embed_tokens.weight' was not found in the checkpoint, so"
)


@pytest.mark.parametrize(
    ("text", "report"),
    [
        (
            TRANSFORMERS_4_UNUSED,
            LoadReport(unexpected=["lm_head.weight", "model.layers.0.mlp.down_proj.bias"]),
        ),
        (
            TRANSFORMERS_4_NEW,
            LoadReport(
                newly_initialised=["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.bias"]
            ),
        ),
        (TRANSFORMERS_4_SHAPES, LoadReport(mismatched=["model.norm.weight"])),
        (
            TRANSFORMERS_5,
            LoadReport(
                unexpected=["model.layers.{0, 1}.mlp.down_proj.bias"],
                missing=["model.layers.{0...11}.mlp.up_proj.qweight"],
                mismatched=["model.layers.0.self_attn.q_proj.qweight", "model.norm.weight"],
            ),
        ),
        (ACCELERATE, LoadReport(unexpected=["it's", "model.layers.1.mlp.up_proj.bias"])),
        (
            TORCH,
            LoadReport(
                unexpected=["model.a"],
                missing=["lm_head.weight", "model.norm.weight"],
                mismatched=["model.embed_tokens.weight"],
            ),
        ),
        (VLLM_MISSING, LoadReport(missing=["model.embed_tokens.weight"])),
        (VLLM_UNKNOWN, LoadReport(unexpected=["model.layers.0.mlp.gate"])),
        (VLLM_TIED, LoadReport(missing=["model.embed_tokens.weight"])),
    ],
)
def test_every_loaders_words_come_to_one_form(text: str, report: LoadReport) -> None:
    assert read_load_report([text]) == report
    assert read_load_report(["before " + text + "\nafter", text]) == report


@pytest.mark.parametrize(
    "text",
    [
        "`torch_dtype` is deprecated",
        "All model checkpoint weights were used when initializing Qwen2ForCausalLM.",
        "a | table | of something else",
        "| MISSING |",
        "",
    ],
)
def test_other_words_say_nothing(text: str) -> None:
    assert read_load_report([text]) == LoadReport()


def test_a_worker_that_prefixes_its_lines_is_read() -> None:
    text = "(Worker_TP1 pid=7) model.layers.{0, 1}.mlp.up_proj.bias | UNEXPECTED | |"
    assert read_load_report([text]).unexpected == ["model.layers.{0, 1}.mlp.up_proj.bias"]


@pytest.mark.parametrize("at", [-1, -20, -31])
def test_a_list_that_is_cut_says_so(at: int) -> None:
    end = TRANSFORMERS_4_UNUSED.index("]") + 1
    assert not read_load_report([TRANSFORMERS_4_UNUSED[:end]]).cut
    assert read_load_report([TRANSFORMERS_4_UNUSED[: end + at]]).cut


def test_no_more_names_than_the_bound() -> None:
    names = [f"model.layers.{n}.mlp.up_proj.bias" for n in range(MAX_NAMES + 1)]
    report = read_load_report([f"are newly initialized: {names}"])
    assert len(report.newly_initialised) == MAX_NAMES
    assert report.cut


TENSORS = [f"model.layers.{n}.mlp.{p}_proj.bias" for n in range(30) for p in ("up", "down")]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("model.layers.{0, 12}.mlp.up_proj.bias", [0, 12]),
        ("model.layers.{9...11}.mlp.up_proj.bias", [9, 10, 11]),
        ("model.layers.3.mlp.up_proj.bias", [3]),
    ],
)
def test_collapsed_names_are_found_again(name: str, meant: list[int]) -> None:
    expected = sorted(f"model.layers.{n}.mlp.up_proj.bias" for n in meant)
    assert expand([name], TENSORS) == expected


@pytest.mark.parametrize(
    "name",
    ["model.layers.{40, 41}.mlp.up_proj.bias", "model.layers.{0, 1}.mlp.gate_proj.bias", "a{,}b"],
)
def test_a_name_that_fits_no_tensor_stays(name: str) -> None:
    assert expand([name], TENSORS) == [name]


FRAGMENTS = st.sampled_from(
    [
        "were not used when initializing A: ", "are newly initialized: ", "['", "'", '"', ", ", "]",
        "{", "}", "...", "{0, 1}", "model.layers.0.", " | MISSING | ", " | UNEXPECTED |", "\n", "9",
        "size mismatch for ", "- a: found shape ", "\x1b[31m", "because it is tied to '",
    ]
)  # fmt: skip


@given(st.lists(FRAGMENTS | st.text(max_size=5), max_size=40).map("".join))
def test_any_text_is_read_within_bounds(text: str) -> None:
    report = read_load_report([text, text])
    assert report == read_load_report([text])
    for name in (*report.unexpected, *report.made_up):
        assert 0 < len(name) <= 500
    names = ["model.layers.0.a", "model.layers.1.a"]
    assert set(expand(report.unexpected, names)) <= {*report.unexpected, *names}
