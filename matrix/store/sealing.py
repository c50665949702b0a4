"""Files that carry the digest of what is in them, so that a single changed byte is noticed. Pure.

A JSON object gets it as its first member, a text as a comment in its first line: both stay what
they are for whoever reads them with another tool. It tells damage and what was put there by hand;
it is no signature, and whoever may write to a store can make one.
"""

from __future__ import annotations

import hashlib

from matrix.untrusted.reading import UnreadableError

_OBJECT = b'{"sha256":"', b'",'
_TEXT = b"# sha256: ", b"\n"
_DIGITS = 64


def seal(data: bytes) -> bytes:
    """Return the bytes of a JSON object with its digest as a member ``sha256`` before the others.

    The object has members, and its bytes begin with ``{``.
    """
    return _sealed(data, *_OBJECT) + data[1:]


def unseal(data: bytes) -> bytes:
    """Return the bytes that were sealed; raise :class:`UnreadableError` where they have changed."""
    rest = _unsealed(data, *_OBJECT)
    return _checked(data, b"{" + rest, _OBJECT[0])


def seal_text(data: bytes) -> bytes:
    """Return a text with its digest in a comment before it."""
    return _sealed(data, *_TEXT) + data


def unseal_text(data: bytes) -> bytes:
    """Return the text that was sealed; raise :class:`UnreadableError` where it has changed."""
    return _checked(data, _unsealed(data, *_TEXT), _TEXT[0])


def _sealed(data: bytes, before: bytes, after: bytes) -> bytes:
    return before + hashlib.sha256(data).hexdigest().encode() + after


def _unsealed(data: bytes, before: bytes, after: bytes) -> bytes:
    end = len(before) + _DIGITS
    if not data.startswith(before) or data[end : end + len(after)] != after:
        raise UnreadableError("has no digest: an earlier version wrote it, or it was damaged")
    return data[end + len(after) :]


def _checked(data: bytes, content: bytes, before: bytes) -> bytes:
    if hashlib.sha256(content).hexdigest().encode() != data[len(before) : len(before) + _DIGITS]:
        raise UnreadableError("is not what was written: its digest is another")
    return content
