"""Is a checkpoint of the scheme that its quantizer was to make?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from matrix.checkpoint.formats import Format
from matrix.checkpoint.inspection import PackedLinearInfo, Quantization
from matrix.checkpoint.layouts import Layout
from matrix.checks.evidence import Evidence
from matrix.checks.wording import NotApplicableError, Opinion, inspected
from matrix.pipeline.outcomes import Judgement
from matrix.spec.tables import SchemeTable


def scheme(evidence: Evidence) -> Opinion:
    """The file is of the scheme that its quantizer was to make.

    Protects from a quantizer that passes over what it is told, so that a cell works and is of
    another scheme: AutoRound 0.9.4, told 4 bits in its format ``llm_compressor``, writes a config
    of 8 bits. Judged are bits, groups and zero points by the file, all else by config.json. No
    scheme is known of a user's own file. What the words mean in a recipe:
    https://docs.vllm.ai/projects/llm-compressor/en/latest/guides/compression_schemes/.
    Value: packed layers of another scheme.
    """
    inspection, meant = inspected(evidence), evidence.scheme
    if meant is None:
        raise NotApplicableError("no scheme is named that it should have")
    if inspection.quantization is None:
        raise NotApplicableError("config.json names no scheme")
    schemes = inspection.quantization.schemes([module.name for module in inspection.modules])
    layers = [
        [*_stored(module, stated, meant), *_stated(stated, meant)]
        for module in inspection.modules
        if (stated := schemes[module.name]) is not None
    ]
    layers = layers or [list(_stated(inspection.quantization, meant))]
    if fault := _symmetry(inspection.modules, meant):
        layers = [[*faults, fault] for faults in layers]
    wrong = sum(map(bool, layers))
    if not wrong:
        return Opinion(Judgement.PASSED, 0)
    faults = Counter(fault for faults in layers for fault in faults)
    message = "; ".join(
        f"{fault} ({number} of {len(layers)} layers)" if number < len(layers) else fault
        for fault, number in faults.items()
    )
    message += ". Quantize it as the scheme says, or give the cell the scheme of the file"
    return Opinion(Judgement.FAILED, wrong, message)


def _stored(module: PackedLinearInfo, stated: Quantization, meant: SchemeTable) -> Iterator[str]:
    """Give what the tensors of a layer have otherwise than was meant."""
    # Integers of fewer bits may be stored in a byte each: config.json says how many they have.
    bits = stated.bits if module.layout == Layout.INTEGERS else module.bits
    if bits and bits != meant.bits:
        yield f"{bits} bits, not {meant.bits}"
    size = meant.group_size if meant.group_size > 0 else module.inputs
    if module.group_size and module.group_size != min(size, module.inputs):
        wanted = size if meant.group_size > 0 else "a whole row"
        yield f"groups of {module.group_size}, not {wanted}"


def _stated(stated: Quantization, meant: SchemeTable) -> Iterator[str]:
    """Give what config.json says of a layer otherwise than was meant."""
    form = stated.checkpoint_format or stated.method
    if (stated.method, form) != (meant.method, meant.format.value):
        name = form if form.startswith(stated.method) else f"{stated.method} {form}"
        yield f"stored as {name}, not {meant.format}"
    if meant.format is Format.AWQ and stated.version.upper() not in ("", meant.version.upper()):
        yield f"version {stated.version}, not {meant.version}"
    if stated.activations != meant.activations:
        yield f"inputs {_rounded(stated.activations)}, not {_rounded(meant.activations)}"
    if stated.strategy in ("tensor", "block"):
        yield f"a scale for each {stated.strategy}, not for each group or row"
    if bool(stated.desc_act) != meant.desc_act:
        yield f"desc_act {bool(stated.desc_act)}, not {meant.desc_act}".lower()


def _rounded(activations: str) -> str:
    return f"rounded to {activations}" if activations else "as they are"


def _symmetry(modules: list[PackedLinearInfo], meant: SchemeTable) -> str:
    """Return whether groups are symmetric otherwise than was meant, by the stored zero points.

    Of groups that need not be symmetric, no model has the same zero point in all.
    """
    is_symmetric = all(len(module.zero_points) <= 1 for module in modules)
    if not modules or is_symmetric == meant.is_symmetric:
        return ""
    words = ("symmetric", "asymmetric")
    return f"{words[not is_symmetric]}, not {words[is_symmetric]}"
