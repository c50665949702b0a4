"""What it means: observations to verdicts, cells to a table, cells to advice."""
