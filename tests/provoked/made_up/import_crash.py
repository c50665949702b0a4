"""A package whose import kills the process."""

import ctypes
from typing import Any


def import_package(_options: dict[str, Any]) -> None:
    """Read address zero."""
    ctypes.string_at(0)
