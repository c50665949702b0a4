"""A package that cannot be imported."""

from typing import Any


def import_package(_options: dict[str, Any]) -> None:
    """Import what is not there."""
    import there_is_no_such_package  # type: ignore[import-not-found]  # noqa: F401
