"""The project's own tests, and the suite that sessions of environments run (``compat``)."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
"""The checkout."""

LIKE_ANY_USER = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
"""How root starts a command that may do no more than any user."""
