"""The known repairs of a checkpoint, made in a copy of it."""
