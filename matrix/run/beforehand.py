"""What a run will take, said before anything is downloaded, and whether the disk has room."""

from __future__ import annotations

import os
import shutil
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matrix.environments.uv import uv_settings
from matrix.plan.cells import Cell
from matrix.plan.predictions import GB, WHEELS, Cost, name_of_environment
from matrix.run.context import Context
from matrix.run.estimates import Estimate, existing
from matrix.run.verifying import damage_in_short
from matrix.spec.tables import SpecError


def beforehand(
    context: Context,
    cells: Iterable[Cell],
    expected: Estimate,
    *,
    at_once: int = 1,
    disk_gb: float | None = None,
    lack: str = "",
    host: Mapping[str, str] = os.environ,
) -> list[str]:
    """Return lines on what cells will take; none where nothing of them is left to do.

    Raises :class:`SpecError` where the disk is too small, but for a budget of disk: whoever gives
    one has looked.

    Args:
        context: The opened profile.
        cells: Those that are asked for.
        expected: What the profile costs here.
        at_once: How many environments are worked on side by side.
        disk_gb: A budget, in 10^9 bytes.
        lack: Why packages are not shut in, where they are not.
        host: The variables of uv and of the matrix.
    """
    to_do = [cell.id for cell in cells if cell.id in expected.unfinished]
    if not to_do:
        return []
    cost = expected.prediction.of_cells(to_do, expected.paid)
    cache = Path(uv_settings(host, installing=True)["UV_CACHE_DIR"])
    if disk_gb is None and not host.get("MATRIX_DISK"):
        for folder, needed in disk_needed(expected, to_do, context.settings.store, cache).items():
            free = shutil.disk_usage(existing(folder)).free
            if needed > free:
                raise SpecError(
                    folder, "disk",
                    f"{needed / GB:,.1f} GB are predicted to be needed and {free / GB:,.1f} GB "
                    "are free",
                    more_room(free, is_cache=folder == cache, is_linked=expected.linked),
                )  # fmt: skip
    return [
        f"profile {context.plan.profile}: {len(to_do):,} of {len(context.plan.cells):,} "
        "cells are to be done",
        f"predicted to take {_in_words(cost, at_once)}",
        f"what uv's cache has already, {cache}, is not downloaded again",
        "stop it whenever you like: the same command goes on where it was",
        *damage_in_short(context.store.root),
        *([f"packages run without a sandbox: {lack}"] if lack else []),
    ]


def is_asked_for(session: str, arguments: Sequence[str]) -> bool:
    """Whether nox, by its command line, runs a session that it runs by default."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-s", "-e", "--session", "--sessions", nargs="*", dest="sessions")
    for flag in ("-N", "-R", "-r", "-ts", "-v", "-x"):  # they may stand in front, as in -rs tests
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-l", "--list", "--list-sessions", action="store_true", dest="lists")
    parser.add_argument("-k", "--keywords", "-t", "--tags", "--usage", nargs="*", dest="others")
    given, _ = parser.parse_known_args(arguments)
    if given.lists or given.others:
        return False
    return given.sessions is None or session in given.sessions


def _in_words(cost: Cost, at_once: int) -> str:
    most = cost.seconds / 60
    minutes = f"{most:,.0f}" if at_once == 1 else f"{most / at_once:,.0f} to {most:,.0f}"
    return (
        f"{cost.download / GB:,.1f} GB of downloads, {cost.disk / GB:,.1f} GB of disk, "
        f"{minutes} minutes"
    )


def disk_needed(
    expected: Estimate, to_do: Iterable[str], store: Path, cache: Path
) -> dict[Path, int]:
    """Return the bytes that are still to be written, by the folder in whose file system.

    One folder, the store, where the cache lies in the same.
    """
    prediction = expected.prediction
    costs = {name: prediction.costs[name] for name in prediction.names(to_do, expected.paid)}
    everything = sum(cost.disk for cost in costs.values())
    if expected.linked:
        return {store: everything}
    wheels = sum(cost.disk for name, cost in costs.items() if name.startswith(WHEELS))
    own = sum(
        cost.download * expected.constants.packages_unpacked
        for name, cost in costs.items()
        if name.startswith(name_of_environment(""))
    )
    if existing(store).stat().st_dev == existing(cache).stat().st_dev:
        return {store: everything + int(own)}
    return {store: everything - wheels, cache: wheels + int(own)}


def more_room(free: int, *, is_cache: bool, is_linked: bool) -> str:
    """Return what to do where a disk with so many free bytes is too small.

    ``is_linked`` is whether environments share the files of uv's cache.
    """
    sharing = (
        ", or let environments share files (install bubblewrap, or set UV_LINK_MODE=hardlink, and "
        "have uv's cache on the disk of the store)"
    )
    elsewhere = "UV_CACHE_DIR" if is_cache else "MATRIX_STORE, with UV_CACHE_DIR beside it"
    fewer = "MATRIX_PROFILE=smoke is a first look"
    if free >= GB:  # a budget of less buys hardly anything
        fewer += f", MATRIX_DISK={free // GB} those cells for which so many GB are enough"
    return (
        "Free some (`matrix clean` says what can be taken back here), or name another "
        f"folder ({elsewhere}){'' if is_linked else sharing}, or do less ({fewer})"
    )
