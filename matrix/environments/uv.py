"""What uv is told: which of the host's settings it is given, and the files that it reads.

What uv may see where it is shut in, because packages' code may run below it, is in ``caches``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from matrix.index.settings import PYPI, index_settings
from matrix.machine.sandbox import Isolation, Sandbox
from matrix.spec.source_builds import build_variables
from matrix.spec.tables import Environment
from matrix.store.identity import digest

INDEX = frozenset({"UV_DEFAULT_INDEX", "UV_INDEX_URL"})
"""Variables by which uv is told its index."""
_FOR_UV = (
    "LANG", "LC_ALL", "PATH", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY",
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
)  # fmt: skip
_FOR_LOCKING = (
    "UV_CACHE_DIR", "UV_CONCURRENT_DOWNLOADS", "UV_DEFAULT_INDEX", "UV_HTTP_RETRIES",
    "UV_HTTP_TIMEOUT", "UV_INDEX_URL", "UV_NATIVE_TLS", "UV_PYTHON_DOWNLOADS",
    "UV_PYTHON_INSTALL_DIR", "UV_SYSTEM_CERTS",
)  # fmt: skip
_FOR_INSTALLING = (
    "UV_CONCURRENT_BUILDS", "UV_CONCURRENT_INSTALLS", "UV_FIND_LINKS", "UV_LINK_MODE",
    "UV_OFFLINE", "UV_TORCH_BACKEND",
)  # fmt: skip
_BACKENDS = (
    "flit-core", "hatchling", "maturin", "meson-python", "pdm-backend", "poetry-core",
    "scikit-build-core", "setuptools", "uv-build", "wheel",
)  # fmt: skip
"""What builds source archives. Where there is a cut-off, uv is told that none of it exists."""


def uv_settings(host: Mapping[str, str], *, installing: bool) -> dict[str, str]:
    """Return the host's settings that uv may see, an allow-list: packages' build scripts see them.

    Folders of wheels and torch backends are for installing only: a lock is made against the index
    alone. ``PIP_FIND_LINKS`` serves where ``UV_FIND_LINKS`` is unset, since uv does not read it.
    """
    names = (*_FOR_UV, *_FOR_LOCKING, *(_FOR_INSTALLING if installing else ()))
    environ = {name: host[name] for name in names if name in host}
    if installing and (places := _find_links(host)):
        environ["UV_FIND_LINKS"] = ",".join(places)
    data = Path(host.get("XDG_DATA_HOME") or Path(host.get("HOME", "/")) / ".local" / "share")
    if not INDEX & environ.keys() and (index := index_settings(host).default) != PYPI:
        environ["UV_DEFAULT_INDEX"] = index  # pip's, which uv does not read
    environ.setdefault("UV_CACHE_DIR", _cache_directory(host))
    environ.setdefault("UV_PYTHON_INSTALL_DIR", str(data / "uv" / "python"))
    return environ


def link_mode(environ: Mapping[str, str], sandbox: Sandbox) -> str:
    """Return how uv brings files from its cache into environments.

    Without a sandbox nothing keeps a package from writing to its own files, so they are copies and
    no hard links to the cache that other environments share. Where the file system has reflinks, a
    copy is one; elsewhere each environment takes its size, 1.9 GB with a torch for CPUs. uv's
    ``clone`` is no help: without reflinks it makes hard links.
    """
    is_open = sandbox.isolation is Isolation.NONE
    return environ.get("UV_LINK_MODE") or ("copy" if is_open else "hardlink")


def _find_links(host: Mapping[str, str]) -> list[str]:
    """Return folders (made absolute, since uv runs elsewhere) and addresses of wheels."""
    links = host.get("UV_FIND_LINKS") or ",".join(host.get("PIP_FIND_LINKS", "").split())
    places = [place for place in links.split(",") if place]
    return [str(Path(place).resolve()) if Path(place).is_dir() else place for place in places]


def uv_environ(host: Mapping[str, str], home: Path, *, installing: bool) -> dict[str, str]:
    """Return uv's environment: its settings and a private home, as build scripts run in it."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    private = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "NO_COLOR": "1"}
    return uv_settings(host, installing=installing) | private


def _cache_directory(host: Mapping[str, str]) -> str:
    base = host.get("XDG_CACHE_HOME") or str(Path(host.get("HOME", "/")) / ".cache")
    return str(Path(base) / "uv")


def install_source(host: Mapping[str, str]) -> str:
    """Return a digest of where builds of the same version may come from (it names no path)."""
    wheels: list[str] = []
    for place in _find_links(host):
        folder = Path(place)
        wheels += sorted(f.name for f in folder.glob("*.whl")) if folder.is_dir() else [place]
    return digest([wheels, host.get("UV_TORCH_BACKEND", "")])


def write_inputs(environment: Environment, work: Path) -> list[str]:
    """Write what uv reads into a folder; return the options that name the files."""
    (work / "requirements.in").write_text("\n".join(environment.requirements) + "\n")
    options: list[str] = ["--config-file", "uv.toml"]
    settings = {
        package: [json.dumps(item) for item in items]  # JSON's strings are TOML's as well
        for package, items in environment.build_requirements.items()
    }
    lines = [f'"{package}" = [{", ".join(items)}]' for package, items in settings.items()]
    lines = ["[extra-build-dependencies]", *lines, *build_variables(environment.build_environ)]
    for table in environment.metadata:
        lines += [
            "[[dependency-metadata]]",
            f"name = {json.dumps(table.package)}",
            f"version = {json.dumps(table.version)}",
            f"requires-dist = {json.dumps(table.requires_dist)}",
        ]
        if table.requires_python:
            lines.append(f"requires-python = {json.dumps(table.requires_python)}")
    (work / "uv.toml").write_text("\n".join(lines) + "\n")
    lists = {"constraint": environment.constraints, "override": environment.overrides}
    for kind, items in lists.items():
        if items:
            (work / f"{kind}.txt").write_text("\n".join(items) + "\n")
            options += [f"--{kind}", f"{kind}.txt"]
    return options


def write_index(
    environ: dict[str, str], work: Path, host: Mapping[str, str], more: str = ""
) -> dict[str, str]:
    """Tell uv its index and how long answers hold; return the environment that uv then gets.

    Many indexes say nothing of that, and uv would fetch and build each source archive anew for
    each environment. ``more`` is for the index's pages, which thousands of resolutions ask for.
    """
    table = [
        "[[index]]",
        f"url = {json.dumps(index_settings(host).default)}",
        "default = true",
        f'cache-control = {{ {more}files = "max-age=31536000, immutable" }}',
    ]
    settings = work / "uv.toml"
    settings.write_text("\n".join([*table, settings.read_text()]))
    # A setting of the environment would take the place of the whole table.
    return {name: value for name, value in environ.items() if name not in INDEX}


def write_dates(environment: Environment, settings: Path) -> None:
    """Tell uv the cut-off, and to build nothing.

    To build a source archive runs a stranger's code and takes minutes; uv's own ``no-build`` would
    pass such releases over in silence, those with metadata in the spec as well.
    """
    own = {
        package: "false" if until == "none" else json.dumps(until)
        for package, until in environment.cutoffs.items()
    }
    dates = ", ".join(f"{json.dumps(package)} = {until}" for package, until in own.items())
    head = [
        f"exclude-newer = {json.dumps(environment.cutoff)}",
        f"exclude-newer-package = {{ {dates} }}",
        f"build-constraint-dependencies = {json.dumps([f'{name}<0' for name in _BACKENDS])}",
    ]
    settings.write_text("\n".join([*head, settings.read_text()]))
