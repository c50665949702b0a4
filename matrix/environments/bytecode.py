"""Compiled bytecode that environments share: made by us, of which files only is taken from them.

Compiling what an import reads takes longer than the import itself, and packages may write to their
environment's cache of bytecode (``PYTHONPYCACHEPREFIX``). So a name there says that a file was
imported, and what is shared is compiled anew, by the interpreter without any package, from the
installed source. It lies under the digest of that source which its package's RECORD has; of the
standard library, under path, size and time. A fresh environment gets copies. Python compares each
with its source's text before it uses it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from matrix.environments import compiler
from matrix.environments.interpreters import interpreter_folders
from matrix.machine.processes import run
from matrix.machine.sandbox import Sandbox, View
from matrix.spec.tables import Limits
from matrix.store.identity import digest
from matrix.untrusted.reading import UnreadableError, read_file

OWN = Path("home", "pycache")
"""Where an environment's own cache lies in it: below the home of what runs there."""
MAX_RECORD_BYTES = 20_000_000
_RECORDED = re.compile(r"([^,\"\n]+\.py),sha256=([A-Za-z0-9_-]{43}),")


class Source(NamedTuple):
    """A file that can be imported, and the name of its bytecode among those that are shared."""

    file: Path
    name: str


def share(environment: Path, pool: Path, work: Path, limits: Limits, sandbox: Sandbox) -> None:
    """Compile for others what was imported in a virtualenv, where nobody has done so.

    Args:
        environment: The virtualenv.
        pool: The store's folder of shared bytecode.
        work: An empty folder.
        limits: Of the compiler.
        sandbox: In which it runs: it parses what strangers wrote.
    """
    missing = [
        (source.file, pool / tag / f"{source.name}.pyc")
        for tag, source in _sources(environment)
        if os.path.exists(_own(environment, source.file, tag))  # noqa: PTH110 - never raises
    ]
    missing = [(file, shared) for file, shared in missing if not shared.exists()]
    if not missing:
        return
    made = [work / f"{number}.pyc" for number in range(len(missing))]
    pairs = (f"{file}\t{target}\n" for (file, _), target in zip(missing, made, strict=True))
    (work / "pairs").write_text("".join(pairs), encoding="utf-8")
    python = (environment / "bin" / "python").resolve()
    read_only = (Path(compiler.__file__), environment, *interpreter_folders(python))
    argv = [str(python), "-I", "-S", compiler.__file__, str(work / "pairs")]
    run(argv, {}, work, limits, sandbox, View(read_only=read_only, writable=(work,)))
    for (_, shared), compiled in zip(missing, made, strict=True):
        shared.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # it could not be compiled
            compiled.replace(shared)


def adopt(environment: Path, pool: Path) -> None:
    """Give a fresh virtualenv copies of what is shared of its files."""
    shared = {path.relative_to(pool).as_posix() for path in pool.glob("*/*.pyc")}
    for tag, source in _sources(environment):
        name = f"{tag}/{source.name}.pyc"
        if name in shared:
            own = _own(environment, source.file, tag)
            own.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # `matrix clean` took it
                shutil.copyfile(pool / name, own)


def _own(environment: Path, source: Path, tag: str) -> Path:
    """Return where Python looks for a source's bytecode in an environment's own cache."""
    below = source.parent.relative_to(source.anchor)
    return environment / OWN / below / f"{source.stem}.{tag}.pyc"


def _sources(environment: Path) -> Iterator[tuple[str, Source]]:
    """Give the tag of an environment's Python with each file of its packages and its library."""
    for site in environment.glob("lib/python3.*/site-packages"):
        tag = f"cpython-{site.parent.name.removeprefix('python').replace('.', '')}"
        for record in site.glob("*.dist-info/RECORD"):
            for name, text_digest in _RECORDED.findall(_text(record)):
                if not (name.startswith("/") or ".." in name or "\t" in name):
                    yield tag, Source(site / name, text_digest)
        for installation in interpreter_folders(environment / "bin" / "python"):
            for file in _library(installation / "lib" / site.parent.name):
                status = file.stat()
                name = digest([str(file), status.st_size, status.st_mtime_ns])
                yield tag, Source(file, name)


def _text(record: Path) -> str:
    try:
        return read_file(record, MAX_RECORD_BYTES).decode("utf-8", "replace")
    except (OSError, UnreadableError):
        return ""


def _library(folder: Path) -> Iterator[Path]:
    yield from folder.glob("*.py")
    for inner in folder.iterdir():
        if inner.name not in ("site-packages", "dist-packages", "test"):
            yield from inner.rglob("*.py")
