"""Compiled bytecode, shared between environments that hold the same release of a package.

Compiling what an import reads takes longer than the import itself. The first environment's
``.pyc`` files are kept as hard links under a digest of the package's own file list; the next
environment gets links to them. Python uses one only where source time and size agree, and a file
that uv linked from its cache has the same in every environment. What a package leaves there runs in
the next environment of the same store, so no two stores share it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from matrix.store.identity import digest


def share(environment: Path, pool: Path) -> None:
    """Keep the bytecode of a virtualenv's packages for other environments."""
    for site, name, sources in _packages(environment):
        for source in sources:
            compiled = _compiled(source)
            _link(site / compiled, pool / name / compiled)


def adopt(environment: Path, pool: Path) -> None:
    """Give a fresh virtualenv the bytecode that others have made of the same packages."""
    for site, name, _ in _packages(environment):
        kept = pool / name
        for folder, _, files in os.walk(kept):
            for file in files:
                compiled = Path(folder, file)
                _link(compiled, site / compiled.relative_to(kept))


def _packages(environment: Path) -> Iterator[tuple[Path, str, list[str]]]:
    """Give site-packages, the digest of its sources, and the sources of each package."""
    for record in environment.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
        own = sorted(line for line in lines if ".py," in line and _stays_below(line))
        if own:
            yield record.parent.parent, digest(own), [line.partition(",")[0] for line in own]


def _stays_below(name: str) -> bool:
    return not name.startswith("/") and ".." not in name


def _compiled(source: str) -> Path:
    path = Path(source)
    return path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        try:
            os.link(source, target)
        except FileNotFoundError:
            if source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(source, target)
