"""The committed snapshot holds what was looked up on the index by hand."""

from __future__ import annotations

from matrix.spec.loading import DEFAULT_SPEC, load
from matrix.spec.snapshot import SNAPSHOT, encode, read_snapshot


def test_the_committed_snapshot_knows_what_was_measured_by_hand() -> None:
    """Looked up on the index on 2026-11-22; a snapshot keeps dates, so they hold for ever."""
    snapshot = read_snapshot(DEFAULT_SPEC / SNAPSHOT)
    dates = {
        ("autoawq", "0.2.9"): "2025-05-11T09:02:26Z",
        ("transformers", "5.23.0"): "2026-11-13T14:10:36Z",
        ("vllm", "0.33.0"): "2026-11-02T10:12:56Z",
    }
    for (package, version), date in dates.items():
        release = snapshot.release(package, version)
        assert release is not None
        assert release.uploaded == date
    declared = snapshot.declares("vllm", "0.3.3")
    assert declared is not None
    assert {"torch==2.1.2", "transformers>=4.38.0"} <= {*declared}
    assert {"0.2.7", "0.2.7.post3"} <= {release.version for release in snapshot.packages["autoawq"]}
    assert len(encode(snapshot)) < 300_000


def test_the_spec_says_of_no_release_what_its_source_archive_does() -> None:
    """A table goes before the snapshot: it is for what cannot be read, or is read wrong."""
    snapshot = read_snapshot(DEFAULT_SPEC / SNAPSHOT)
    read = [
        (table.package, table.version)
        for table in load().spec.metadata
        if snapshot.source_metadata(table.package, table.version) is not None
    ]
    assert read == []
    assert snapshot.source_metadata("autoawq", "0.2.9") is not None
