"""A package that cannot be imported."""


def import_package(options):
    """Import what is not there."""
    import there_is_no_such_package  # noqa: F401
