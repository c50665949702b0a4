"""A report of many cells, whose pages a process of their own writes beside the rest."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from matrix import report
from matrix.report.at_once import at_once
from tests.unit.report_results import realistic


def test_two_processes_write_the_bytes_of_a_single_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = report.Material(realistic())
    names = report.write(material, tmp_path / "alone")
    monkeypatch.setattr(report, "MANY", len(material.result.cells))
    monkeypatch.setattr(report.cell_pages, "cell_files", _with_writer(report.cell_pages.cell_files))
    assert sorted(report.write(material, tmp_path / "beside")) == sorted([*names, "cells/writer"])
    assert (tmp_path / "beside" / "cells" / "writer").read_text() != str(os.getpid())
    for name in names:
        assert (tmp_path / "beside" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


Files = Callable[[report.Material], Iterator[tuple[str, bytes]]]


def _with_writer(cell_files: Files) -> Files:
    def files(material: report.Material) -> Iterator[tuple[str, bytes]]:
        yield from cell_files(material)
        yield "cells/writer", str(os.getpid()).encode()

    return files


def test_what_goes_wrong_beside_is_raised_here() -> None:
    def full() -> list[str]:
        raise OSError(28, "No space left on device")

    with at_once(full, forked=True) as done, pytest.raises(OSError, match="No space left"):
        done()


@pytest.mark.parametrize("forked", [True, False])
def test_a_process_with_threads_is_not_copied(*, forked: bool) -> None:
    ends = threading.Event()
    other = threading.Thread(target=ends.wait)
    with at_once(os.getpid, forked=forked) as done:
        assert (done() == os.getpid()) is not forked
    other.start()
    try:
        with at_once(os.getpid, forked=forked) as done:
            assert done() == os.getpid()
    finally:
        ends.set()
        other.join()
