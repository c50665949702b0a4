"""``matrix inspect``: what is wrong with a checkpoint of yours, by its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matrix.checkpoint.files import CONFIG
from matrix.checkpoint.inspection import CheckpointError, Inspection
from matrix.checks import run_checks
from matrix.checks.drift import MERGES
from matrix.checks.evidence import Evidence
from matrix.cli.options import LINE_CHARS, fail, releases_of
from matrix.judge.cells import thresholds
from matrix.pipeline.outcomes import Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage
from matrix.spec.loading import LoadedSpec, load, role_names
from matrix.spec.requirements import named_releases
from matrix.untrusted.text import visible


def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="Directory with config.json and weights.")],
    original: Annotated[
        Path | None, typer.Option(help="The float model it was made of, to compare weights with.")
    ] = None,
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="Among how many GPUs to divide it.")
    ] = 1,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="What is to read it, as in transformers==4.51.3; may be repeated."),
    ] = None,
) -> None:
    """Say what is wrong with a checkpoint of yours by reading its files; load and write nothing.

    Status 0 where nothing is, 1 where a check fails or an engine will not answer right from it, 2
    where it cannot be read at all.
    """
    loaded = load()
    readers = _readers(engine or [], _engines(loaded))
    inspection = _read(checkpoint, original)
    evidence = Evidence(
        tied=inspection.tie_word_embeddings,
        quantized=inspection.quantization is not None,
        thresholds=thresholds(loaded),
        engine=readers,
        tensor_parallel=tensor_parallel,
        inspection=inspection,
    )
    findings = run_checks(evidence, Stage.INSPECT)
    wrong = wrongs(findings)
    unseen = inspection.quantization is not None and original is None
    for line in wrong or [_nothing_wrong(findings, unseen=unseen)]:
        typer.echo(visible(line, LINE_CHARS))
    for finding in findings:
        show_finding(finding)
    raise typer.Exit(bool(wrong))


def _engines(loaded: LoadedSpec) -> set[str]:
    """Return the distributions that may be named: what engines require, and what reads for them."""
    environments = {name for name, _ in role_names(loaded, loaded.spec.engines).values()}
    required = (named_releases(loaded.environments[name]) for name in environments)
    return {MERGES.distribution}.union(*required)


def _readers(engine: list[str], engines: set[str]) -> dict[str, str]:
    """Return distribution -> version of what is to read a checkpoint, of ``engines`` alone."""
    readers = releases_of("--engine", engine)
    for name in readers.keys() - engines:
        names = ", ".join(sorted(engines))
        fail(
            f"--engine: {name!r} is no engine that this project knows. Give one of {names}, or "
            "leave it out"
        )
    return readers


def _read(checkpoint: Path, original: Path | None) -> Inspection:
    """Return what the files say; end with status 2 where they cannot be read."""
    from matrix.checkpoint.inspecting import inspect as read  # numpy takes a while to import

    try:
        inspection = read(checkpoint, original)
    except CheckpointError as error:
        fail(str(error))
    if inspection.problems:
        # Without a config.json it is no model, whatever else is wrong.
        first = min(inspection.problems, key=lambda problem: problem.where != CONFIG)
        more = len(inspection.problems) - 1
        fail(f"{first}" + (f" And {more} more such." if more else ""))
    return inspection


def wrongs(findings: list[Finding]) -> list[str]:
    """Return lines on what is wrong, what engines will do of it first; empty where nothing is."""
    noticed = [line for finding in findings if (line := _foretold(finding))]
    failed = [
        f"wrong: {finding.check}: {finding.message}"
        for finding in findings
        if finding.judgement is Judgement.FAILED
    ]
    return [*noticed, *failed]


def _foretold(finding: Finding) -> str:
    """Return what engines will do of a file that is no fault of the file alone, and what to do;
    empty where they will read it right, or none is known by name."""
    explains = finding.explains
    if finding.judgement is not Judgement.NOTICE or explains is None or not explains.engines:
        return ""
    engines = " and ".join(explains.engines)
    answers = explains.symptoms[:1] != [Symptom.ERROR]
    if answers and Symptom.NOT_FINITE in explains.symptoms:
        return f"wrong: {engines} will answer garbage: {finding.message}"
    if answers and Symptom.WRONG_ANSWERS in explains.symptoms:
        return f"wrong: {engines} will misread it: {finding.message}"
    if Symptom.ERROR in explains.symptoms:
        return f"wrong: {engines} will refuse to load it: {finding.message}"
    return ""


def _nothing_wrong(findings: list[Finding], *, unseen: bool) -> str:
    """Return the line on a checkpoint in which no check failed; its weights may be ``unseen``."""
    remarks = [
        f"{finding.check}: {finding.message}"
        for finding in findings
        if finding.judgement in (Judgement.NOTICE, Judgement.DEGRADED)
    ]
    compare = "its weights were not compared (give --original)"
    if remarks:
        return f"no check fails, but look at {'; '.join([*remarks, *[compare] * unseen])}"
    return f"no fault in what was looked at; {compare}" if unseen else "nothing is wrong with it"


def show_finding(finding: Finding) -> None:
    """Print what a check says, on a line."""
    message = visible(finding.message.strip(), LINE_CHARS)
    typer.echo(f"  {finding.check:19} {finding.judgement:14} {message}")
