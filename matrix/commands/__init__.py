"""The commands of ``python -m matrix``, a file each; the older ones stand in :mod:`matrix.cli`."""
