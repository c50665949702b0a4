"""This machine: its cards and CPU, the processes on it, and who has which card."""
