"""Entry point of ``python -m matrix``, which does what the command ``matrix`` does."""

import sys


def start() -> None:
    """Run the command, and import nothing from the working directory: it may be a checkpoint.

    ``-m`` puts that first on the path, and a ``numpy.py`` in it would be imported. The modules of
    this package are found where the package is. Against a folder named ``matrix`` in it nothing can
    be done here, as that is what ``-m`` runs then: the command ``matrix`` looks for nothing there.
    """
    if not sys.flags.safe_path:
        del sys.path[0]
    from matrix.cli.app import main

    main()


start()
