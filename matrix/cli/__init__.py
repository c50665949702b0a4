"""The commands of ``matrix``, a file each."""
