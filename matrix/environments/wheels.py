"""Wheels of releases that have none for here: built by uv, shut in, once for a store.

A build runs a stranger's code. It sees a cache of its own (``caches``), and what it leaves is one
file, which is copied and checked. Who installs it runs no package's code any more.
"""

from __future__ import annotations

import os
import shutil
import stat
import tomllib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
from filelock import FileLock
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from uv import find_uv_bin

from matrix.environments.caches import shut_in
from matrix.environments.uv import install_source, uv_environ, write_index, write_inputs
from matrix.machine.processes import run
from matrix.machine.sandbox import Sandbox
from matrix.pipeline.ends import End, classify_uv_end, is_disk_full
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.spec.tables import Environment, Limits, MetadataTable
from matrix.store.identity import digest
from matrix.untrusted.reading import read_file

MAX_WHEEL_BYTES = 4_000_000_000
MAX_FILES = 200_000
"""Of a build's cache, among which its wheel is looked for."""
MAX_LOCK_BYTES = 20_000_000


class Source(NamedTuple):
    """A release that is built here."""

    package: str
    version: str
    archive: str
    """Digest of its source archive; its address where the index tells none."""


class WheelError(Exception):
    """What a build left is no wheel of what was to be built."""


class Builder(NamedTuple):
    """Builds the releases of a lock that have no wheel for here.

    Args:
        environment: What it is for, its build requirements as they are locked.
        python: The interpreter of the virtualenv.
        work: An empty folder; what is unfinished.
        wheels: The store's folder of wheels.
    """

    environment: Environment
    python: Path
    work: Path
    wheels: Path
    host: Mapping[str, str]
    limits: Limits
    sandbox: Sandbox

    def build_all(self, pins: Mapping[str, str]) -> tuple[list[Path], Conclusion, End, str]:
        """Return the folders of the wheels that pinned releases lack, how it went and uv's words.

        It ends with the first that cannot be built.
        """
        sources, conclusion, end, log = self._sources(pins)
        folders: list[Path] = []
        for source in sources:
            if conclusion.outcome is not Outcome.PASSED:
                break
            folder = self.wheels / self._name(source)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):  # another environment may want the same
                if not any(folder.glob("*.whl")):
                    conclusion, latest, log = self._build(source, folder)
                    end = both(end, latest)
            folders.append(folder)
        return folders, conclusion, end, log

    def _sources(self, pins: Mapping[str, str]) -> tuple[list[Source], Conclusion, End, str]:
        """Return the pinned releases that have only an archive, how it went and uv's words.

        uv names the archives, and is kept from asking any of them what it requires.
        """
        work = self._folder("sources")
        given = self.environment.metadata
        stated = {(canonicalize_name(table.package), table.version) for table in given}
        plain = [
            MetadataTable(package=package, version=version, requires_dist=[], source="")
            for package, version in pins.items()
            if (package, version) not in stated
        ]
        alone = msgspec.structs.replace(
            self.environment,
            requirements=[f"{package}=={version}" for package, version in pins.items()],
            constraints=[], overrides=[], metadata=[*given, *plain],
        )  # fmt: skip
        end, log = self._run(
            work, alone, "compile", "requirements.in", "--no-deps", "--format", "pylock.toml",
            "--output-file", "pylock.toml", "--quiet", builds=False,
        )  # fmt: skip
        conclusion = classify_uv_end(end, log, Reason.BUILD_FAILED)
        if conclusion.outcome is not Outcome.PASSED:
            return [], conclusion, end, log
        text = read_file(work / "pylock.toml", MAX_LOCK_BYTES).decode()
        return list(_without_wheels(tomllib.loads(text))), conclusion, end, log

    def _build(self, source: Source, folder: Path) -> tuple[Conclusion, End, str]:
        work = self._folder(f"build-{source.package}")
        end, log = self._run(
            work, self.environment, "install", f"{source.package}=={source.version}", "--no-deps",
            "--target", "target", builds=True,
        )  # fmt: skip
        conclusion = classify_uv_end(end, log, Reason.BUILD_FAILED)
        if conclusion.outcome is Outcome.PASSED:
            try:
                take_wheel(work / "cache", source, folder)
            except WheelError as error:
                words = f"{source.package} {source.version}: {error}"
                conclusion = Conclusion(Outcome.FAILED, Reason.BUILD_FAILED, words)
            except OSError as error:
                if not is_disk_full(error):
                    raise
                conclusion = Conclusion(Outcome.INFRA, Reason.NO_SPACE, str(error))
        return conclusion, end, log

    def _run(
        self, work: Path, environment: Environment, command: str, *arguments: str, builds: bool
    ) -> tuple[End, str]:
        environ = uv_environ(self.host, work, installing=True)
        files = write_inputs(environment, work)
        environ = write_index(environ, work, self.host)
        environ, view = shut_in(environ, work, self.python, self.sandbox, builds=builds)
        argv = [find_uv_bin(), "pip", command, *files, "--python", str(self.python), *arguments]
        view = view._replace(read_only=(*view.read_only, self.python.parents[1]))
        return run(argv, environ, work, self.limits, self.sandbox, view)

    def _folder(self, name: str) -> Path:
        folder = self.work / name
        folder.mkdir()
        return folder

    def _name(self, source: Source) -> str:
        """Return the name of a wheel by what it is built of."""
        needs = self.environment.build_requirements.get(source.package, [])
        variables = self.environment.build_environ.get(source.package, {})
        python = self.environment.python
        return digest([source, needs, variables, python, install_source(self.host)])


