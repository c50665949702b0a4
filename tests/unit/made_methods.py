"""What the releases of a made-up engine list: something that stays, goes, went and came back."""

from __future__ import annotations

from matrix.spec.methods import Listing, Methods, Spans

ENGINE = Listing(
    file="engine/lists.py",
    releases=["1.0", "1.1", "1.2", "1.3", "1.4"],
    methods={
        "auto-round": Spans([("1.1", "1.2")], [("1.2", "1.2")]),
        "awq": Spans([("1.0", "1.4")]),
        "awq_marlin": Spans([("1.0", "1.4")]),
        "fp_quant": Spans([("1.0", "1.4")], [("1.2", "1.4")]),
        "gguf": Spans([("1.0", "1.1")]),
        "gptq": Spans([("1.0", "1.1"), ("1.3", "1.4")]),
        "hqq": Spans([("1.0", "1.2")], [("1.1", "1.2")]),
        "inc": Spans([("1.3", "1.4")]),
    },
)
METHODS_MADE = Methods(1, "2026-11-30", {"engine": ENGINE})
