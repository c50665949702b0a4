"""Answers of servers that are not trusted: bounded in bytes, in seconds and in redirects.

A server may be down, never finish, send a byte a minute or gigabytes. Each answer is read as it
comes and given up at its limits; what waits for a name or for headers longer than that is left
behind on a thread that ends with the process (:func:`in_parallel`).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import msgspec
import requests
import urllib3

from matrix.machine.threads import Item, Result, side_by_side
from matrix.untrusted.reading import UnreadableError, read_file

MEGABYTE = 1_000_000
CONNECT_SECONDS = 10.0
REDIRECTS = 5
AT_ONCE = 8
"""Threads that fetch; an index has no reason to slow down so few."""
_PIECE = 65536


class FetchError(Exception):
    """There is no answer that can be used. The text says why, in a few words, and no address."""


class NotFoundError(FetchError):
    """The server says that there is no such thing."""


class Limits(msgspec.Struct, frozen=True):
    """What one answer may take."""

    seconds: float = 60.0
    megabytes: float = 64.0


class Fetched(msgspec.Struct, frozen=True):
    """One whole answer, or the part of it that was asked for."""

    address: str
    """Where it came from in the end; it may hold a password."""
    content_type: str
    body: bytes
    total: int | None = None
    """Bytes of the whole file, where a part was asked for and the server says so."""
    date: str = ""
    """What time the server says it is, as HTTP writes it."""


class _Session(requests.Session):
    """Follows no redirect: requests reads the body of each to its end, even where none is wanted.

    It does so wherever it sees a redirect's target; so it is shown none.
    """

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002
        """Return that there is none."""
        return None

    def onward(self, answer: requests.Response) -> str | None:
        """Return where a redirect leads, ``None`` where the answer is none.

        The user and password of the address go along to the same server, and to no other.
        """
        try:
            target = super().get_redirect_target(answer)
            if target is None:
                return None
            address = urljoin(answer.url, target)
            before, parts = urlsplit(answer.url), urlsplit(address)
            user = before.netloc.rpartition("@")[0]
            strip = self.should_strip_auth(answer.url, address)  # type: ignore[no-untyped-call]
            if user and not strip and "@" not in parts.netloc:
                return parts._replace(netloc=f"{user}@{parts.netloc}").geturl()
        except ValueError:
            raise FetchError("sends on to an address that cannot be read") from None
        return address


class Fetcher:
    """Asks servers; several threads may use one."""

    def __init__(self, certificates: str = "", limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._session = _Session()
        self._session.headers["User-Agent"] = "quantization-compatibility-matrix"
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, adapter)
        if certificates:
            self._session.verify = certificates

    def page(self, address: str, accept: str) -> Fetched:
        """Return a page of an index that the user named: it may be a folder of this machine.

        Raises :class:`FetchError`.
        """
        if address.startswith("file:"):
            return self._from_disk(address)
        return self.get(address, accept=accept)

    def get(self, address: str, part: str = "", accept: str = "*/*", origin: str = "") -> Fetched:
        """Return what is at an address, or a part of it (``0-99``, ``-100``: the last 100 bytes).

        Raises :class:`FetchError`. A server that would send the whole where a part was asked for is
        not listened to. One that sends its headers bit by bit holds the caller up without an end:
        :func:`in_parallel` bounds that, also for one address alone. ``origin`` is the page that
        names the address, if any does: one of the internet leads to nothing of this network.
        """
        headers = {"Accept": accept, "Accept-Encoding": "gzip"}
        if part:
            headers |= {"Range": f"bytes={part}", "Accept-Encoding": "identity"}
        until = time.monotonic() + self.limits.seconds
        timeout = (CONNECT_SECONDS, self.limits.seconds)
        try:
            for _ in range(1 + REDIRECTS):
                _check_outward(origin or address, address)
                with self._session.get(
                    address, headers=headers, stream=True, timeout=timeout
                ) as response:
                    onward = self._session.onward(response)
                    if onward is None:
                        return self._whole(response, part, until)
                if time.monotonic() > until:
                    raise FetchError(f"sent no whole answer within {self.limits.seconds:g} s")
                origin, address = address, onward
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise FetchError(_in_words(error)) from None
        raise FetchError(f"sends from one address to the next, more than {REDIRECTS} times")

    def _whole(self, response: requests.Response, part: str, until: float) -> Fetched:
        _check_status(response.status_code, part)
        return Fetched(
            address=response.url,
            content_type=response.headers.get("Content-Type", ""),
            body=self._body(response.raw, until),
            total=_total(response.headers.get("Content-Range", "")),
            date=response.headers.get("Date", ""),
        )

    def _body(self, raw: urllib3.HTTPResponse, until: float) -> bytes:
        most = int(self.limits.megabytes * MEGABYTE)
        body = bytearray()
        while piece := raw.read1(_PIECE, decode_content=True):
            body += piece
            if len(body) > most:
                raise FetchError(f"sends more than {self.limits.megabytes:g} MB")
            if time.monotonic() > until:
                raise FetchError(f"sent no whole answer within {self.limits.seconds:g} s")
        return bytes(body)

    def _from_disk(self, address: str) -> Fetched:
        """Return a page of an index in a local folder, as pip reads it."""
        try:
            place = Path(unquote(urlsplit(address).path), "index.html").resolve()
            body = read_file(place, int(self.limits.megabytes * MEGABYTE))
        except FileNotFoundError:
            raise NotFoundError("has no such file") from None
        except UnreadableError as error:
            raise FetchError(str(error)) from None
        except (OSError, ValueError, RuntimeError):  # the last of links in a circle
            raise FetchError("cannot be read") from None
        return Fetched(address, "text/html", body)


def _check_outward(before: str, address: str) -> None:
    """Raise :class:`FetchError` where a server of the internet sends on to this network.

    A server of this network may: the user named it.
    """
    try:
        hosts = urlsplit(before).hostname or "", urlsplit(address).hostname or ""
    except ValueError:
        return  # no address at all, which asking it tells
    if hosts[0] != hosts[1] and _is_public(hosts[0]) and not _is_public(hosts[1]):
        raise FetchError("sends on to an address of this machine or its network")


@lru_cache(maxsize=1000)
def _is_public(host: str) -> bool:
    """Whether none of a host's addresses is this machine's, or of a network of its own.

    A name that nobody here knows counts as public: only a proxy may know it.
    """
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return True
    return all(_is_global(str(info[4][0]).partition("%")[0]) for info in infos)


def _is_global(text: str) -> bool:
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        return (address.ipv4_mapped or address).is_global
    return address.is_global


def _check_status(status: int, part: str) -> None:
    if status in (404, 410):
        raise NotFoundError(f"answered with status {status}")
    if status in (401, 403):
        raise FetchError(f"lets nobody in without user and password (status {status})")
    if status != (206 if part else 200):
        raise FetchError(f"answered with status {status}")


def _total(content_range: str) -> int | None:
    """Return the size of the whole of ``bytes 0-99/1234``."""
    total = content_range.rpartition("/")[2]
    return int(total) if total.isascii() and total.isdecimal() and len(total) < 16 else None


_WORDS: tuple[tuple[type[Exception], str], ...] = (
    (requests.exceptions.ProxyError, "cannot be reached through the proxy that is set"),
    (requests.exceptions.SSLError, "shows a certificate that is not trusted here"),
    (requests.Timeout, "does not answer in time"),
    (urllib3.exceptions.TimeoutError, "does not answer in time"),
    (requests.exceptions.InvalidSchema, "has no address that begins with https:// or http://"),
    (requests.exceptions.MissingSchema, "has no address that begins with https:// or http://"),
    (requests.exceptions.InvalidURL, "has no valid address"),
    (urllib3.exceptions.DecodeError, "sends what cannot be unpacked"),
    (requests.ConnectionError, "cannot be reached (no such host, or it hangs up)"),
    (requests.RequestException, "breaks off in the middle of its answer"),
    (urllib3.exceptions.HTTPError, "breaks off in the middle of its answer"),
)
"""From the special to the general."""


def _in_words(error: Exception) -> str:
    """Return why a request failed. Exceptions quote addresses and servers; this quotes neither."""
    words = next((words for kind, words in _WORDS if isinstance(error, kind)), "")
    if number := _system_error(error):
        return f"cannot be reached ({os.strerror(number).lower()})"
    return words or "cannot be asked: a file of certificates that the settings name is missing"


def _system_error(error: BaseException | None) -> int:
    """Return the number of the system's error beneath requests' and urllib3's, 0 for none."""
    for _ in range(8):
        if error is None:
            return 0
        if isinstance(error, OSError) and error.errno and error.errno > 0:
            return error.errno
        inner = getattr(error, "reason", None) or next(
            (inner for inner in error.args if isinstance(inner, BaseException)), None
        )
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__
    return 0


def in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], seconds: float
) -> dict[Item, Result | FetchError]:
    """Return what ``work`` gives, or the :class:`FetchError` it raises, for each item.

    What is not there after so many seconds is a :class:`FetchError` too. Other exceptions pass.
    """
    late = FetchError(f"no whole answer came within {seconds:g} s")
    answers: dict[Item, Result | FetchError] = dict.fromkeys(items, late)
    with closing(side_by_side(work, list(answers), AT_ONCE, seconds)) as ended:
        for item, future in ended:
            try:
                answers[item] = future.result()
            except FetchError as error:
                answers[item] = error
    return answers
