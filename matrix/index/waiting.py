"""New releases that wait: most of what is malicious is taken off an index within days. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from matrix.spec.snapshot import Release

if TYPE_CHECKING:
    from matrix.index.client import IndexAnswer  # pypi-simple takes half a second to import

WAIT_DAYS = 3
"""By default. It is a choice and no bound: ultralytics 8.3.41 was on PyPI for about half a day
(its own analysis of December 2024), others were there for weeks."""


class Waiting(msgspec.Struct, frozen=True):
    """A release that is new on the index and too new to be taken in."""

    package: str
    version: str
    uploaded: str
    until: str
    """ISO time from which on it is taken."""


def without_newest(
    answers: Iterable[IndexAnswer], before: Mapping[str, list[Release]], days: float
) -> tuple[list[IndexAnswer], list[Waiting]]:
    """Return the answers without the releases that wait, and these.

    A release waits until it was uploaded so many days before its index was asked, unless it is in
    the snapshot already. One of which the index does not say when it was uploaded does not wait.

    Args:
        answers: Of an index, now.
        before: Package -> its releases in the snapshot.
        days: How long a release waits.
    """
    left, waiting = [], []
    for answer in answers:
        taken = {release.version for release in before.get(answer.package, [])}
        until = {
            release.version: then
            for release in answer.releases
            if release.version not in taken
            and (then := _until(release.uploaded, days))
            and then > answer.asked
        }
        releases = [release for release in answer.releases if release.version not in until]
        left.append(msgspec.structs.replace(answer, releases=releases))
        waiting += [
            Waiting(answer.package, release.version, release.uploaded, until[release.version])
            for release in answer.releases
            if release.version in until
        ]
    return left, waiting


def _until(uploaded: str, days: float) -> str:
    """Return the ISO time so many days after another; empty where that is none."""
    try:
        then = datetime.fromisoformat(uploaded).astimezone(UTC) + timedelta(days=days)
    except ValueError:
        return ""
    except OverflowError:  # it lies, and waits for ever
        then = datetime.max
    return f"{then:%Y-%m-%dT%H:%M:%SZ}"
