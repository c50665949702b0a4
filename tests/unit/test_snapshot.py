"""What a snapshot of releases keeps, what is news against it, and its file."""

from __future__ import annotations

import string
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from matrix.index.news import merge, news
from matrix.spec.snapshot import (
    EMPTY,
    SNAPSHOT,
    Release,
    Snapshot,
    SourceMetadata,
    encode,
    read_snapshot,
)
from matrix.spec.tables import MetadataTable
from tests.unit.test_picking import finals, made


def kinds(old: Snapshot, releases: list[Release]) -> list[tuple[str, str, str]]:
    return [(change.version, change.kind, change.detail) for change in news(old, {"p": releases})]


def test_news_names_what_changed() -> None:
    old = Snapshot(
        1,
        "2026-11-01T00:00:00Z",
        {
            "p": [
                Release("1.0", uploaded="2026-01-01T00:00:00Z"),
                Release("1.1", uploaded="2026-01-02T00:00:00Z"),
                Release("1.2", uploaded="2026-01-03T00:00:00Z"),
                Release("1.3", uploaded="2026-01-04T00:00:00Z", yanked="oh"),
                Release("1.4", gone="2026-10-01"),
                Release("1.5", gone="2026-10-01"),
            ],
            "not asked": [Release("1.0")],
        },
    )
    releases = [
        Release("1.1", uploaded="2026-01-02T00:00:00Z", yanked="a bug"),
        Release("1.2", uploaded="2025-12-31T00:00:00Z"),
        Release("1.3", uploaded="2026-01-04T00:00:00Z"),
        Release("1.5"),
        Release("2.0", uploaded="2026-11-02T10:00:00Z"),
        Release("2.1", uploaded="2026-11-03T10:00:00Z", yanked="too early"),
    ]
    assert kinds(old, releases) == [
        ("1.0", "gone", ""),
        ("1.1", "yanked", "a bug"),
        ("1.2", "redated", "was uploaded on 2026-01-03T00:00:00Z, the index now says "
         "2025-12-31T00:00:00Z"),
        ("1.3", "unyanked", ""),
        ("1.5", "back", "gone since 2026-10-01"),
        ("2.0", "new", "2026-11-02"),
        ("2.1", "new", "2026-11-03 (yanked: too early)"),
    ]  # fmt: skip


dated = st.builds(
    Release,
    finals,
    uploaded=st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
    yanked=st.none() | st.text(max_size=3),
    declares=st.none() | st.just(["torch"]),
    source=st.none() | st.just(SourceMetadata(["torch"], "PKG-INFO")),
)
listed = st.lists(dated, max_size=10, unique_by=lambda release: release.version)
snapshots = st.builds(
    lambda releases: merge(EMPTY, {"p": releases}, "2026-11-01T00:00:00Z"), listed
)


@given(snapshots, listed)
def test_a_snapshot_drops_no_release_no_date_and_nothing_declared(
    old: Snapshot, releases: list[Release]
) -> None:
    new = merge(old, {"p": releases}, "2026-11-02T00:00:00Z")
    for before in old.packages["p"]:
        after = new.release("p", before.version)
        assert after is not None
        assert after.seen == before.seen
        assert before.uploaded in ("", after.uploaded)
        assert before.declares is None or after.declares is not None
        assert before.source is None or after.source is not None
    assert {release.version for release in releases} <= {
        release.version for release in new.packages["p"]
    }
    versions = [release.version for release in new.packages["p"]]
    assert versions == sorted(versions, key=Version)


@given(snapshots, listed)
def test_what_was_taken_in_is_no_news_but_for_dates_that_lie(
    old: Snapshot, releases: list[Release]
) -> None:
    new = merge(old, {"p": releases}, "2026-11-02T00:00:00Z")
    assert {change.kind for change in news(new, {"p": releases})} <= {"redated"}
    assert merge(new, {"p": releases}, "2026-11-02T00:00:00Z") == new


