"""AutoAWQ: quantize a float model by activation-aware weight quantization."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]


def import_package(_options: Json) -> None:
    """Import what a user of AutoAWQ imports, and the model code it would import later."""
    import awq  # noqa: F401
    from transformers import AutoTokenizer  # noqa: F401
    from transformers.models.qwen2 import modeling_qwen2  # noqa: F401


def quantize(job: Json) -> Json:
    """Quantize ``job["model"]`` by the scheme and save model and tokenizer to ``job["output"]``.

    Options: ``max_calib_samples`` (texts, default 8) and ``max_calib_seq_len`` (tokens of a block,
    default 32; AutoAWQ leaves longer texts out). Its clip search takes time in proportion to both.
    AutoAWQ 0.2.5 has neither: it takes 512 blocks of 512.
    """
    import torch
    from awq import AutoAWQForCausalLM
    from transformers import AutoTokenizer

    # With a GPU, each release places the model as it does for its users.
    place = {} if torch.cuda.is_available() else {"device_map": "cpu"}
    scheme, options = job["scheme"], job["options"]
    model = AutoAWQForCausalLM.from_pretrained(
        job["model"], trust_remote_code=False, safetensors=True, **place
    )
    tokenizer = AutoTokenizer.from_pretrained(job["model"], trust_remote_code=False)
    wanted = {
        "max_calib_samples": options.get("max_calib_samples", 8),
        "max_calib_seq_len": options.get("max_calib_seq_len", 32),
    }
    known = inspect.signature(model.quantize).parameters
    model.quantize(
        tokenizer,
        quant_config={
            "w_bit": scheme["bits"],
            "q_group_size": scheme["group_size"],
            "zero_point": scheme["zero_point"],
            "version": scheme["version"],
        },
        # Given as texts: by default AutoAWQ downloads a data set.
        calib_data=job["calibration"],
        **{name: value for name, value in wanted.items() if name in known},
    )
    model.save_quantized(job["output"], safetensors=True)
    tokenizer.save_pretrained(job["output"])
    return {}


@contextlib.contextmanager
def copying_state_dict() -> Iterator[None]:
    """While the scale search runs, ``Module.state_dict()`` returns copies, as on a GPU.

    ``_compute_best_scale`` keeps the weights it is about to scale by ``state_dict()`` and
    ``.cpu()``. From a GPU that copies; on a CPU it is the live tensor, so that restoring it
    restores nothing and each try scales the weights once more.
    """
    import torch
    from awq.quantize.quantizer import AwqQuantizer

    state_dict, search = torch.nn.Module.state_dict, AwqQuantizer._compute_best_scale

    def copied(module: Any, *values: Any, **named: Any) -> Any:
        state = state_dict(module, *values, **named)
        if values or named:  # a recursive call for a submodule, which fills the caller's dict
            return state
        return {name: tensor.clone() for name, tensor in state.items()}

    @functools.wraps(search)
    def search_on_copies(*values: Any, **named: Any) -> Any:
        torch.nn.Module.state_dict = copied
        try:
            return search(*values, **named)
        finally:
            torch.nn.Module.state_dict = state_dict

    AwqQuantizer._compute_best_scale = search_on_copies
    try:
        yield
    finally:
        AwqQuantizer._compute_best_scale = search


DEPARTURES = {"autoawq-cpu-scale-search": copying_state_dict}
