"""Asking an index which releases there are, through the user's own settings.

An answer is kept in the store with its date::

    .matrix/index/<package>.json            the last answer of an index
    .matrix/index/requires/<digest>.json    what one wheel requires, by its release and identity;
                                            wheels never change

An index that is down, slow or lies gives one clear line, and the answer that is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec
from packaging.utils import canonicalize_name
from pypi_simple import ACCEPT_JSON_PREFERRED

from matrix.index.fetching import Fetched, Fetcher, FetchError, Limits, NotFoundError, in_parallel
from matrix.index.pages import Page, read_page
from matrix.index.settings import IndexSettings, shown
from matrix.index.wheel_metadata import Wheel, declared, requirements_of
from matrix.spec.releases import Release, dropped, parsed
from matrix.store.identity import digest
from matrix.store.store import write_atomically
from matrix.untrusted.reading import UnreadableError, decode

WATCHED = frozenset({"accelerate", "numpy", "optimum", "peft", "tokenizers", "torch"})
"""What a release declares of these is kept, besides what it declares of the tracked packages."""


class IndexLimits(msgspec.Struct, frozen=True):
    """What an index may take."""

    page: Limits = Limits(seconds=60, megabytes=64)
    pages_seconds: float = 90
    """All pages together, which are asked for side by side."""
    wheel: Limits = Limits(seconds=30, megabytes=2)
    wheels_seconds: float = 420
    """What all wheels require; what is not read by then is read another time."""


class Heard(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a package's releases, from an index or from what is kept of it."""

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
    answer: Heard


class Index:
    """The user's indexes, and what is kept of their answers below a folder.

    ``known``: package -> the releases that are known of it; an answer that drops too many of them
    is not believed, be it an index's or one that was kept.
    """

    def __init__(
        self,
        settings: IndexSettings,
        folder: Path,
        limits: IndexLimits | None = None,
        known: Mapping[str, list[Release]] | None = None,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._limits = limits or IndexLimits()
        self._known = known or {}
        self._pages = Fetcher(settings.certificates, self._limits.page)
        self._files = Fetcher(settings.certificates, self._limits.wheel)

    def ask(self, packages: Mapping[str, str], *, offline: bool = False) -> dict[str, Heard]:
        """Return an answer for each package; never raises for what an index does.

        ``packages``: name -> the oldest release of which it matters what it declares (empty: of
        none). Offline, all answers are what is kept.
        """
        names: list[str] = [canonicalize_name(name) for name in packages]
        if why := self._silence(offline):
            return {name: self._kept(name, f"{name}: not asked ({why})") for name in names}
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        pages = in_parallel(self._page, names, self._limits.pages_seconds)
        since = dict(zip(names, packages.values(), strict=True))
        declares = self._declared(pages, since)
        answers: dict[str, Heard] = {}
        for name in names:
            found = pages[name]
            if isinstance(found, FetchError):
                answers[name] = self._kept(name, self._trouble(name, found))
                continue
            index, page = found
            releases = [
                msgspec.structs.replace(one, declares=declares.get((name, one.version)))
                for one in page.releases
            ]
            answers[name] = Heard(name, now, index, releases)
            self._keep(answers[name])
        return answers

    def _silence(self, offline: bool) -> str:
        """Return why nobody is to be asked; empty where somebody is."""
        if offline or self._settings.offline:
            return "offline"
        if self._settings.no_index:
            return "pip's no-index is set; to ask one all the same, name it in UV_DEFAULT_INDEX"
        return ""

    def _page(self, package: str) -> tuple[str, Page]:
        """Return (index, page) of the first index that has a package."""
        for address in self._settings.indexes:
            try:
                answer = self._pages.get(f"{address.rstrip('/')}/{package}/", ACCEPT_JSON_PREFERRED)
                page = read_page(package, answer)
                if gone := dropped(self._known.get(package, []), page.releases):
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

    def _trouble(self, package: str, error: FetchError) -> str:
        return (
            f"{package}: {error}. Ask again later, or name another index (UV_DEFAULT_INDEX or "
            f"PIP_INDEX_URL)"
        )

    def _declared(
        self, pages: Mapping[str, tuple[str, Page] | FetchError], since: Mapping[str, str]
    ) -> dict[tuple[str, str], list[str]]:
        """Return (package, version) -> what it declares, of all that can be read in time."""
        wanted: dict[tuple[str, str], Wheel] = {}
        for package, found in pages.items():
            oldest = parsed(since[package])
            if isinstance(found, FetchError) or oldest is None:
                continue
            for text, wheel in found[1].wheels.items():
                version = parsed(text)
                if version is not None and version >= oldest:
                    wanted[package, text] = wheel

        def read(release: tuple[str, str]) -> list[str]:
            return self._requirements(wanted[release], *release)

        names = WATCHED | since.keys()
        found_all = in_parallel(read, wanted, self._limits.wheels_seconds)
        return {
            release: declared(found, names)
            for release, found in found_all.items()
            if not isinstance(found, FetchError)
        }

    def _requirements(self, wheel: Wheel, package: str, version: str) -> list[str]:
        file = self._folder / "requires" / f"{digest([package, version, wheel.identity])}.json"
        try:
            return decode(file.read_bytes(), list[str])
        except (OSError, UnreadableError):
            pass  # it was never read, or by a version that kept something else
        found = requirements_of(wheel, self._part, package, version)
        _write(file, msgspec.json.encode(found))
        return found

    def _part(self, address: str, part: str) -> Fetched:
        return self._files.get(address, part=part)

    def _kept(self, package: str, trouble: str) -> Heard:
        try:
            kept = decode((self._folder / f"{package}.json").read_bytes(), _Kept)
        except (OSError, UnreadableError):
            return Heard(package, "", trouble=trouble)
        # What another index answered says nothing of this one.
        of_these = kept.answer.index in {shown(address) for address in self._settings.indexes}
        if not of_these or dropped(self._known.get(package, []), kept.answer.releases):
            return Heard(package, "", trouble=trouble)
        return msgspec.structs.replace(kept.answer, trouble=trouble)

    def _keep(self, answer: Heard) -> None:
        data = msgspec.json.format(msgspec.json.encode(_Kept(1, answer)), indent=1)
        _write(self._folder / f"{answer.package}.json", data)


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, data)
