"""GPTQModel: quantize a float model by GPTQ, without a GPU as with one."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def import_package(_options: Json) -> None:
    """Import what a user of GPTQModel imports."""
    import gptqmodel  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401


def quantize(job: Json) -> Json:
    """Quantize ``job["model"]`` by the scheme and save model and tokenizer to ``job["output"]``.

    Calibration: every text, whole, one a batch.
    """
    from gptqmodel import GPTQModel, QuantizeConfig
    from transformers import AutoTokenizer

    scheme = job["scheme"]
    config = QuantizeConfig(
        bits=scheme["bits"],
        group_size=scheme["group_size"],
        sym=scheme["sym"],
        desc_act=scheme["desc_act"],
    )
    model = GPTQModel.load(job["model"], config, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(job["model"], trust_remote_code=False)
    model.quantize([dict(tokenizer(text)) for text in job["calibration"]], batch_size=1)
    model.save(job["output"])
    tokenizer.save_pretrained(job["output"])
    return {}
