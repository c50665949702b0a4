"""What is to blame: which side of a cell, which release, which pins. Pure."""
