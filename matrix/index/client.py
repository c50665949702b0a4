"""Asking an index which releases there are, through the user's own settings.

An answer is kept in the store with its date::

    .matrix/index/<package>.json            the last answer of an index
    .matrix/index/requires/<digest>.json    what one file requires, by its release and identity;
                                            files of an index never change

An index that is down, slow or lies gives one clear line, and the answer that is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
from packaging.utils import canonicalize_name
from pypi_simple import ACCEPT_JSON_PREFERRED

from matrix.index.fetching import Fetcher, FetchError, Limits, NotFoundError, in_parallel
from matrix.index.news import dropped
from matrix.index.pages import Page, read_page
from matrix.index.settings import IndexSettings, shown
from matrix.index.source_metadata import Sdist, source_metadata
from matrix.index.wheel_metadata import Wheel, declared, file_within, wheel_requirements
from matrix.spec.snapshot import Release, SourceMetadata
from matrix.spec.versions import parsed
from matrix.store.identity import digest
from matrix.store.sealing import unseal
from matrix.store.store import write_json
from matrix.untrusted.reading import UnreadableError, decode, read_file

WATCHED = frozenset({"accelerate", "numpy", "optimum", "peft", "tokenizers", "torch"})
"""What a release declares of these is kept, besides what it declares of the tracked packages."""
KEPT_BYTES = 50_000_000
"""Of an answer that lies in the store."""
CLOCKS_APART = timedelta(days=1)
"""What an answer may be old that a proxy kept."""

Requires = list[str] | SourceMetadata
"""What a wheel or a source archive requires."""


class IndexLimits(msgspec.Struct, frozen=True):
    """What an index may take."""

    page: Limits = Limits(seconds=60, megabytes=10)
    pages_seconds: float = 90
    """All pages together, which are asked for side by side."""
    file: Limits = Limits(seconds=30, megabytes=2)
    """One part of a wheel or of a source archive."""
    files_seconds: float = 420
    """What all files require; what is not read by then is read another time."""


class IndexAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The releases of a package, from an index or from the last answer that is kept of it."""

    package: str
    asked: str
    """When the index gave it, ISO, UTC, in seconds; empty where it never did."""
    index: str = ""
    """Its address, without a password."""
    releases: list[Release] = []
    trouble: str = ""
    """Why it is not the index's own answer of now, in one line; empty where it is."""


class _Kept(msgspec.Struct, frozen=True):
    schema: Literal[1]
    answer: IndexAnswer


class _Required(msgspec.Struct, frozen=True):
    of: list[str]
    """Package, version and the file's identity, whose digest is the name that this is kept by."""
    requires: Requires


