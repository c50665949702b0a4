"""Whatever becomes of the files of a store, a report is made of it and each damage is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matrix.run.verifying import damages
from matrix.store.sealing import seal, unseal
from tests.fuzz.fuzzing import SETTINGS, bounded
from tests.fuzz.mutations import as_json, changed, damaged
from tests.unit import test_damaged_stores as stores
from tests.unit.test_damaged_stores import KINDS, folder, report_of

__all__ = ["folder"]
CALLS = 6_000_000
"""Of a sound store they are 1.3 million."""
JSON = [kind for kind in KINDS if kind.startswith("observations/")]


@st.composite
def resealed(draw: st.DrawFn, content: bytes) -> bytes:
    """Give an observation that says something else under its key, with a digest of that."""
    observation = json.loads(unseal(content))
    for name in draw(st.lists(st.sampled_from(["facts", "facts", *observation]), min_size=1)):
        observation[name] = draw(changed(observation[name]))
    return seal(as_json(observation))


@settings(SETTINGS, max_examples=SETTINGS.max_examples // 4)
@given(data=st.data())
def test_a_report_is_made_of_any_store(
    data: st.DataObject, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    ways = [resealed, damaged] if kind in JSON else [damaged]
    way = data.draw(st.sampled_from(ways))
    store = stores.damaged(
        folder, tmp_path_factory.mktemp("a"), kind, lambda content: data.draw(way(content))
    )
    with bounded(CALLS):
        assert "matrix.json" in report_of(folder, store)
        named = {damage.path for damage in damages(store)}
    if way is damaged and kind != "records":  # of which a kill may leave half
        for file in stores.files_of(store / kind):
            whole = folder / "store" / file.relative_to(store)
            is_whole = file.read_bytes() == whole.read_bytes()
            assert is_whole or {file, file.parent} & named  # of a model, its folder is
