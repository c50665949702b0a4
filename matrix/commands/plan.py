"""``python -m matrix plan``: what a profile would do."""

from __future__ import annotations

import msgspec
import typer

from matrix.commands.options import Format, FormatOption, Profile, Spec
from matrix.context import Context, Settings


def plan(
    spec: Spec = None,
    profile: Profile = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show environments and cells; build nothing."""
    found = Context(Settings.of(spec=spec, profile=profile)).plan
    if output is Format.JSON:
        document = {
            "schema": 1,
            "profile": found.profile,
            "environments": [
                {"name": e.name, "python": e.python, "requirements": e.requirements,
                 "departures": e.departures}
                for e in found.environments.values()
            ],
            "cells": [
                {"id": c.id, "model": c.checkpoint.model.name, "scheme": c.checkpoint.scheme_name,
                 "quantizer": c.checkpoint.quantizer.name, "engine": c.engine.name,
                 "parts": c.parts, "excluded": c.exclusion.reason if c.exclusion else None}
                for c in found.cells
            ],
        }  # fmt: skip
        typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        return
    typer.echo(f"Profile {found.profile}: {found.title}\n")
    typer.echo(f"{len(found.environments)} environments")
    for environment in found.environments.values():
        typer.echo(f"  {environment.name:46} {', '.join(environment.requirements)}")
    typer.echo(f"\n{len(found.cells)} cells (model/scheme/quantizer/engine)")
    for cell in found.cells:
        excluded = f"  not run: {cell.exclusion.reason}" if cell.exclusion else ""
        typer.echo(f"  {cell.id}{excluded}")