class Index:
    """The user's indexes, and what is kept of their answers below a folder.

    ``earlier``: package -> the releases that it had; an answer that drops too many of them
    is not believed, be it an index's or one that was kept.
    """

    def __init__(
        self,
        settings: IndexSettings,
        folder: Path,
        limits: IndexLimits | None = None,
        earlier: Mapping[str, list[Release]] | None = None,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._limits = limits or IndexLimits()
        self._earlier = earlier or {}
        self._pages = Fetcher(settings.certificates, self._limits.page)
        self._files = Fetcher(settings.certificates, self._limits.file)

    def ask(self, packages: Mapping[str, str], *, offline: bool = False) -> dict[str, IndexAnswer]:
        """Return an answer for each package; never raises for what an index does.

        ``packages``: name -> the oldest release of which it matters what it declares (empty: of
        none). Offline, all answers are what is kept.
        """
        names: list[str] = [canonicalize_name(name) for name in packages]
        if why := _silence(self._settings, offline=offline):
            return {name: self._kept(name, f"{name}: not asked ({why})") for name in names}
        now = _now()
        pages = in_parallel(self._page, names, self._limits.pages_seconds)
        requires = self._requires(pages, dict(zip(names, packages.values(), strict=True)))
        answers: dict[str, IndexAnswer] = {}
        for name, answer in pages.items():
            if isinstance(answer, FetchError):
                remedy = "name another index (UV_DEFAULT_INDEX or PIP_INDEX_URL)"
                answers[name] = self._kept(name, f"{name}: {answer}. Ask again later, or {remedy}")
                continue
            index, page = answer
            releases = [
                _with(release, requires.get((name, release.version)), WATCHED | pages.keys())
                for release in page.releases
            ]
            answers[name] = IndexAnswer(name, now, index, releases)
            write_json(self._folder / f"{name}.json", _Kept(1, answers[name]))
        return answers

    def files_within(
        self, package: str, name: str, is_wanted: Callable[[Release], bool]
    ) -> dict[str, bytes | FetchError]:
        """Return version -> what a file in its wheel holds, of those releases that are wanted.

        Raises :class:`FetchError` where nobody is to be asked, or no index has the package.
        """
        if why := _silence(self._settings, offline=False):
            raise FetchError(f"is not asked ({why})")
        page = in_parallel(self._page, [package], self._limits.pages_seconds)[package]
        if isinstance(page, FetchError):
            raise page
        releases, files = page[1].releases, page[1].files
        wheels = {
            release.version: wheel
            for release in releases
            if is_wanted(release) and isinstance(wheel := files.get(release.version), Wheel)
        }
        get = partial(self._files.get, origin=page[1].address)
        return in_parallel(
            lambda version: file_within(wheels[version], get, name),
            wheels,
            self._limits.files_seconds,
        )

    def _page(self, package: str) -> tuple[str, Page]:
        """Return (index, page) of the first index that has a package."""
        for address in self._settings.indexes:
            try:
                answer = self._pages.page(
                    f"{address.rstrip('/')}/{package}/", ACCEPT_JSON_PREFERRED
                )
                _check_clock(answer.date)
                page = read_page(package, answer)
                if gone := dropped(self._earlier.get(package, []), page.releases):
                    raise FetchError(
                        f"lacks {len(gone)} of the releases that are known ({gone[0]} to "
                        f"{gone[-1]}); so many at once are believed with --take-gone only"
                    )
                return shown(address), page
            except NotFoundError:
                continue
            except FetchError as error:
                # The next one is not asked: it may hold another package of that name.
                raise FetchError(f"the index {shown(address)} {error}") from None
        places = ", ".join(shown(address) for address in self._settings.indexes)
        raise FetchError(f"no index has it ({places})")

    def _requires(
        self, pages: Mapping[str, tuple[str, Page] | FetchError], since: Mapping[str, str]
    ) -> dict[tuple[str, str], Requires | FetchError]:
        """Return (package, version) -> what its file requires, of all that matter."""
        wanted: dict[tuple[str, str], Wheel | Sdist] = {}
        origins: dict[str, str] = {}
        for package, answer in pages.items():
            oldest = parsed(since[package])
            if isinstance(answer, FetchError) or oldest is None:
                continue
            origins[package] = answer[1].address
            for text, file in answer[1].files.items():
                version = parsed(text)
                if version is not None and version >= oldest:
                    wanted[package, text] = file
        return in_parallel(
            lambda release: self._requirements(wanted[release], origins[release[0]], *release),
            wanted,
            self._limits.files_seconds,
        )

    def _requirements(
        self, file: Wheel | Sdist, origin: str, package: str, version: str
    ) -> Requires:
        of = [package, version, file.identity]
        place = self._folder / "requires" / f"{digest(of)}.json"
        try:
            kept = decode(unseal(read_file(place, KEPT_BYTES)), _Required)
            if kept.of == of and isinstance(kept.requires, list) == isinstance(file, Wheel):
                return kept.requires
        except (OSError, UnreadableError):
            pass  # it was never read, or by a version that kept something else
        get = partial(self._files.get, origin=origin)
        requires = (
            wheel_requirements(file, get, package, version)
            if isinstance(file, Wheel)
            else source_metadata(file, get, package, version)
        )
        write_json(place, _Required(of, requires))
        return requires

    def _kept(self, package: str, trouble: str) -> IndexAnswer:
        try:
            place = self._folder / f"{package}.json"
            kept = decode(unseal(read_file(place, KEPT_BYTES)), _Kept)
        except (OSError, UnreadableError):
            return IndexAnswer(package, "", trouble=trouble)
        if kept.answer.package != package or kept.answer.asked > _now():
            return IndexAnswer(package, "", trouble=trouble)
        # What another index answered says nothing of this one.
        of_these = kept.answer.index in {shown(address) for address in self._settings.indexes}
        if not of_these or dropped(self._earlier.get(package, []), kept.answer.releases):
            return IndexAnswer(package, "", trouble=trouble)
        return msgspec.structs.replace(kept.answer, trouble=trouble)


def _silence(settings: IndexSettings, *, offline: bool) -> str:
    """Return why no index is to be asked; empty where one is."""
    if offline or settings.offline:
        return "offline"
    if settings.no_index:
        return "pip's no-index is set; to ask one all the same, name it in UV_DEFAULT_INDEX"
    return ""


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _check_clock(date: str) -> None:
    """Raise :class:`FetchError` where a server and this machine are days apart.

    What is asked on a date yet to come would be taken for newer than all that is asked until then.
    """
    try:
        servers = parsedate_to_datetime(date).astimezone(UTC)
        off = abs(datetime.now(UTC) - servers) > CLOCKS_APART
    except (ValueError, OverflowError):  # a page of a local folder has none
        return
    if off:
        raise FetchError(
            f"says that it is {servers:%Y-%m-%d}, and this machine that it is {_now()[:10]}: set "
            "its clock"
        )


def _with(release: Release, requires: Requires | FetchError | None, names: Set[str]) -> Release:
    """Return a release with what its file requires, of a wheel only what is on these packages."""
    match requires:
        case SourceMetadata():
            return msgspec.structs.replace(release, source=requires)
        case list():
            return msgspec.structs.replace(release, declares=declared(requires, names))
        case _:
            return release
