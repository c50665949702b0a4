"""How long engines have read a format, by the lists in their wheels, and what proves it. Pure.

Nothing is run for it. A release that lists a method may still refuse some of its files, and have no
kernel for a device; one that does not list it may read it by a plugin.
"""

from __future__ import annotations

from typing import Final

import msgspec

from matrix.judge.likeness import program
from matrix.judge.results import CanaryState, CellResult, MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.spec.methods import OTHER_NAMES, Listing, Methods, Spans
from matrix.untrusted.text import natural, visible

NO_FORMATS: Final = frozenset({
    "awq_marlin", "cpu_awq", "cpu_gptq", "deepseek_v4_fp8", "experts_int8", "fp8_per_block",
    "fp8_per_channel", "fp8_per_tensor", "gpt_oss_mxfp4", "gptq_bitblas", "gptq_marlin", "humming",
    "int8_per_channel_weight_only", "ipex", "moe_wna16", "neuron_quant", "nvfp4_per_token",
    "online", "petit_nvfp4", "ptpc_fp8", "rtn", "tpu_int8",
    *(name for names in OTHER_NAMES.values() for name in names),
})  # fmt: skip
"""What lists name besides: kernels for files of another method, and quantizing while loading.

By hand, since a list has names and nothing more: whether a file can be of a name stands in the code
that the name leads to. A new name counts as a format until it is added here.
"""
_RFC: Final = "https://github.com/vllm-project/vllm/issues/30136"
_LEGACY: Final = ("a legacy format, dropped by design", _RFC)
_DROPPED: Final = {
    ("vllm", "bitsandbytes"): (
        "moved to the package vllm-bnb-plugin",
        "https://github.com/vllm-project/vllm/pull/43529",
    ),
    ("vllm", "gguf"): (
        "moved to the package vllm-gguf-plugin",
        "https://github.com/vllm-project/vllm/pull/39612",
    ),
    ("vllm", "nvfp4"): ("renamed to modelopt_fp4", ""),
    **{
        ("vllm", name): _LEGACY
        for name in (
            "bitblas", "deepspeedfp", "fbgemm_fp8", "fp_quant", "gptq_marlin_24", "hqq",
        )
    },
}  # fmt: skip
"""(Package, method) -> what became of it, and where that was decided."""


class Proof(msgspec.Struct, frozen=True):
    """A cell that works: an engine that read a file of a method, and answered right."""

    cell: str
    version: str
    at: str
    """When it was observed, ISO, UTC."""


class Lifetime(msgspec.Struct, frozen=True, kw_only=True):
    """Which releases of a package list a method."""

    method: str
    package: str
    readers: int
    """How many releases list it."""
    releases: int
    """Of so many that were looked at."""
    since: str
    until: str
    """The first release that lists it, and the last."""
    gone: str = ""
    """The first release since then that does not; empty where the newest lists it."""
    gaps: list[str]
    """Releases between ``since`` and ``until`` that do not list it."""
    announced: str = ""
    """The release since which it is announced that it will go, or was before it went."""
    why: str = ""
    """What became of it, or is planned, where that is known."""
    source: str = ""
    proof: Proof | None = None
    """By the newest release of the package of which a cell works."""


def lifetimes(methods: Methods, result: MatrixResult | None = None) -> list[Lifetime]:
    """Return a lifetime for each format and package that lists it, those most read first.

    ``result``: where to look for what was proven.
    """
    proofs = _proofs(result) if result else {}
    every = [
        lifetime
        for package, listing in methods.packages.items()
        for method in sorted(listing.methods.keys() - NO_FORMATS | _renamed(listing))
        if (lifetime := _lifetime(method, package, listing, proofs.get((package, method))))
    ]
    readers: dict[str, int] = {}
    for lifetime in every:
        readers[lifetime.method] = readers.get(lifetime.method, 0) + lifetime.readers
    return sorted(every, key=lambda life: (-readers[life.method], life.method, life.package))


def _renamed(listing: Listing) -> set[str]:
    """Return the methods that a package lists by another name."""
    return {
        method for method, names in OTHER_NAMES.items() if any(n in listing.methods for n in names)
    }


def _lifetime(method: str, package: str, listing: Listing, proof: Proof | None) -> Lifetime | None:
    readers = listing.readers(method)
    if not readers:
        return None
    place = listing.releases.index
    after = listing.releases[place(readers[-1]) + 1 :]
    between = listing.releases[place(readers[0]) : place(readers[-1])]
    own = listing.methods.get(method, Spans())
    announced = listing.releases_within(own.announced)
    is_announced = readers[-1] in announced
    why, source = _DROPPED.get((package.removesuffix("-cpu"), method), ("", ""))
    is_going = bool(after) or is_announced
    return Lifetime(
        method=method,
        package=package,
        readers=len(readers),
        releases=len(listing.releases),
        since=readers[0],
        until=readers[-1],
        gone=after[0] if after else "",
        gaps=[version for version in between if version not in readers],
        announced=announced[0] if is_announced else "",
        why=why if is_going else "",
        source=source if is_going else "",
        proof=proof,
    )


def _proofs(result: MatrixResult) -> dict[tuple[str, str], Proof]:
    """Return (package, method) -> the proof by the newest release of the package."""
    if result.canaries is CanaryState.VOID:
        return {}
    proofs: dict[tuple[str, str], Proof] = {}
    for cell in sorted(result.cells, key=_by_release):
        facts = result.schemes.get(cell.scheme)
        if facts is not None and cell.verdict is Verdict.WORKS and not cell.flaky:
            package, version = program(cell.engine)
            proofs[package, facts.method] = Proof(cell.id, version, cell.at)
    return proofs


def _by_release(cell: CellResult) -> tuple[object, ...]:
    """Return a key by which the cell of the newest release comes last."""
    return natural(program(cell.engine)[1]), cell.at, cell.id


def lines_of(method: str, methods: Methods, result: MatrixResult | None) -> list[str]:
    """Return a line for each package that lists a method, or one that says that none does."""
    lines = [in_words(life) for life in lifetimes(methods, result) if life.method == method]
    return lines or [f"in no list of {', '.join(methods.packages)}: {visible(method, 60)}"]


def in_words(lifetime: Lifetime) -> str:
    """Return a line that says who reads a format, and whether that lasts."""
    words = (
        f"read by {lifetime.readers} of {lifetime.releases} releases of {lifetime.package}, "
        f"{lifetime.since} to {lifetime.until}"
    )
    if lifetime.gaps:
        words += f" but {', '.join(lifetime.gaps)}"
    if end := end_in_words(lifetime):
        words += f"; {end}"
    if lifetime.source:
        words += f" ({lifetime.source})"
    if lifetime.proof:
        words += f"; last proof {lifetime.proof.version}, {lifetime.proof.at[:10]}"
    return words


def end_in_words(lifetime: Lifetime) -> str:
    """Return since when a format is gone, or announced to go, and why; empty where it lasts."""
    announced = f"announced in {lifetime.announced}" if lifetime.announced else ""
    if lifetime.gone:
        end = f"gone since {lifetime.gone}" + (f", {announced}" if announced else "")
    elif announced:
        end = f"will go, {announced}; loads only by --allow-deprecated-quantization"
    else:
        return ""
    return f"{end}: {lifetime.why}" if lifetime.why else end
