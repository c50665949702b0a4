"""A run: what is still to be done, done in order, each step in a process of its own."""
