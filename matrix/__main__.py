"""Entry point of ``python -m matrix``."""

from matrix.cli import main

main()
