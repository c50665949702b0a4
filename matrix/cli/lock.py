"""``matrix lock``: the locks that lie beside a spec, made by uv."""

from __future__ import annotations

from typing import Annotated

import typer

from matrix.cli.options import Profile, Spec, StoreFolder, fail
from matrix.environments.locks import committed_name, read_lock
from matrix.run.building import make_lock
from matrix.run.context import Context, Settings
from matrix.run.workspace import Workspace
from matrix.store.store import write_atomically
from matrix.untrusted.text import visible

REFUSAL_CHARS = 600
"""Of what uv says of packages that do not go together: a sentence or three."""


def lock(
    spec: Spec = None,
    profile: Profile = None,
    store: StoreFolder = None,
    remake: Annotated[bool, typer.Option(help="Also where the inputs are the same.")] = False,
) -> None:
    """Make the locks beside the spec that are missing or whose inputs have changed.

    uv resolves each environment twice: with the spec's pins, and as it was released. A refusal is
    an answer, kept as a lock with uv's reasons.
    """
    context = Context(Settings.of(spec=spec, profile=profile, store=store))
    workspace = Workspace(context)
    folder = context.loaded.folder / "locks"
    (folder / "released").mkdir(parents=True, exist_ok=True)
    for name in context.plan.environments:
        for environment in context.loaded.resolutions(name):
            beside = committed_name(environment)
            if not beside:
                continue  # it is not for committing
            file = folder / beside
            if not remake and read_lock(file, environment) is not None:
                continue
            made, conclusion, end = make_lock(workspace, environment)
            if made is None:
                fail(f"{name}: no lock, {conclusion.reason}: {conclusion.message.strip()}")
            write_atomically(file, made.text.encode())
            state = f"resolved [{end.seconds:.1f} s]"
            if made.refusal:
                why = " ".join(made.refusal.split())
                state = f"refused [{end.seconds:.1f} s]: {visible(why, REFUSAL_CHARS)}"
            typer.echo(f"{name} ({environment.resolution}): {state}")
