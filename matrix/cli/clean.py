"""``matrix clean``: a store's share of the disk is taken back, never its evidence.

What was observed stays, with its records, locks and the models' own answers, so the report stays
what it is. Files that are needed again are made again, by the run that needs them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from typing import Annotated

import msgspec
import typer

from matrix.cli.options import Spec, StoreFolder, fail
from matrix.environments.uv import uv_settings
from matrix.plan.cells import make_plan
from matrix.plan.predictions import GB, MB
from matrix.run.context import Settings
from matrix.spec.loading import LoadedSpec, load
from matrix.store.store import Store

BLOCK = 512
"""Bytes of a block, as ``st_blocks`` counts them."""


class Share(msgspec.Struct, frozen=True):
    """Folders of a store that can be removed together."""

    what: str
    option: str
    folders: list[Path]


def clean(
    spec: Spec = None,
    store: StoreFolder = None,
    environments: Annotated[
        bool, typer.Option("--environments", help="Environments that no profile names any more.")
    ] = False,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Checkpoints and models; they are made again.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="All environments, checkpoints, models, compiled files.")
    ] = False,
) -> None:
    """Say what of the store can be removed and what that frees; remove what the options name.

    What was observed is never removed, and a run with nothing new makes nothing of it again.
    """
    settings = Settings.of(spec=spec, store=store)
    loaded, opened = load(settings.spec), Store(settings.store)
    if not opened.root.is_dir():
        fail(f"{opened.root}: there is no store here. Name it by --store or MATRIX_STORE")
    wanted = (environments, checkpoints, everything)
    if not any(wanted):
        for line in _offers(shares(opened, loaded), os.environ):
            typer.echo(line)
        return
    try:
        taken = opened.take()
    except BlockingIOError:
        fail(f"a run uses {opened.root}. Wait for its end, or stop it; it goes on where it was")
    with taken:
        opened.sweep()
        for share, is_wanted in zip(shares(opened, loaded), wanted, strict=True):
            if is_wanted:
                typer.echo(f"{share.what}: {_amount(freed(share.folders))} freed")
                remove(opened, share.folders)


def shares(store: Store, loaded: LoadedSpec) -> tuple[Share, Share, Share]:
    """Return what can be removed of a store: by environment, by checkpoint, all."""
    named = {
        name for profile in loaded.spec.profiles for name in make_plan(loaded, profile).environments
    }
    built = _folders(store.root, "environments/*")
    unused = [folder for folder in built if folder.name not in named]
    made = _folders(store.root, "models/*/model", "checkpoints/*/checkpoint")
    rest = _folders(store.root, "bytecode/*", "wheels/*")
    return (
        Share(f"{len(unused)} environments that no profile names", "--environments", unused),
        Share(f"{len(made)} checkpoints and models", "--checkpoints", made),
        Share(
            f"all {len(built)} environments, their compiled files, checkpoints and models",
            "--all",
            [*built, *made, *rest],
        ),
    )


def _folders(root: Path, *patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in root.glob(pattern) if path.is_dir())


def remove(store: Store, folders: Iterable[Path]) -> None:
    """Remove folders, each of them at once as far as anybody sees: one half of a checkpoint would
    be loaded as if it were whole."""
    with store.work("clean") as work:
        for number, folder in enumerate(folders):
            if folder.exists():  # it may have gone with another share
                folder.replace(work / str(number))


def freed(folders: Iterable[Path]) -> int:
    """Return the bytes of the disk that are free once folders are removed.

    A file that has other names elsewhere, as in uv's cache, stays where it is.
    """
    names: dict[tuple[int, int], int] = {}
    total = 0
    for stat in _stats(folders):
        file = (stat.st_dev, stat.st_ino)
        names[file] = names.get(file, 0) + 1
        if S_ISDIR(stat.st_mode) or names[file] == stat.st_nlink:
            total += stat.st_blocks * BLOCK
    return total


def size(folder: Path) -> int:
    """Return the bytes of the disk that a folder takes, a file with several names counted once."""
    files = {(stat.st_dev, stat.st_ino): stat.st_blocks * BLOCK for stat in _stats([folder])}
    return sum(files.values())


def _stats(folders: Iterable[Path]) -> Iterator[os.stat_result]:
    """Yield what the system says of folders and of all below them; links are not followed."""
    for folder in folders:
        if folder.exists():
            yield folder.lstat()
        for parent, inner, files in os.walk(folder):
            for name in (*inner, *files):
                with suppress(FileNotFoundError):  # a run that goes on removes what it unpacked
                    yield os.lstat(f"{parent}/{name}")  # a Path for each of a million is slow


def _offers(offered: Iterable[Share], host: Mapping[str, str]) -> Iterator[str]:
    for share in offered:
        yield f"{share.option:15} {_amount(freed(share.folders)):>9}  {share.what}"
    cache = Path(uv_settings(host, installing=True)["UV_CACHE_DIR"])
    yield f"{'':15} {_amount(size(cache)):>9}  uv's own cache, {cache}, is not the store's:"
    yield f"{'':26} `uv cache prune` removes what it needs no more, `uv cache clean` all"
    yield "Nothing was removed: say what by an option. What was observed stays in any case."


def _amount(number: int) -> str:
    return f"{number / GB:,.1f} GB" if number >= GB else f"{number / MB:,.1f} MB"
