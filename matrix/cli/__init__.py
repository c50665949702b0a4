"""The commands of ``python -m matrix``, a file each."""
