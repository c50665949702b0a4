"""What an index says otherwise than a snapshot, and a snapshot with its answers taken in. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from packaging.version import Version

from matrix.spec.snapshot import SCHEMA, Release, Snapshot
from matrix.spec.versions import parsed

GONE_AT_ONCE, GONE_SHARE = 3, 0.1
"""What an index may drop of a package at once and be believed: so many releases, or such a share.
Projects delete a release now and then; a page that lost its tail lacks most of them."""


class Change(msgspec.Struct, frozen=True):
    """What an index says otherwise than the snapshot."""

    package: str
    version: str
    kind: Literal["new", "gone", "back", "yanked", "unyanked", "redated"]
    detail: str = ""


def news(old: Snapshot, answers: Mapping[str, list[Release]]) -> list[Change]:
    """Return what an index's answers say otherwise than a snapshot, by package and version.

    A package that was not asked for is no news. A date that changed is a lie: an index takes no
    second file of the same name, and a release's first file stays its first.
    """
    changes: list[Change] = []
    for package, releases in sorted(answers.items()):
        before = {release.version: release for release in old.packages.get(package, [])}
        now = {release.version: release for release in releases}
        for version in sorted({*before, *now}, key=_order):
            changes += _changes(package, before.get(version), now.get(version))
    return changes


def _changes(package: str, before: Release | None, now: Release | None) -> list[Change]:
    if before is None:
        yanked = "" if now is None or now.yanked is None else f" (yanked: {now.yanked})"
        return [Change(package, now.version, "new", now.uploaded[:10] + yanked)] if now else []
    if now is None:
        # What was found gone once is no news any more.
        return [] if before.gone else [Change(package, before.version, "gone")]
    changes = []
    if before.gone:
        changes.append(Change(package, now.version, "back", f"gone since {before.gone}"))
    if before.yanked is None and now.yanked is not None:
        changes.append(Change(package, now.version, "yanked", now.yanked))
    if before.yanked is not None and now.yanked is None:
        changes.append(Change(package, now.version, "unyanked"))
    if before.uploaded and now.uploaded and before.uploaded != now.uploaded:
        detail = f"was uploaded on {before.uploaded}, the index now says {now.uploaded}"
        changes.append(Change(package, now.version, "redated", detail))
    return changes


def dropped(before: Iterable[Release], now: Iterable[Release]) -> list[str]:
    """Return the releases that an index lacks now, where they are too many to be believed.

    Too many are more than three that are also more than a tenth of what was there.
    """
    there = [release.version for release in before if not release.gone]
    listed = {release.version for release in now}
    lacking = [version for version in there if version not in listed]
    few = len(lacking) <= max(GONE_AT_ONCE, GONE_SHARE * len(there))
    return [] if few else lacking


def merge(old: Snapshot, answers: Mapping[str, list[Release]], date: str) -> Snapshot:
    """Return a snapshot with an index's answers taken in, and nothing dropped.

    What is gone from the index stays, marked; a date that was stated stays; what a release
    requires is kept where it could not be read again. ``date`` (ISO, UTC) never goes back.
    """
    packages = dict(old.packages)
    for package, releases in answers.items():
        merged = {
            before.version: msgspec.structs.replace(before, gone=before.gone or date[:10])
            for before in packages.get(package, [])
        }
        for now in releases:
            merged[now.version] = _taken(merged.get(now.version), now, date)
        packages[package] = sorted(merged.values(), key=lambda release: _order(release.version))
    return Snapshot(SCHEMA, max(old.asked, date), dict(sorted(packages.items())))


def not_after(snapshot: Snapshot, now: str) -> Snapshot:
    """Return a snapshot as of now (ISO, UTC) where it says that it is of later.

    A clock was wrong when it was taken, and no answer would be newer until then.
    """
    return msgspec.structs.replace(snapshot, asked=min(snapshot.asked, now))


def _taken(before: Release | None, now: Release, date: str) -> Release:
    if before is None:
        return msgspec.structs.replace(now, seen=date[:10])
    return msgspec.structs.replace(
        now,
        uploaded=before.uploaded or now.uploaded,
        seen=before.seen,
        declares=before.declares if now.declares is None else now.declares,
        source=now.source or before.source,
    )


def _order(version: str) -> tuple[Version, str]:
    return parsed(version) or Version("0"), version
