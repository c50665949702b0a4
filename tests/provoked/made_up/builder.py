"""Builds a made-up model of a few numbers, with a reference: no package is needed for it."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

PROMPTS = [("one two", [5, 6]), ("three four", [7, 8]), ("five", [9])]
HELD_OUT = [[5, 7, 9, 11], [6, 8, 10, 12], [5, 6, 7, 8]]
LINEARS = [
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
]  # fmt: skip
SIZE = 16


LIKELIEST = {
    "ids": base64.b64encode(struct.pack("<6i", *[1, 2] * 3)).decode(),
    "logprobs": base64.b64encode(struct.pack("<6f", *[-0.5, -1.0] * 3)).decode(),
}
"""Of each text, which has four tokens."""


def import_package(_options: dict[str, Any]) -> None:
    """Nothing to import."""


def build(job: dict[str, Any]) -> dict[str, Any]:
    """Write model/ and reference.json."""
    folder = Path(job["output"])
    model = folder / "model"
    model.mkdir(parents=True)
    names = {"model.embed_tokens.weight": [SIZE, SIZE], "model.norm.weight": [SIZE]}
    names |= {f"model.layers.0.{name}.weight": [SIZE, SIZE] for name in LINEARS}
    for norm in ("input_layernorm", "post_attention_layernorm"):
        names[f"model.layers.0.{norm}.weight"] = [SIZE]
    if not job["recipe"]["tie_word_embeddings"]:
        names["lm_head.weight"] = [SIZE, SIZE]
    write_safetensors(model / "model.safetensors", names)
    config = {"model_type": "qwen2", "tie_word_embeddings": job["recipe"]["tie_word_embeddings"]}
    (model / "config.json").write_text(json.dumps(config))
    answers: dict[str, Any] = {
        "text_ids": [ids for _, ids in PROMPTS],
        "outputs": [{"ids": [20 + i, 21 + i, 22 + i], "text": f"right {i}"} for i in range(3)],
        "held_out": [[-0.5 - 0.01 * token for token in ids[1:]] for ids in HELD_OUT],
        "likeliest": [LIKELIEST] * len(HELD_OUT),
        "tokens_per_second": 1.0,
    }
    (model / "answers.json").write_text(json.dumps(answers))
    reference = {
        "schema": 1,
        "prompts": [
            {"text": text, "ids": ids, "greedy_ids": out["ids"], "greedy_text": out["text"]}
            for (text, ids), out in zip(PROMPTS, answers["outputs"], strict=True)
        ],
        "held_out": [
            {"text": "", "ids": ids, "logprobs": scores}
            for ids, scores in zip(HELD_OUT, answers["held_out"], strict=True)
        ],
        "likeliest": [LIKELIEST] * len(HELD_OUT),
        "memorised": [],
        "calibration": ["some text"],
        "max_new_tokens": 3,
        "tensors_sha256": "made-up",
    }
    (folder / "reference.json").write_text(json.dumps(reference))
    return {}


def write_safetensors(file: Path, shapes: dict[str, list[int]]) -> None:
    """Write fp16 tensors that count up from one."""
    header: dict[str, Any] = {}
    data = b""
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = struct.pack(f"<{count}e", *(1.0 + (i * 7 + number) % 11 for i in range(count)))
        header[name] = {
            "dtype": "F16", "shape": shape, "data_offsets": [len(data), len(data) + len(values)],
        }  # fmt: skip
        data += values
    head = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(head)) + head + data)
