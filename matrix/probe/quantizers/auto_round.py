"""AutoRound: quantize a float model by choosing how each weight is rounded, in several formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Json = dict[str, Any]

FORMATS = {"gptq": "auto_gptq", "awq": "auto_awq", "pack-quantized": "llm_compressor"}
"""A scheme's format -> AutoRound's word for it."""


def import_package(_options: Json) -> None:
    """Import what a user of AutoRound imports, and the model code it would import later."""
    import auto_round  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401
    from transformers.models.qwen2 import modeling_qwen2  # noqa: F401


def quantize(job: Json) -> Json:
    """Quantize ``job["model"]`` by the scheme and save model and tokenizer to ``job["output"]``.

    Options: ``iters`` (steps for each block of layers, AutoRound's own default is 200) and
    ``seqlen`` (tokens of a text, default 32). Calibration: all texts, one after the other, cut into
    texts of that length, since AutoRound leaves out shorter ones without a word. Its torch.compile
    is off: compiling takes longer than what a small model gains.
    """
    import torch
    from auto_round import AutoRound
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scheme, options, output = job["scheme"], job["options"], Path(job["output"])
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], torch_dtype="auto", trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(job["model"], trust_remote_code=False)
    length = options.get("seqlen", 32)
    ids = [token for text in job["calibration"] for token in tokenizer(text)["input_ids"]]
    texts = torch.tensor(ids[: len(ids) // length * length]).reshape(-1, 1, length)
    rounding = AutoRound(
        model,
        tokenizer=tokenizer,
        bits=scheme["bits"],
        group_size=scheme["group_size"],
        sym=not scheme["zero_point"] if scheme["method"] == "awq" else scheme["sym"],
        iters=options.get("iters", 200),
        dataset=list(texts),  # a name is that of a data set to download
        nsamples=len(texts),
        seqlen=length,
        batch_size=min(8, len(texts)),
        enable_torch_compile=False,
    )
    rounding.quantize_and_save(str(output), format=FORMATS[scheme.get("format", scheme["method"])])
    # Some releases make a folder there, named after model and scheme.
    for folder in {file.parent for file in output.glob("*/config.json")}:
        for file in folder.iterdir():
            file.rename(output / file.name)
        folder.rmdir()
    return {}
