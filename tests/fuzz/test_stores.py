"""Whatever becomes of the files of a store, all that looks at one goes on and a report is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzzing import SETTINGS, bounded
from tests.fuzz.mutations import damaged
from tests.unit import test_damaged_stores as stores
from tests.unit.test_damaged_stores import KINDS, folder, report_of

__all__ = ["folder"]
CALLS = 4_000_000
"""Of a sound store they are 1.3 million."""


@settings(SETTINGS, max_examples=SETTINGS.max_examples // 4)
@given(data=st.data())
def test_a_report_is_made_of_any_store(
    data: st.DataObject, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    store = stores.damaged(
        folder, tmp_path_factory.mktemp("a"), kind, lambda content: data.draw(damaged(content))
    )
    with bounded(CALLS):
        assert "matrix.json" in report_of(folder, store)
