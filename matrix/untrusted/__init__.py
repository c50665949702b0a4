"""What comes from outside: read within bounds, and shown as text and nothing else."""