def test_a_snapshot_marks_what_is_new_and_what_is_gone_with_the_date() -> None:
    old = merge(EMPTY, {"p": made("1.0")}, "2026-11-01T00:00:00Z")
    new = merge(old, {"p": made("2.0")}, "2026-11-02T00:00:00Z")
    assert [(release.version, release.seen, release.gone) for release in new.packages["p"]] == [
        ("1.0", "2026-11-01", "2026-11-02"), ("2.0", "2026-11-02", ""),
    ]  # fmt: skip
    later = merge(new, {"p": made("2.0")}, "2026-11-03T00:00:00Z")
    assert [release.gone for release in later.packages["p"]] == ["2026-11-02", ""]


def test_the_date_of_a_snapshot_never_goes_back() -> None:
    assert merge(Snapshot(1, "2026-11-02", {}), {}, "2026-11-01").asked == "2026-11-02"


def test_what_the_spec_says_of_a_release_goes_before_its_wheel() -> None:
    snapshot = Snapshot(1, "", {"auto-gptq": [Release("1.0", declares=["torch"]), Release("1.1")]})
    ours = [
        MetadataTable(package="Auto_GPTQ", version="1.0.0", requires_dist=["numpy"], source="here")
    ]
    assert snapshot.declares("auto-gptq", "1.0") == ["torch"]
    assert snapshot.declares("Auto.GPTQ", "1.0", ours) == ["numpy"]
    assert snapshot.declares("auto-gptq", "1.1", ours) is None
    assert snapshot.declares("auto-gptq", "9.9", ours) is None


def test_of_a_release_without_a_wheel_its_source_archive_is_believed() -> None:
    read = Release("1.0", source=SourceMetadata(["torch>=2", "numpy"], "PKG-INFO"))
    snapshot = Snapshot(1, "", {"maker": [read, Release("2.0")]})
    ours = [MetadataTable(package="maker", version="1.0", requires_dist=["numpy"], source="here")]
    assert snapshot.declares("maker", "1.0") == ["torch>=2", "numpy"]
    assert snapshot.declares("maker", "1.0", ours) == ["numpy"]
    assert snapshot.declares("maker", "2.0") is None


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
any_release = st.builds(
    Release, finals, uploaded=anything, requires_python=anything, yanked=st.none() | anything,
    wheels=st.lists(anything), sdist=st.booleans(), size=st.integers(0, 2**40), seen=anything,
    gone=anything, declares=st.none() | st.lists(anything),
    source=st.none() | st.builds(SourceMetadata, st.lists(anything), anything),
)  # fmt: skip


@given(
    st.dictionaries(st.text(string.ascii_lowercase, min_size=1), st.lists(any_release)), anything
)
def test_a_snapshot_is_written_and_read_with_a_line_for_each_release(
    packages: dict[str, list[Release]], date: str
) -> None:
    snapshot = Snapshot(1, date, packages)
    raw = encode(snapshot)
    assert msgspec.json.decode(raw, type=Snapshot) == snapshot
    lines = raw.decode().split("\n")
    assert sum(line.startswith("  {") for line in lines) == sum(map(len, packages.values()))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<html>", "is no snapshot of releases"),
        ('{"schema": 2, "asked": "", "packages": {}}', "is no snapshot of releases"),
        (
            '{"schema": 1, "asked": "", "packages": {"p": [{"version": "?"}]}}',
            "'\\?' is no version",
        ),
        ('{"schema": 1, "deep": ' + "[" * 100_000, "is no snapshot of releases"),
        (" " * 16_000_001, "has more than 16000000 bytes"),
    ],
)
def test_a_file_that_is_no_snapshot_is_refused_with_a_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / SNAPSHOT
    file.write_text(text)
    with pytest.raises(ValueError, match=problem) as error:
        read_snapshot(file)
    assert "\n" not in str(error.value)
