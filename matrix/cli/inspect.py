"""``matrix inspect``: what is wrong with a checkpoint of yours, by its files alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from matrix.checkpoint.files import CONFIG
from matrix.checkpoint.inspection import CheckpointError, Inspection
from matrix.checks import run_checks
from matrix.checks.drift import MERGES
from matrix.checks.evidence import Evidence
from matrix.cli.evidence import read_evidence
from matrix.cli.issues import DATA, describe, wrapped
from matrix.cli.options import (
    ERROR_CHARS,
    LINE_CHARS,
    Format,
    FormatOption,
    as_json,
    fail,
    releases_of,
)
from matrix.description.locating import NotHereError, locate
from matrix.diagnose.catalogue import Effect, Issue, Traits, load_issues
from matrix.diagnose.matching import Failure, Fit, Match, Side, match_issues
from matrix.judge.cells import thresholds
from matrix.judge.readings import readings, traits_of
from matrix.judge.results import MatrixResult
from matrix.pipeline.outcomes import Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage, Step
from matrix.run.context import Settings
from matrix.spec.loading import LoadedSpec, load, role_names
from matrix.spec.requirements import named_releases
from matrix.untrusted.text import visible

WRONG = "wrong: "
SEEN = "\nfiles of this method, format, bits, group and architecture were seen in:"
LOUD = (Judgement.NOTICE, Judgement.DEGRADED, Judgement.FAILED)


class IssueAnswer(msgspec.Struct, frozen=True):
    """A known issue that the file has, for ``--format json``."""

    id: str
    title: str
    fit: Fit
    effect: Effect
    cause: str
    fix: str
    repair: str
    sources: list[str]


class Answer(msgspec.Struct, frozen=True):
    """What was seen of a checkpoint, as ``--format json`` shows it."""

    is_sound: bool
    summary: str
    """Whether it is sound, with the gravest fault."""
    wrong: list[str]
    """All faults, what engines will do of one first."""
    findings: list[Finding]
    issues: list[IssueAnswer]
    readings: list[str]
    """What engines were seen to make of such files, by the evidence there is."""


def inspect(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Folder with config.json and weights, a .safetensors file in it, or a Hub id "
            "whose files are in the Hub's cache."
        ),
    ],
    original: Annotated[
        str | None, typer.Option(help="The float model it was made of, to compare it with.")
    ] = None,
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="Among how many GPUs to divide it.")
    ] = 1,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="What is to read it, as in transformers==4.51.3; may be repeated."),
    ] = None,
    evidence: Annotated[
        str | None,
        typer.Option(
            help="A matrix.json, or its address: what engines made of such files. "
            "Default reports/matrix.json, where it is."
        ),
    ] = None,
    show: FormatOption = Format.TABLE,
) -> None:
    """Say what is wrong with a checkpoint of yours by reading its files; load and write nothing.

    Status 0 where it is sound, 1 where a check fails, it has a known defect, or an engine will not
    answer right from it, 2 where it cannot be read at all.
    """
    loaded = load()
    readers = _readers(engine or [], _engines(loaded))
    folder = _located(checkpoint)
    source = _located(original) if original is not None else None
    answer = examine(folder, source, loaded, readers, tensor_parallel, _result(evidence))
    if show is Format.JSON:
        typer.echo(as_json(answer))
    else:
        _show(answer)
    raise typer.Exit(not answer.is_sound)


def _result(evidence: str | None) -> MatrixResult | None:
    """Return the result that is named, or the last report's where there is one."""
    settings = Settings.of()
    if evidence is None and not (settings.reports / DATA).is_file():
        return None
    return read_evidence(evidence or str(settings.reports / DATA), settings)


def _located(name: str) -> Path:
    """Return the folder of what is named; end with status 2 where it is not here."""
    try:
        return locate(name, os.environ, Path.home())
    except NotHereError as error:
        fail(str(error))