def _without_wheels(document: dict[str, Any]) -> Iterator[Source]:
    """Give the releases of a ``pylock.toml`` (PEP 751) that have nothing but an archive."""
    for package in document.get("packages", ()):
        archive = package.get("sdist")
        if archive and not package.get("wheels"):
            name = archive.get("hashes", {}).get("sha256") or archive.get("url", "")
            yield Source(package["name"], package["version"], name)


def both(first: End, then: End) -> End:
    """Return how two commands ended, one after the other: as the second, in the time of both."""
    return msgspec.structs.replace(
        then,
        seconds=first.seconds + then.seconds,
        peak_bytes=max(first.peak_bytes, then.peak_bytes),
    )


def take_wheel(cache: Path, source: Source, folder: Path) -> None:
    """Copy the wheel that a build left in uv's cache to a folder, which then holds that alone.

    Raises :class:`WheelError` where there is none that can be taken, ``OSError`` where it cannot
    be written.
    """
    wheel = next(
        (file for file in islice(_files(cache), MAX_FILES) if _is_of(file.name, source)), None
    )
    if wheel is None:
        raise WheelError("its build left no wheel of that name and version")
    with TemporaryDirectory(prefix=".wheel-", dir=folder.parent) as unfinished:
        _copy(wheel, Path(unfinished, wheel.name))
        folder.mkdir(exist_ok=True)
        Path(unfinished, wheel.name).replace(folder / wheel.name)


def _files(cache: Path) -> Iterator[Path]:
    """Give the files among which uv keeps wheels that it built; no link is followed.

    What an archive holds itself is none of them.
    """
    places = [] if cache.is_symlink() else cache.glob("sdists-v*")
    for place in (place for place in places if not place.is_symlink()):
        for parent, folders, names in os.walk(place):
            folders[:] = [folder for folder in folders if folder != "src"]
            yield from (Path(parent, name) for name in names)


def _is_of(name: str, source: Source) -> bool:
    try:
        package, version, _, _ = parse_wheel_filename(name)
    except (InvalidWheelFilename, InvalidVersion):
        return False
    return package == source.package and _public(version) == _public(Version(source.version))


def _public(version: Version) -> Version:
    """Return a version without what a build adds to it, such as ``+cpu``."""
    return Version(version.public)


def _copy(wheel: Path, target: Path) -> None:
    """Copy what is a plain file, and not too large."""
    try:
        handle = os.open(wheel, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise WheelError(f"its wheel cannot be read: {error.strerror}") from None
    with os.fdopen(handle, "rb") as file, target.open("wb") as copy:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise WheelError("its wheel is no file")
        if status.st_size > MAX_WHEEL_BYTES:
            raise WheelError(f"its wheel has more than {MAX_WHEEL_BYTES} bytes")
        shutil.copyfileobj(file, copy)
