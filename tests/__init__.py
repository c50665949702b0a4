"""The project's own tests, and the suite that sessions of environments run (``compat``)."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
"""The checkout."""