def examine(
    folder: Path,
    original: Path | None,
    loaded: LoadedSpec,
    readers: dict[str, str],
    tensor_parallel: int = 1,
    result: MatrixResult | None = None,
) -> Answer:
    """Return what the files of a checkpoint say, judged by this project's thresholds.

    Args:
        folder: The checkpoint's.
        original: That of the float model, if it is to be compared.
        loaded: The spec with the thresholds.
        readers: Distribution -> version of what is to read it; empty where nothing is meant.
        tensor_parallel: Among how many GPUs it is to be divided.
        result: Of a run, for what engines made of such files.
    """
    from matrix.description.checks import is_tied_by, judge_account, read_account

    inspection = _read(folder, original)
    account = read_account(folder, original, inspection)
    evidence = Evidence(
        tied=is_tied_by(account),
        quantized=inspection.quantization is not None,
        thresholds=thresholds(loaded),
        engine=readers,
        tensor_parallel=tensor_parallel,
        inspection=inspection,
    )
    findings = [*judge_account(account, inspection, readers), *run_checks(evidence, Stage.INSPECT)]
    matches = _known_issues(findings, evidence)
    wrong = wrongs(findings)
    # An engine that is named may read a file right that has a defect for others.
    defects = [] if readers else [match for match in matches if match.issue.effect is Effect.FAULT]
    if not wrong:
        wrong = [f"{WRONG}known defect: {m.issue.title}: {m.quote}" for m in defects]
    unseen = inspection.quantization is not None and original is None
    summary = f"sound: {_nothing_wrong(findings, unseen=unseen)}"
    if wrong:
        summary = f"not sound: {wrong[0].removeprefix(WRONG)}"
    findings = [
        msgspec.structs.replace(finding, message=visible(finding.message, ERROR_CHARS))
        for finding in findings
    ]
    return Answer(
        is_sound=not wrong,
        summary=visible(summary, ERROR_CHARS),
        wrong=[visible(line, ERROR_CHARS) for line in wrong],
        findings=findings,
        issues=[_issue_answer(match.issue, match.fit) for match in matches],
        readings=_readings(inspection, result),
    )


def _readings(inspection: Inspection, result: MatrixResult | None) -> list[str]:
    """Return what engines made of files like this one, by a run; empty where none is known."""
    traits = traits_of(inspection)
    return readings(result, *traits) if result is not None and traits is not None else []


def _known_issues(findings: list[Finding], evidence: Evidence) -> list[Match]:
    """Return the known issues that fit what is not quiet, the best first."""
    inspection = evidence.inspection
    quantization = inspection.quantization if inspection else None
    traits = Traits(
        tied=evidence.tied,
        methods=[quantization.method if quantization else "none"],
        bits=[quantization.bits] if quantization and quantization.bits else [],
        desc_act=bool(quantization.desc_act) if quantization else None,
    )
    loud = [finding for finding in findings if finding.judgement in LOUD]
    failure = Failure(findings=loud, step=Step.INSPECT, here=Side(evidence.engine), traits=traits)
    matches = match_issues(load_issues().values(), failure)
    return [match for match in matches if match.fit is not Fit.LOOKS_LIKE]


def _issue_answer(issue: Issue, fit: Fit) -> IssueAnswer:
    return IssueAnswer(
        issue.id,
        issue.title,
        fit,
        issue.effect,
        issue.cause,
        issue.fix,
        issue.repair,
        issue.sources,
    )


def _show(answer: Answer) -> None:
    """Print an answer for a person."""
    for line in [answer.summary, *answer.wrong[1:]]:
        typer.echo(visible(line, LINE_CHARS))
    for finding in answer.findings:
        show_finding(finding)
    for answered in answer.issues:
        issue = load_issues()[answered.id]
        typer.echo(f"\nknown issue: {issue.title} ({issue.id})")
        typer.echo("\n".join(describe(issue)))
    for number, reading in enumerate(answer.readings):
        typer.echo("\n".join([*([] if number else [SEEN]), *wrapped("", reading)]))


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
    from matrix.description.checks import without_training_files

    try:
        inspection = without_training_files(read(checkpoint, original))
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
        f"{WRONG}{finding.check}: {finding.message}"
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
        return f"{WRONG}{engines} will answer garbage: {finding.message}"
    if answers and Symptom.WRONG_ANSWERS in explains.symptoms:
        return f"{WRONG}{engines} will misread it: {finding.message}"
    if Symptom.ERROR in explains.symptoms:
        return f"{WRONG}{engines} will refuse to load it: {finding.message}"
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
