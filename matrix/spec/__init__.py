"""What is asked for: the tables of a spec, its axes and releases, read and checked."""
