"""The table of repairs: its names, what each does, and which readers need it.

A repair of one name may have several parts. What only some readers need is made for these only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from packaging.requirements import Requirement

from matrix.checkpoint.inspection import CheckpointError
from matrix.repair import configs, tensors
from matrix.repair.edits import Change, Edit, check_changes
from matrix.repair.names import VLLM, RepairName
from matrix.repair.subject import Subject


class Repair(NamedTuple):
    """One part of a repair."""

    name: RepairName
    edits: Callable[[Subject], list[Edit]]
    needed_by: tuple[str, ...] = ()
    """Readers that need it, as requirements; everybody does where there is none."""
    harms: tuple[str, ...] = ()
    """Readers that need the file as it is, as requirements."""

    def is_for(self, names: Collection[RepairName], readers: Mapping[str, str]) -> bool:
        """Return whether it is meant: by its name, or, where none is given, for some readers.

        Raises:
            CheckpointError: It is meant by its name, and harms a reader.
        """
        if names and self.name not in names:
            return False
        harmed = [text for text in self.harms if _is_among(readers, text)]
        if names and harmed:
            problem = f"takes away what {' and '.join(harmed)} needs"
            raise CheckpointError(problem, self.name, "Leave out this repair, or this reader.")
        needed = not self.needed_by or any(_is_among(readers, text) for text in self.needed_by)
        return bool(names) or (needed and not harmed)


def _is_among(readers: Mapping[str, str], text: str) -> bool:
    """Whether a reader is of a distribution and version that a requirement admits."""
    requirement = Requirement(text)
    names = VLLM if requirement.name in VLLM else {requirement.name}
    versions = [readers[name] for name in names if name in readers]
    return any(requirement.specifier.contains(version, prereleases=True) for version in versions)


# fmt: off
REPAIRS: tuple[Repair, ...] = (
    Repair(RepairName.TIED_EMBEDDING, tensors.restore_embedding),
    # AutoGPTQ's own loader ties the embedding to the head: known issue autogptq-tied-head-unfilled.
    Repair(RepairName.DUPLICATE_HEAD, tensors.drop_duplicate_head, harms=("auto-gptq",)),
    Repair(RepairName.TIE, tensors.untie),
    Repair(RepairName.ZERO_BIASES, tensors.drop_zero_biases),
    Repair(RepairName.ZERO_POINTS, tensors.match_zero_points),
    # https://github.com/vllm-project/vllm/pull/26092; AutoGPTQ 0.7.1 is the last one.
    Repair(RepairName.ZERO_POINTS, tensors.convert_to_gptq, ("vllm<0.12.0", "auto-gptq")),
    Repair(RepairName.DESC_ACT, tensors.say_order_is_plain),
    Repair(RepairName.FILE_NAMES, configs.name_files_as_usual),
    Repair(RepairName.ROPE_THETA, configs.give_back_rope_theta, ("transformers<5",)),
    Repair(RepairName.DTYPE, configs.give_back_dtype, ("transformers<4.56",)),
    Repair(RepairName.TOKENIZER, configs.give_back_tokenizer_class, ("transformers<5",)),
    Repair(RepairName.TOKENIZER, configs.join_merges, ("tokenizers<0.20",)),
    # https://github.com/vllm-project/llm-compressor/issues/2234
    Repair(RepairName.CONFIG_FIELDS, configs.take_out_derived_types,
           ("compressed-tensors<0.13", "vllm<=0.13.0")),
    # Known issue gptqmodel-is-marlin-format.
    Repair(RepairName.CONFIG_FIELDS, configs.take_out_marlin_flag, ("gptqmodel>2.2.0",)),
)
# fmt: on

READERS = (
    frozenset(
        Requirement(text).name for repair in REPAIRS for text in (*repair.needed_by, *repair.harms)
    )
    | VLLM
)
"""The distributions on which it depends what is repaired."""


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
        CheckpointError: A repair is needed and not sure, one is named that harms a reader, or two
            of them contradict each other.
    """
    changes: list[Change] = []
    for repair in REPAIRS:
        if repair.is_for(names, readers):
            try:
                changes += (Change(repair.name, edit) for edit in repair.edits(subject))
            except CheckpointError as error:
                unsure = error.problem
                problem = f"{unsure.problem}, so the repair {repair.name} is not sure"
                raise CheckpointError(problem, unsure.where, unsure.remedy) from error.__cause__
    check_changes(changes)
    return list({change.edit: change for change in changes}.values())


def left_to(subject: Subject, readers: Mapping[str, str]) -> dict[RepairName, list[str]]:
    """Return the repairs that would change a checkpoint, and are for no reader of it -> for which
    readers they are, as requirements."""
    left: dict[RepairName, list[str]] = {}
    for repair in REPAIRS:
        if repair.needed_by and not repair.is_for((), readers):
            try:
                would_change = bool(repair.edits(subject))
            except CheckpointError:
                would_change = False
            if would_change:
                left[repair.name] = [*left.get(repair.name, []), *repair.needed_by]
    return left
