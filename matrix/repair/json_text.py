"""JSON files changed in some fields, every other byte of them as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from matrix.checkpoint.inspection import CheckpointError

FieldPath = tuple[str, ...]
"""The names that lead to a field, from the outermost object inwards."""
Changes = Mapping[FieldPath, bytes | None]
"""Path of a field -> its new value as JSON, or ``None`` to take it out."""
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


class _Member(NamedTuple):
    """A field of an object, by where it lies in the text."""

    name: str
    begin: int
    """Behind the brace or comma before it."""
    key: int
    value: int
    end: int
    """Of its value."""
    stop: int
    """Where the comma behind it stands; of the last field, the end of its value."""


def with_fields(data: bytes, changes: Changes, file: str) -> bytes:
    """Return the bytes of a JSON object in which fields have other values.

    A field that is not there is added behind the others of its object, which must be there.

    Raises:
        CheckpointError: It is no JSON object, or what is changed is not in it, or in it twice.
    """
    try:
        text = data.decode()
        start = _skip(text, 0)
        changed, end = _object(text, start, changes, file)
    except (ValueError, IndexError, RecursionError) as error:
        raise CheckpointError(str(error), file, "Save the model again.") from None
    return (text[:start] + changed + text[end:]).encode()


def _object(text: str, start: int, changes: Changes, file: str) -> tuple[str, int]:
    """Return the changed text of the object that begins there, and where the old one ends."""
    members, tail, end = _members(text, start, file)
    wanted: dict[str, dict[FieldPath, bytes | None]] = {}
    for path, value in changes.items():
        wanted.setdefault(path[0], {})[path[1:]] = value
    parts = []
    for member in members:
        of_member = wanted.pop(member.name, None)
        if of_member is None:
            parts.append(text[member.begin : member.stop])
        elif () not in of_member:
            inner, _ = _object(text, member.value, of_member, file)
            parts.append(text[member.begin : member.value] + inner + text[member.end : member.stop])
        elif (new := of_member[()]) is not None:
            before, behind = text[member.begin : member.value], text[member.end : member.stop]
            parts.append(before + new.decode() + behind)
    lead = text[members[0].begin : members[0].key] if members else ""
    for name, of_member in wanted.items():
        if () not in of_member:
            raise CheckpointError(f"has no object {name[:200]!r}", file, "Save the model again.")
        if (new := of_member[()]) is not None:
            parts.append(f"{lead}{json.dumps(name)}: {new.decode()}")
    return "{" + ",".join(parts) + tail + "}", end


def _members(text: str, start: int, file: str) -> tuple[list[_Member], str, int]:
    """Return the fields of the object that begins there, what stands behind them, and its end."""
    if text[start] != "{":
        raise CheckpointError("is no object where one is meant", file, "Save the model again.")
    members: list[_Member] = []
    begin = start + 1
    key = _skip(text, begin)
    if text[key] == "}":
        return members, text[begin:key], key + 1
    while True:
        name, behind = _DECODER.raw_decode(text, key)
        value = _skip(text, _skip(text, behind) + 1)
        _, end = _DECODER.raw_decode(text, value)
        stop = _skip(text, end)
        is_last = text[stop] == "}"
        members.append(_Member(name, begin, key, value, end, end if is_last else stop))
        if is_last:
            break
        begin = stop + 1
        key = _skip(text, begin)
    names = [member.name for member in members]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CheckpointError(f"names {twice[:200]!r} twice", file, "Save the model again.")
    return members, text[end:stop], stop + 1


def _skip(text: str, position: int) -> int:
    """Return where the white space that begins there ends."""
    match = _SPACE.match(text, position)
    return match.end() if match else position
