"""Fields of JSON files changed, and nothing else of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix.checkpoint.files import MAX_CONFIG_BYTES
from matrix.checkpoint.inspection import CheckpointError
from matrix.repair.json_text import FieldPath, with_fields
from matrix.repair.names import RepairName
from matrix.repair.subject import Subject
from matrix.repair.table import changes_of
from tests.unit import real_checkpoints as real

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(1e-06)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=3), VALUES, max_size=5)
STYLES = st.sampled_from(
    [
        {"indent": 2, "ensure_ascii": False},
        {"indent": 1},
        {"separators": (",", ":")},
        {"separators": (" ,\n", " : ")},
        {},
    ]
)


def paths(content: dict[str, Any], before: FieldPath = ()) -> list[FieldPath]:
    all_paths = []
    for name, value in content.items():
        all_paths.append((*before, name))
        if isinstance(value, dict):
            all_paths += paths(value, (*before, name))
    return all_paths


def change(content: dict[str, Any], path: FieldPath, new: bytes | None) -> None:
    for name in path[:-1]:
        content = content[name]
    if new is None:
        content.pop(path[-1], None)
    else:
        content[path[-1]] = json.loads(new)


@given(OBJECTS, STYLES, st.data())
def test_a_field_is_changed_as_if_it_was_written_so(
    content: dict[str, Any], style: dict[str, Any], data: st.DataObject
) -> None:
    text = "\n" + json.dumps(content, **style) + "\n"
    path = data.draw(st.sampled_from([*paths(content), ("new field",)]))
    new = data.draw(st.sampled_from([b'{"a":[1]}', b"null", None]))
    changed = with_fields(text.encode(), {path: new}, "config.json")
    change(content, path, new)
    assert json.loads(changed) == content
    assert list(json.loads(changed)) == list(content)


@given(OBJECTS, STYLES)
def test_without_a_change_every_byte_stays(content: dict[str, Any], style: dict[str, Any]) -> None:
    text = " " + json.dumps(content, **style) + "\n"
    assert with_fields(text.encode(), {}, "config.json") == text.encode()
    assert with_fields(text.encode(), {("not there",): None}, "config.json") == text.encode()


def test_all_but_the_changed_lines_stay_as_they_are() -> None:
    text = b'{\n  "eps": 1.0E-6,\n  "tied": true,\n  "more": {\n    "a": 1,\n    "b": 2\n  }\n}\n'
    changes = {("tied",): b"false", ("more", "b"): None, ("more", "c"): b"3", ("theta",): b"1e6"}
    assert with_fields(text, changes, "config.json") == (
        b'{\n  "eps": 1.0E-6,\n  "tied": false,\n  "more": {\n    "a": 1,\n    "c": 3\n  },\n'
        b'  "theta": 1e6\n}\n'
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "names 'a' twice"),
        (b"[1]", "is no object where one is meant"),
        (b'{"a": {"x": 1}, "b": 1', "config.json"),
        (b'{"a": "\xff"}', "config.json"),
        (b"", "config.json"),
    ],
)
def test_what_is_no_clear_object_is_refused(text: bytes, problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem):
        with_fields(text, {("a",): b"1"}, "config.json")


def test_a_field_of_an_object_that_is_not_there_is_refused() -> None:
    with pytest.raises(CheckpointError, match="has no object 'b'"):
        with_fields(b'{"a": 1}', {("b", "c"): b"1"}, "config.json")
    with pytest.raises(CheckpointError, match="is no object where one is meant"):
        with_fields(b'{"a": 1}', {("a", "c"): b"1"}, "config.json")


# What is read of a checkpoint.


def test_each_json_file_is_read_once_however_many_fields_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {f"group_{number}": {"weights": {"scale_dtype": None}} for number in range(30)}
    checkpoint = real.configured(
        real.GPTQ,
        tmp_path,
        lambda config: config["quantization_config"].update(config_groups=groups),
    )
    reads: list[str] = []
    read = Subject.read

    def count(subject: Subject, file: str) -> bytes:
        reads.append(file)
        return read(subject, file)

    monkeypatch.setattr(Subject, "read", count)
    changes = changes_of(Subject(checkpoint), [RepairName.CONFIG_FIELDS], {})
    assert len(changes) == len(groups)
    assert len(reads) == len(set(reads))


@pytest.mark.parametrize("file", ["config.json", "quantize_config.json"])
def test_a_config_is_not_read_that_is_too_large_for_one(file: str, tmp_path: Path) -> None:
    checkpoint = real.copied(real.AUTO_GPTQ, tmp_path)
    subject = Subject(checkpoint)
    with (checkpoint / file).open("a") as handle:
        handle.write(" " * MAX_CONFIG_BYTES)
    with pytest.raises(CheckpointError, match=f"{file}: is larger than {MAX_CONFIG_BYTES} bytes"):
        subject.document(file)
