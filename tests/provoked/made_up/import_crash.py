"""A package whose import kills the process."""

import ctypes


def import_package(options):
    """Read address zero."""
    ctypes.string_at(0)
