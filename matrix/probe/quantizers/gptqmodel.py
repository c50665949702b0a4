"""GPTQModel: quantize a float model by GPTQ, without a GPU as with one.

On a CPU, 7.6.0 writes embeddings and norms as bfloat16, whatever the model's type. Its first
quantization in an environment's home compiles an extension for packing (half a minute, where there
is a compiler; without one it packs in Python, to the same bytes).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
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
    with temporary_files_removed():
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


@contextlib.contextmanager
def temporary_files_removed() -> Iterator[None]:
    """Remove at the end what is made in the folder for temporary files meanwhile.

    GPTQModel moves layers there and leaves their removal to the interpreter's end, which a job's
    process does not have; the folder outlives it, with twice the model's size for each job.
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
