"""What a checkpoint's files say of themselves, and whether that is so; for ``matrix inspect``."""
