"""A recording is judged by what was run then and by the thresholds of today."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from matrix.spec.loading import DEFAULT_SPEC
from tests.recorded import recording


@pytest.fixture
def changed_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the project's spec hold another AutoAWQ, vLLM, threshold, and one model less."""
    folder = tmp_path / DEFAULT_SPEC.name
    shutil.copytree(DEFAULT_SPEC, folder)
    for name, old, new in (
        ("environments/cpu.toml", 'axes.autoawq = ["0.2.6"', 'axes.autoawq = ["0.2.99", "0.2.6"'),
        ("environments/cpu.toml", '{ vllm = "0.32.0"', '{ vllm = "0.99.0"'),
        ("profiles/cpu.toml", 'models = ["twin-tied", "twin-untied"]', 'models = ["twin-tied"]'),
        ("thresholds.toml", "greedy_failed = 0.5", "greedy_failed = 0.25"),
    ):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
    recording.spec.cache_clear()
    monkeypatch.setattr(recording, "DEFAULT_SPEC", folder)
    yield
    recording.spec.cache_clear()


def cells(profile: str) -> dict[str, str]:
    table = recording.table_of(profile, recording.observations(profile))
    return {cell.id: cell.verdict for cell in table.cells}


@pytest.mark.parametrize("profile", ["cpu", "times", "bounds"])
def test_a_change_of_the_matrix_changes_no_recording(
    profile: str, request: pytest.FixtureRequest
) -> None:
    before = cells(profile)
    request.getfixturevalue("changed_spec")
    assert cells(profile) == before


@pytest.mark.usefixtures("changed_spec")
def test_a_recording_is_held_to_todays_thresholds() -> None:
    assert recording.spec("cpu").spec.thresholds["greedy_failed"] == 0.25
