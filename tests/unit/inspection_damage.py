"""Ways to damage a made-up inspection, and what the checks say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from matrix.checkpoint.inspection import Inspection
from matrix.checks import run_checks
from matrix.pipeline.outcomes import Finding, Judgement
from matrix.pipeline.steps import Stage
from tests.unit.made_evidence import GPTQ, add_tensor, alarms, made_evidence, retype

replace = msgspec.structs.replace
L0 = "model.layers.0"
UP = f"{L0}.mlp.up_proj"
FAILED, DEGRADED, NOTICE = Judgement.FAILED, Judgement.DEGRADED, Judgement.NOTICE
PASSED, ABSENT = Judgement.PASSED, Judgement.NOT_APPLICABLE
Damage = Callable[[Inspection], Inspection]

GPTQ_8 = replace(GPTQ, bits=8, group_size=128)
DESC_ACT = replace(GPTQ, desc_act=True)
V2 = replace(GPTQ, checkpoint_format="gptq_v2")


def findings(inspection: Inspection | None, **changes: Any) -> dict[str, Finding]:
    evidence = replace(made_evidence(), inspection=inspection, **changes)
    return {finding.check: finding for finding in run_checks(evidence, Stage.INSPECT)}


def fired(inspection: Inspection, **changes: Any) -> dict[str, Judgement]:
    return alarms(list(findings(inspection, **changes).values()))


def change_module(**changes: Any) -> Damage:
    def damage(inspection: Inspection) -> Inspection:
        modules = [replace(m, **changes) if m.name == UP else m for m in inspection.modules]
        return replace(inspection, modules=modules)

    return damage


def change_every_module(**changes: Any) -> Damage:
    def damage(inspection: Inspection) -> Inspection:
        return replace(inspection, modules=[replace(m, **changes) for m in inspection.modules])

    return damage


def change(**changes: Any) -> Damage:
    return lambda inspection: replace(inspection, **changes)


def change_quantization(**changes: Any) -> Damage:
    def damage(inspection: Inspection) -> Inspection:
        assert inspection.quantization is not None
        return replace(inspection, quantization=replace(inspection.quantization, **changes))

    return damage


def change_weight(name: str, **changes: Any) -> Damage:
    def damage(inspection: Inspection) -> Inspection:
        assert name in [weight.name for weight in inspection.weights]
        weights = [replace(w, **changes) if w.name == name else w for w in inspection.weights]
        return replace(inspection, weights=weights)

    return damage


def lose_norm(inspection: Inspection) -> Inspection:
    tensors = [t for t in inspection.tensors if t.name != "model.norm.weight"]
    return replace(inspection, tensors=tensors, missing=["model.norm.weight"])


def lose_embedding(inspection: Inspection) -> Inspection:
    tensors = [t for t in inspection.tensors if t.name != "model.embed_tokens.weight"]
    return replace(inspection, tensors=tensors, embedding=False)


def leave_unpacked(inspection: Inspection) -> Inspection:
    tensors = [t for t in inspection.tensors if not t.name.startswith(f"{UP}.")]
    modules = [module for module in inspection.modules if module.name != UP]
    unpacked = replace(inspection, tensors=tensors, modules=modules)
    return add_tensor(unpacked, f"{UP}.weight", [512, 256])


def pack_the_head(inspection: Inspection) -> Inspection:
    modules = [*inspection.modules, replace(inspection.modules[0], name="lm_head")]
    return replace(inspection, modules=modules)


def embed_in_float32(inspection: Inspection) -> Inspection:
    return retype(inspection, "model.embed_tokens.weight", "F32")


def add_bias(name: str, **changes: Any) -> Damage:
    return lambda inspection: add_tensor(inspection, name, [512], **changes)


BIAS = f"{UP}.bias"
