"""What of the machine the probes of a role may see, where they run in a sandbox."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from matrix.environments.interpreters import interpreter_folders
from matrix.environments.virtualenvs import python_of
from matrix.machine.devices import devices_of
from matrix.machine.hardware import Gpu
from matrix.machine.sandbox import View
from matrix.plan.cells import Role
from matrix.run.workspace import Workspace
from matrix.spec.loading import PACKAGE

_HOST_PATHS = ("LD_LIBRARY_PATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE")
"""Variables that children get, and whose files they then want to read."""


def view_of(
    workspace: Workspace, role: Role, environ: Mapping[str, str], gpus: Sequence[Gpu]
) -> View:
    """Return what a role's probes may see beside what is their own: all of it read-only.

    That is the environment with its interpreter, the models and checkpoints that were made, and
    what the spec names by an absolute path. ``environ`` are the variables that the spec gives.
    Who is to download gets the network.
    """
    store, environment = workspace.store, workspace.plan.environments[role.environment]
    folder = workspace.folder(environment)
    made = [store.path(kind, "x").parent for kind in ("models", "checkpoints")]
    host = [workspace.host[name] for name in _HOST_PATHS if name in workspace.host]
    recipes = [
        model.recipe
        for model in workspace.plan.models
        if (model.environment, model.adapter) == (role.environment, role.adapter)
    ]
    # Roles that are imported alike share a probe, so what any of them names is in its view.
    roles = {
        r.name: r for cell in workspace.plan.cells for r in (cell.checkpoint.quantizer, cell.engine)
    }
    options = [r.options for r in roles.values() if r.environment == role.environment]
    named = _named([*host, environ, role.options, *options, *recipes])
    return View(
        read_only=(folder, *interpreter_folders(python_of(folder)), *made, *named),
        devices=tuple(devices_of(gpus)) if gpus else (),
        network=environ.get("HF_HUB_OFFLINE") == "0",
    )


def view_of_our_own(work: Path, *read: Path) -> View:
    """Return what our own programs see that read what packages made, and write to ``work``."""
    python = [Path(sys.prefix), PACKAGE, *interpreter_folders(Path(sys.executable))]
    users = Path(site.getusersitepackages())
    return View(read_only=(*python, *([users] if users.is_dir() else []), *read), writable=(work,))


def _named(values: Iterable[object]) -> Iterator[Path]:
    """Give the files and folders that texts name by absolute paths, several with ``:`` between."""
    for value in values:
        if isinstance(value, Mapping):
            yield from _named(value.values())
        elif isinstance(value, str):
            places = (value, *value.split(os.pathsep))
            yield from (Path(p) for p in dict.fromkeys(places) if p != "/" and _is_there(p))


def _is_there(place: str) -> bool:
    return place.startswith("/") and os.path.exists(place)  # noqa: PTH110 - a text may be no path
