"""The answer of ``matrix advise``, as data and in words."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from matrix.checkpoint.formats import Method
from matrix.cli.options import ERROR_CHARS, LINE_CHARS
from matrix.cli.showing import Copied
from matrix.judge.advising import Advice, Failure, Proof
from matrix.judge.likely import Likelihood
from matrix.judge.results import ModelFacts
from matrix.untrusted.text import visible

SHOWN = 8
"""How many of a list are shown; --format json has all."""
NEWEST = 3
"""How many proofs are shown of each engine, where none is named."""

_Item = TypeVar("_Item")


class InstallFiles(msgspec.Struct, frozen=True):
    """How an environment is installed that advice names."""

    line: str
    files: dict[str, str]
    """Texts by name, relative to the folder in which the line is run."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said, as ``--format json`` shows it."""

    schema: int = 1
    finished: str
    """ISO time of the newest evidence of all."""
    model: ModelFacts
    method: Method
    device: str
    advice: Advice
    installs: dict[str, InstallFiles]
    departures: dict[str, str]
    fixes: dict[str, str]
    """Id of a known issue -> its title and fix."""
    commands: list[str] = []
    """What would prove something, where nothing is proven."""
    rows: list[str] = []
    """What is to be added to the spec before, where it has no such cell."""
    then: str = ""
    """The command that runs it."""


def in_words(answer: Answer, out: Path | None, *, of_all_engines: bool) -> Iterator[str]:
    """Yield the lines of an answer, of all engines the newest of each alone.

    ``out`` is the folder of the files that install it.
    """
    for line in _lines(answer, out, of_all_engines):
        shown = visible(line, ERROR_CHARS)
        yield Copied(shown) if isinstance(line, Copied) else shown


def _lines(answer: Answer, out: Path | None, of_all_engines: bool) -> Iterator[str]:
    advice, model = answer.advice, answer.model
    devices = _devices_of_all(advice)
    proven, faded = (
        _newest(proofs) if of_all_engines else proofs[:SHOWN]
        for proofs in (advice.proven, advice.faded)
    )
    tied = "tied" if model.tied else "not tied"
    subject = f"{answer.method} of {model.model_type or 'an unknown architecture'} ({tied})"
    if advice.proven:
        yield f"{subject}: proven, the newest releases first:"
        yield from _proofs(proven, advice.proven, of_all_engines, not devices)
    if advice.faded:
        yield f"{subject}: proven by old evidence alone, the newest releases first:"
        yield from _proofs(faded, advice.faded, of_all_engines, not devices)
    if not advice.proven and not advice.faded:
        yield f"no evidence: nothing is proven to work for {subject}"
    if devices:
        yield f"all of it on {visible(', '.join(devices), LINE_CHARS)}"
    yield from _installs(answer, [*proven, *faded], out)
    if answer.departures:
        yield "no stock packages: these were run with a difference, and may fail without it:"
        for name, text in answer.departures.items():
            yield f"  {name}: {visible(text, LINE_CHARS)}"
    if advice.likely:
        yield "likely, but unproven:"
        yield from _some(advice.likely, _of_likelihood)
    if advice.failed:
        yield "not these:"
        yield from _some(advice.failed, lambda failure: _of_failure(failure, answer.fixes))
    if answer.commands:
        where = f" (on {answer.device})" if answer.device else ""
        yield f"what would prove it, one cell each{where}:"
        yield from (Copied(f"  {command}") for command in answer.commands)
    if answer.rows:
        yield "no profile has such a cell. This adds it, in a file of its own in the spec's folder:"
        yield from ("", *map(Copied, answer.rows), "")
        yield Copied(f"then: {answer.then}")


def _newest(proofs: Sequence[Proof]) -> list[Proof]:
    """Return of the proofs, the newest first, a few of each engine, of whatever release."""
    counts: Counter[str] = Counter()
    newest = []
    for proof in proofs:
        engine = re.split(r"-(?=[0-9])", proof.engine)[0]
        counts[engine] += 1
        if counts[engine] <= NEWEST:
            newest.append(proof)
    return newest


def _devices_of_all(advice: Advice) -> list[str]:
    """Return the devices of all proofs, where these are the same; none where there is one proof."""
    proofs = [*advice.proven, *advice.faded]
    devices = proofs[0].devices if len(proofs) > 1 else []
    return devices if all(proof.devices == devices for proof in proofs) else []


def _proofs(
    shown: Sequence[Proof], proofs: Sequence[Proof], of_all_engines: bool, with_devices: bool
) -> Iterator[str]:
    for proof in shown:
        yield from _of_proof(proof, with_devices)
    if left := len(proofs) - len(shown):
        narrower = "--engine NAME has more of one engine, --format json all"
        yield f"  and {left} more ({narrower if of_all_engines else '--format json has all'})"


def _some(items: Sequence[_Item], words: Callable[[_Item], Iterator[str]]) -> Iterator[str]:
    for item in items[:SHOWN]:
        yield from words(item)
    if len(items) > SHOWN:
        yield f"  and {len(items) - SHOWN} more (--format json has all)"


def _of_proof(proof: Proof, with_devices: bool) -> Iterator[str]:
    models = ", ".join(proof.models)
    yield f"  {proof.quantizer} in {proof.engine} ({proof.scheme}: {models})"
    runs = [f"{proof.runs} run{'s' * (proof.runs > 1)}"] if proof.runs else []
    devices = proof.devices if with_devices else []
    words = [proof.date or "no date", f"{proof.days} days old", *runs, *devices]
    departures = f"; departs: {', '.join(proof.departures)}" if proof.departures else ""
    yield f"    {visible(', '.join(words), LINE_CHARS)}{departures}"
    if proof.repairs:
        yield f"    after `matrix repair` of the checkpoint: {', '.join(proof.repairs)}"


def _installs(answer: Answer, proofs: list[Proof], out: Path | None) -> Iterator[str]:
    if out is None:
        if answer.installs:
            yield "--out FOLDER writes a requirements file for each of these environments"
        return
    if answer.installs:
        yield f"requirements files are in {out}. Install one there, with uv:"
    elif proofs:
        yield "no requirements file is written:"
    environments = [name for proof in proofs for name in proof.environments]
    for name in dict.fromkeys(environments):
        if name in answer.installs:
            yield Copied(f"  cd {shlex.quote(str(out))} && {answer.installs[name].line}")
        else:
            yield f"  {name}: the evidence has no lock of it"


def _of_likelihood(likelihood: Likelihood) -> Iterator[str]:
    yield f"  {likelihood.what}, {visible(likelihood.why, LINE_CHARS)}"
    partners = likelihood.beside[:SHOWN]
    more = f" and {len(likelihood.beside) - SHOWN} more" if likelihood.beside[SHOWN:] else ""
    yield f"    {'; '.join(partners)}{more}"


def _of_failure(failure: Failure, fixes: Mapping[str, str]) -> Iterator[str]:
    engines = ", ".join(failure.engines[:3])
    more = f" and {len(failure.engines) - 3} more" if failure.engines[3:] else ""
    yield f"  {failure.verdict}: {', '.join(failure.quantizers)} in {engines}{more}"
    what = fixes.get(failure.issue) or failure.message
    yield f"    {visible(' '.join(what.split()), LINE_CHARS)}"
