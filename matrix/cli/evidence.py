"""What a command takes for evidence: a store, or a ``matrix.json`` in a file or at an address."""

from __future__ import annotations

from pathlib import Path

import typer

from matrix.cli.options import fail
from matrix.index.settings import index_settings, shown
from matrix.judge.document import decode
from matrix.judge.results import MatrixResult
from matrix.run.context import Context, Settings
from matrix.store.store import Store
from matrix.untrusted.reading import UnreadableError, read_file
from matrix.untrusted.text import visible

DATA = "matrix.json"
"""The file of a report that is data."""
MEGABYTES = 64.0
"""What a ``matrix.json`` may have: one of 20,000 cells has 26."""
SECONDS = 60.0
_REMEDY = "Give the matrix.json of a report"


class NoEvidenceError(ValueError):
    """What is named is no evidence. The text says why, and what to name."""


def read_evidence(evidence: str | None, settings: Settings) -> MatrixResult:
    """Return what is named; else what the store proves, or else what the report beside it says.

    Ends with status 2 where it cannot be read.
    """
    beside = settings.reports / DATA
    if evidence is None and (Store(settings.store).segments() or not beside.exists()):
        return Context(settings).table_judge().table()
    try:
        return result_at(evidence or str(beside))
    except NoEvidenceError as error:
        fail(str(error))


def last_evidence(evidence: str | None, settings: Settings) -> MatrixResult | None:
    """Return the result that is named, or the last report's where there is one to be read."""
    if evidence is not None:
        return read_evidence(evidence, settings)
    last = settings.reports / DATA
    if not last.is_file():
        return None
    try:
        return result_at(str(last))
    except NoEvidenceError as error:
        typer.echo(f"the last report is left out: {visible(str(error))}", err=True)
        return None


def result_at(place: str) -> MatrixResult:
    """Return what a ``matrix.json`` in a file or at an address holds.

    Raises :class:`NoEvidenceError` where it cannot be read; ends where an address gives nothing.
    """
    is_address = "://" in place
    try:
        data = (
            fetch(place, MEGABYTES) if is_address else read_file(Path(place), int(MEGABYTES * 1e6))
        )
        return decode(data)
    except UnreadableError as error:
        name = shown(place) if is_address else place
        raise NoEvidenceError(
            f"{name}: is no matrix.json of this version ({error}). {_REMEDY}"
        ) from None
    except OSError as error:
        remedy = f"{_REMEDY}, or its address (https://...)"
        raise NoEvidenceError(f"{place}: {error.strerror}. {remedy}") from None


def fetch(address: str, megabytes: float, remedy: str = "") -> bytes:
    """Return what is at an address; end with status 2, and a remedy, where nothing comes of it."""
    from matrix.index.fetching import Fetcher, FetchError, Limits, in_parallel

    if not address.lower().startswith(("https://", "http://")):
        fail(f"{shown(address)}: is no address that begins with https:// or http://")
    fetcher = Fetcher(index_settings().certificates, Limits(SECONDS, megabytes))
    # On a thread of its own: a server may be slow with its name or its headers, too.
    answer = in_parallel(fetcher.get, [address], SECONDS)[address]
    if isinstance(answer, FetchError):
        fail(f"{shown(address)}: {answer}" + (f". {remedy}" if remedy else ""))
    return answer.body
