"""The answer of ``matrix advise``, as data and in words."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from matrix.cli.options import ERROR_CHARS, LINE_CHARS
from matrix.judge.advising import Advice, Failure, Proof
from matrix.judge.likely import Likelihood
from matrix.judge.results import ModelFacts
from matrix.spec.tables import Method
from matrix.untrusted.text import visible

SHOWN = 8
"""How many of a list are shown; --format json has all."""

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


def in_words(answer: Answer, out: Path | None) -> list[str]:
    """Return the lines of an answer; ``out`` is the folder of the files that install it."""
    return [visible(line, ERROR_CHARS) for line in _lines(answer, out)]


def _lines(answer: Answer, out: Path | None) -> Iterator[str]:
    advice, model = answer.advice, answer.model
    tied = "tied" if model.tied else "not tied"
    subject = f"{answer.method} of {model.model_type or 'an unknown architecture'} ({tied})"
    if advice.proven:
        yield f"{subject}: proven, the newest releases first:"
        yield from _some(advice.proven, _of_proof)
    if advice.faded:
        yield f"{subject}: proven by old evidence alone, the newest releases first:"
        yield from _some(advice.faded, _of_proof)
    if not advice.proven and not advice.faded:
        yield f"no evidence: nothing is proven to work for {subject}"
    yield from _installs(answer, [*advice.proven, *advice.faded], out)
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
        yield from (f"  {command}" for command in answer.commands)
    if answer.rows:
        yield "no profile has such a cell. This adds it, in a file of its own in the spec's folder:"
        yield from ("", *answer.rows, "")
        yield f"then: {answer.then}"


def _some(items: Sequence[_Item], words: Callable[[_Item], Iterator[str]]) -> Iterator[str]:
    for item in items[:SHOWN]:
        yield from words(item)
    if len(items) > SHOWN:
        yield f"  and {len(items) - SHOWN} more (--format json has all)"


def _of_proof(proof: Proof) -> Iterator[str]:
    models = ", ".join(proof.models)
    yield f"  {proof.quantizer} in {proof.engine} ({proof.scheme}: {models})"
    runs = [f"{proof.runs} run{'s' * (proof.runs > 1)}"] if proof.runs else []
    words = [proof.date or "no date", f"{proof.days} days old", *runs, *proof.devices]
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
    environments = [name for proof in proofs[:SHOWN] for name in proof.environments]
    for name in dict.fromkeys(environments):
        if name in answer.installs:
            yield f"  cd {shlex.quote(str(out))} && {answer.installs[name].line}"
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
