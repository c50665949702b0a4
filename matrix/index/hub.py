"""Which commit of a repository on the Hub is meant, where the spec says ``first seen``.

The first connected run asks the Hub where ``main`` is and records it in the model's lock; from then
on that commit is meant, wherever ``main`` goes. A recorded commit that the Hub has no more is an
error and never quietly another one, since what was observed of it would be told of another model.

A lock stands in ``locks/models/`` beside the spec, where it was committed, or else in the store's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from filelock import FileLock

from matrix.store.sealing import unseal
from matrix.store.store import Store, write_json
from matrix.untrusted.reading import UnreadableError, decode

FIRST_SEEN = "first seen"
HUB = "https://huggingface.co"
SECONDS, MEGABYTES = 30.0, 8.0
"""What one answer of the Hub may take; it names every file of a repository."""

Commit = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{40}$")]
COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = "[A-Za-z0-9][A-Za-z0-9_.-]{0,95}"
REPOSITORY = re.compile(f"{_PART}/{_PART}")
"""Each part begins with a letter or digit: ``..`` in an address would lead elsewhere."""


class RevisionError(Exception):
    """There is no commit to hold to. The text names the repository and what to do."""


class HubUnreachableError(RevisionError):
    """The Hub could not be asked: another time it may."""


class Pin(msgspec.Struct, frozen=True):
    """A model's lock: the commit that was at ``main`` when it was first seen."""

    schema: Literal[1]
    repository: str
    revision: Commit
    seen: str
    """ISO time, UTC."""


class _Answer(msgspec.Struct, frozen=True):
    sha: Commit


class Revisions:
    """The commits that are held to.

    Args:
        committed: The folder of locks beside the spec.
        own: The folder of the store's, where new ones are recorded.
        host: The host's variables; ``HF_ENDPOINT`` names another Hub, as it does for others.
        now: The clock.
    """

    def __init__(
        self, committed: Path, own: Path, host: Mapping[str, str], now: Callable[[], datetime]
    ) -> None:
        self._folders = (committed, own)
        self._endpoint = (host.get("HF_ENDPOINT") or HUB).rstrip("/")
        self._certificates = host.get("REQUESTS_CA_BUNDLE") or host.get("SSL_CERT_FILE") or ""
        self._now = now
        self._checked: set[tuple[str, str]] = set()

    def held(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a recipe or options with the recorded commit for ``first seen``.

        Reads files alone. What has no record yet, or names no repository, comes back as it is; so
        does one whose lock cannot be read, of which :meth:`settle` says what is wrong.
        """
        try:
            return self._held(options)
        except RevisionError:
            return dict(options)

    def _held(self, options: Mapping[str, Any]) -> dict[str, Any]:
        repository = options.get("repository")
        if options.get("revision") != FIRST_SEEN or not isinstance(repository, str):
            return dict(options)
        pin = self._pin(repository)
        return {**options, "revision": pin.revision} if pin else dict(options)

    def settle(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what :meth:`held` does, having asked the Hub; nothing says ``first seen`` then.

        To be called before something is downloaded. Raises :class:`RevisionError` where the commit
        is gone, :class:`HubUnreachableError` where that could not be found out.
        """
        held = self._held(options)
        repository, revision = held.get("repository"), held.get("revision")
        if not isinstance(repository, str) or not isinstance(revision, str):
            return held
        if revision == FIRST_SEEN:
            self._record(repository, self._commit(repository, "main"))
            return self._held(options)
        if COMMIT.fullmatch(revision):  # of another, the adapter says that it is none
            self._check(repository, revision)
        return held

    def _check(self, repository: str, revision: str) -> None:
        """Raise :class:`RevisionError`, with what is at ``main`` now, where a commit is gone.

        What was found once is not asked for again.
        """
        from matrix.index.fetching import NotFoundError

        if (repository, revision) in self._checked:
            return
        try:
            self._commit(repository, revision)
        except NotFoundError:
            now = f"its main is {self._commit(repository, 'main')} now"
            raise RevisionError(
                f"{repository}: the commit {revision} is gone from the Hub; {now}. Give that as "
                f"its revision in the spec, or remove {file_of(repository)} from locks/models to "
                "have it seen anew: it is another model, and all that is made of it is made again"
            ) from None
        self._checked.add((repository, revision))

    def _commit(self, repository: str, revision: str) -> str:
        """Return the commit that a revision is on the Hub; ``NotFoundError`` for a missing commit.

        Raises :class:`RevisionError` where there is no ``main``.
        """
        # Not at the top: who only reads locks, as the noxfile does, does without requests.
        from matrix.index.fetching import Fetcher, FetchError, Limits, NotFoundError, in_parallel

        if not REPOSITORY.fullmatch(repository):
            raise RevisionError(f"{repository!r} is no repository: write it as owner/name")
        address = f"{self._endpoint}/api/models/{quote(repository)}/revision/{revision}"
        fetcher = Fetcher(self._certificates, Limits(SECONDS, MEGABYTES))
        # On a thread of its own: the Hub may be slow with its name or its headers, too.
        answers = in_parallel(
            lambda place: fetcher.get(place, accept="application/json"), [address], SECONDS
        )
        fetched = answers[address]
        try:
            if isinstance(fetched, FetchError):
                raise fetched
            commit = decode(fetched.body, _Answer).sha
        except NotFoundError:
            if revision != "main":
                raise
            raise RevisionError(
                f"{repository}: the Hub has no such repository (any more); check the spec"
            ) from None
        except FetchError as error:
            raise HubUnreachableError(f"{repository}: the Hub {error}; run again later") from None
        except UnreadableError:
            raise HubUnreachableError(
                f"{repository}: the Hub's answer names no commit; is HF_ENDPOINT a Hub?"
            ) from None
        if revision not in ("main", commit):
            raise RevisionError(f"{repository}: asked for {revision}, the Hub names {commit}")
        return commit

    def _pin(self, repository: str) -> Pin | None:
        for folder in self._folders:
            file = folder / file_of(repository)
            try:
                data = file.read_bytes()  # beside the spec, people may have written it
                pin = decode(unseal(data) if folder == self._folders[1] else data, Pin)
            except FileNotFoundError:
                continue
            except (OSError, UnreadableError) as error:
                raise RevisionError(
                    f"locks/models/{file.name} cannot be read ({error}): restore it, put it "
                    "beside the spec where it is right, or remove it to have the model seen anew"
                ) from None
            if pin.repository != repository:
                raise RevisionError(f"locks/models/{file.name} is of {pin.repository}: remove it")
            return pin
        return None

    def _record(self, repository: str, revision: str) -> None:
        """Keep a commit, unless another process saw one first."""
        file = self._folders[1] / file_of(repository)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():
                seen = self._now().isoformat(timespec="seconds")
                pin = Pin(schema=1, repository=repository, revision=revision, seen=seen)
                write_json(file, pin)


def revisions_of(
    folder: Path,
    store: Store,
    host: Mapping[str, str],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Revisions:
    """Return the commits that the folder of a spec and a store hold to."""
    own = store.root / "locks" / "models"
    return Revisions(folder / "locks" / "models", own, host, now)


def file_of(repository: str) -> str:
    """Return the name of a repository's lock: as the Hub's own caches write it."""
    return f"{repository.replace('/', '--')}.json"
