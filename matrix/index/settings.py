"""Which indexes the user's settings name: uv's, or else pip's.

uv asks the indexes of ``UV_INDEX`` and ``UV_EXTRA_INDEX_URL`` before its default one and takes a
package from the first that has it (https://docs.astral.sh/uv/concepts/indexes/); so does this.
pip has no order; its ``index-url`` comes first here. Proxies, ``~/.netrc``, ``REQUESTS_CA_BUNDLE``
and ``CURL_CA_BUNDLE`` are left to requests, which reads them itself.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from configparser import Error as ConfigError
from configparser import RawConfigParser
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import msgspec

PYPI = "https://pypi.org/simple"
"""As uv writes it: by another address, its cache would not know what it has."""
_NAMED = re.compile(r"([A-Za-z0-9._-]+)=(.+)")
"""An index may be given to uv as ``name=address``."""
_ON = {"1", "true", "yes", "on", "t", "y"}


class IndexSettings(msgspec.Struct, frozen=True):
    """Where to ask, in order, and with which certificates."""

    indexes: list[str]
    """Addresses, possibly with a password in them: :func:`shown` is what may be printed."""
    certificates: str = ""
    """A file of certificates to trust; empty for the usual ones."""
    offline: bool = False
    no_index: bool = False
    """Whether pip's settings forbid every index, and uv's name none."""
    default: str = PYPI
    """The one of them that is asked for everything."""


def shown(address: str) -> str:
    """Return an address without user, password, query and fragment."""
    try:
        parts = urlsplit(address)
        # A password with a "/" or without "//" before it would be taken for something else.
        clear = "@" not in parts.path and (parts.port is None or parts.hostname)
    except ValueError:
        clear = False
    if not clear:
        return "(an address that cannot be read)"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def index_settings(host: Mapping[str, str] = os.environ) -> IndexSettings:
    """Return what the host's variables and pip's files say; PyPI where they say nothing."""
    pip = _pip_settings(host)
    default = host.get("UV_DEFAULT_INDEX") or host.get("UV_INDEX_URL", "")
    more = [*host.get("UV_INDEX", "").split(), *host.get("UV_EXTRA_INDEX_URL", "").split()]
    uvs = bool(default or more)
    if uvs:
        default = _address(default or PYPI, host)
        indexes = [*(_address(index, host) for index in more), default]
    else:
        default = next(iter(pip.get("index-url", "").split()), PYPI)
        indexes = [default, *pip.get("extra-index-url", "").split()]
    return IndexSettings(
        indexes=list(dict.fromkeys(indexes)),
        default=default,
        certificates=host.get("SSL_CERT_FILE") or pip.get("cert", ""),
        offline=host.get("UV_OFFLINE", "").lower() in _ON,
        no_index=not uvs and pip.get("no-index", "").lower() in _ON,
    )


def _address(index: str, host: Mapping[str, str]) -> str:
    """Return an index's address, with the user and password that uv's variables give its name."""
    named = _NAMED.fullmatch(index)
    if not named:
        return index
    name, address = named[1], named[2]
    variable = "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    user, password = host.get(f"{variable}_USERNAME", ""), host.get(f"{variable}_PASSWORD", "")
    scheme, separator, rest = address.partition("://")
    if not (user or password) or not separator:
        return address
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def _pip_settings(host: Mapping[str, str]) -> dict[str, str]:
    """Return pip's options that matter here; its variables win over its files."""
    options: dict[str, str] = {}
    for file in _pip_files(host):
        parser = RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (ConfigError, UnicodeDecodeError):
            continue  # pip itself will say so to whoever uses it
        for section in ("global", "install"):
            if parser.has_section(section):
                options |= {name.replace("_", "-"): text for name, text in parser.items(section)}
    for name in ("index-url", "extra-index-url", "no-index", "cert"):
        if value := host.get("PIP_" + name.replace("-", "_").upper()):
            options[name] = value
    return options


def _pip_files(host: Mapping[str, str]) -> Iterator[Path]:
    """Yield pip's files on Linux, the weakest first (https://pip.pypa.io/en/stable/topics/configuration/).

    ``PIP_CONFIG_FILE`` takes the place of the user's own file where it names one that exists.
    """
    own = host.get("PIP_CONFIG_FILE", "")
    if own == os.devnull:
        return
    for folder in host.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"):
        yield Path(folder, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    home = host.get("HOME")
    if home and not (own and Path(own).exists()):
        yield Path(home, ".pip", "pip.conf")
        yield Path(host.get("XDG_CONFIG_HOME") or Path(home, ".config"), "pip", "pip.conf")
    yield Path(sys.prefix, "pip.conf")
    if own:
        yield Path(own)
