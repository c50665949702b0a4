"""Locks and virtualenvs, made by the real uv of a package of a few files."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from matrix.environments import virtualenvs
from matrix.environments.locks import Lock, make_lock, read_lock
from matrix.machine.processes import run
from matrix.machine.sandbox import find_sandbox
from matrix.pipeline.ends import End
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.spec.tables import Environment, Limits
from matrix.store.identity import digest
from tests.processes import index_server

LIMITS = Limits(seconds=600, silence=600, memory_mb=2000, log_mb=4)
PYTHON = f"3.{sys.version_info.minor}"


def environment(
    *requirements: str,
    constraints: tuple[str, ...] = (),
    overrides: tuple[str, ...] = (),
    build_requirements: dict[str, list[str]] | None = None,
    build_environ: dict[str, dict[str, str]] | None = None,
) -> Environment:
    return Environment(
        name="small",
        python=PYTHON,
        requirements=list(requirements),
        constraints=list(constraints),
        overrides=list(overrides),
        build_requirements=build_requirements or {},
        build_environ=build_environ or {},
        environ={},
        departures=[],
    )


def folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


def locked(
    wanted: Environment, work: Path, host: Mapping[str, str]
) -> tuple[Lock | None, Conclusion, End]:
    return make_lock(wanted, work, host, LIMITS, find_sandbox())


# --------------------------------------------------------------------------------- locks, for real


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="module")
def wanted() -> Environment:
    build = ['setuptools ; python_version > "3"']
    return environment(
        "iniconfig", constraints=("iniconfig<2.1",), build_requirements={"iniconfig": build}
    )


@pytest.fixture(scope="module")
def lock(work: Path, wanted: Environment) -> Lock:
    made, conclusion, end = locked(wanted, folder(work, "lock"), os.environ)
    assert conclusion.outcome is Outcome.PASSED, conclusion.message
    assert end.seconds > 0
    assert made is not None
    return made


def test_a_lock_pins_what_was_asked_and_says_what_that_was(
    lock: Lock, wanted: Environment, tmp_path: Path
) -> None:
    assert lock.text.splitlines()[2:] == ["iniconfig==2.0.0"]
    assert lock.refusal == ""
    file = tmp_path / "small.txt"
    file.write_text(lock.text)
    assert read_lock(file, wanted) == lock
    assert read_lock(tmp_path / "none.txt", wanted) is None


@pytest.mark.parametrize(
    "other",
    [
        environment("iniconfig==2.0.0"),
        environment("iniconfig", constraints=("iniconfig<3",)),
        environment("iniconfig", constraints=("iniconfig<2.1",)),
        environment("iniconfig", constraints=("iniconfig<2.1",), overrides=("six",)),
    ],
)
def test_a_lock_answers_its_own_inputs_only(lock: Lock, other: Environment, tmp_path: Path) -> None:
    file = tmp_path / "small.txt"
    file.write_text(lock.text)
    assert read_lock(file, other) is None


def test_a_refusal_is_an_answer_and_is_kept(tmp_path: Path) -> None:
    wanted = environment("iniconfig==2.0.0", "iniconfig==1.1.1")
    made, conclusion, _ = locked(wanted, folder(tmp_path, "w"), os.environ)
    assert (conclusion.outcome, conclusion.reason) == (Outcome.FAILED, Reason.UNRESOLVABLE)
    assert made is not None
    assert "iniconfig==1.1.1" in made.refusal
    assert str(tmp_path) not in made.text
    assert all(line.startswith("#") for line in made.text.splitlines())
    (tmp_path / "lock.txt").write_text(made.text)
    assert read_lock(tmp_path / "lock.txt", wanted) == made


def test_a_plain_page_without_dates_is_no_verdict_about_packages(tmp_path: Path) -> None:
    wanted = msgspec.structs.replace(
        environment("aaa==1.0"), resolution="released", cutoff="2025-01-01T00:00:00Z"
    )
    with index_server.running() as server:
        server.serve("aaa", b'<a href="/aaa-1.0-py3-none-any.whl">aaa-1.0-py3-none-any.whl</a>',
                     index_server.HTML)  # fmt: skip
        proxies = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
        host = {**os.environ, **proxies, "UV_DEFAULT_INDEX": server.address,
                "UV_CACHE_DIR": str(tmp_path / "cache")}  # fmt: skip
        made, conclusion, _ = locked(wanted, folder(tmp_path, "w"), host)
    assert made is None
    assert (conclusion.outcome, conclusion.reason) == (Outcome.INFRA, Reason.NETWORK)
    assert "this index tells no dates of aaa" in conclusion.message


def test_a_release_that_is_newer_than_a_page_that_is_kept_resolves(tmp_path: Path) -> None:
    def answer(version: str) -> Outcome:
        wanted = msgspec.structs.replace(
            environment(f"made-up=={version}"), resolution="today", cutoff="2026-01-01T00:00:00Z"
        )
        work = folder(tmp_path, version)
        return locked(wanted, work, host)[1].outcome

    names = [f"made_up-{version}-py3-none-any.whl" for version in ("1.0", "2.0")]
    fields: dict[str, Any] = {"upload_time": "2025-01-01T00:00:00Z", "core_metadata": True}
    listed = [index_server.file(name, **fields) for name in names]
    with index_server.running() as server:
        for version, name in zip(("1.0", "2.0"), names, strict=True):
            metadata = f"Metadata-Version: 2.1\nName: made-up\nVersion: {version}\n".encode()
            server.answers[f"/files/{name}.metadata"] = partial(
                index_server.Handler.send, body=metadata
            )
        host = {**os.environ, "UV_DEFAULT_INDEX": server.address, "NO_PROXY": "127.0.0.1",
                "UV_CACHE_DIR": str(tmp_path / "cache")}  # fmt: skip
        server.serve("made-up", index_server.page("made-up", listed[0]))
        assert answer("1.0") is Outcome.PASSED
        server.serve("made-up", index_server.page("made-up", *listed))
        assert answer("2.0") is Outcome.PASSED
        assert answer("3.0") is Outcome.FAILED


def test_a_lock_is_the_same_whoever_of_those_that_ask_the_same_asked_first() -> None:
    def made_for(name: str, inputs: str) -> Lock:
        return Lock(f"# Lock of {name}, made by uv.\n# inputs: {inputs}\naaa==1.0\n")

    released = '{"python":"3.11","requirements":["aaa"],"resolution":"released"}'
    assert made_for("one", released).digest == made_for("other", released).digest
    assert made_for("one", released).digest != made_for("one", released.replace("11", "12")).digest
    # A pinned one's stands in the keys of what was observed.
    pinned = made_for("one", '{"python":"3.11","requirements":["aaa"]}')
    assert pinned.digest == digest(pinned.text)


@pytest.fixture
def no_index(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give a host whose index is a loopback port that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{held.getsockname()[1]}/simple"
        proxies = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
        yield {**os.environ, **proxies, "UV_DEFAULT_INDEX": index, "UV_HTTP_RETRIES": "0",
               "UV_CACHE_DIR": str(tmp_path / "cache")}  # fmt: skip


def test_an_index_that_is_not_there_is_no_verdict_about_packages(
    tmp_path: Path, no_index: dict[str, str]
) -> None:
    wanted = environment("iniconfig")
    made, conclusion, _ = locked(wanted, folder(tmp_path, "w"), no_index)
    assert made is None
    assert (conclusion.outcome, conclusion.reason) == (Outcome.INFRA, Reason.NETWORK)


def test_an_installation_without_an_index_is_no_verdict_either(
    tmp_path: Path, no_index: dict[str, str], lock: Lock, wanted: Environment
) -> None:
    no_index.pop("UV_FIND_LINKS", None)
    no_index.pop("PIP_FIND_LINKS", None)
    place, work = tmp_path / "env", folder(tmp_path, "w")
    conclusion, _, _ = virtualenvs.build(
        wanted, lock, place, work, tmp_path / "wheels", no_index, LIMITS, find_sandbox()
    )
    assert (conclusion.outcome, conclusion.reason) == (Outcome.INFRA, Reason.NETWORK)
    assert not virtualenvs.is_built(place, "key")


# -------------------------------------------------------------------------- virtualenvs, for real


def test_an_environment_holds_what_the_lock_pins_and_nothing_of_ours(
    work: Path, lock: Lock, wanted: Environment, tmp_path: Path
) -> None:
    place = work / "env"
    (place / "half" / "made").mkdir(parents=True)
    older = Lock(lock.text.replace("iniconfig==2.0.0", "iniconfig==1.1.1"))
    conclusion, _, log = virtualenvs.build(
        wanted, older, place, folder(work, "install"), tmp_path / "wheels", os.environ, LIMITS,
        find_sandbox(),
    )  # fmt: skip
    assert conclusion.outcome is Outcome.PASSED, log
    assert not (place / "half").exists()
    assert virtualenvs.installed(place) == {"iniconfig": "1.1.1"}
    assert virtualenvs.python_version(place).startswith(f"{PYTHON}.")
    code = "import iniconfig, sys; print(sys.prefix)"
    argv = [str(virtualenvs.python_of(place)), "-I", "-c", code]
    end, output = run(argv, {}, tmp_path, LIMITS)
    assert (end.status, output.strip()) == (0, str(place))

    assert not virtualenvs.is_built(place, "key")
    virtualenvs.commit(place, "key")
    assert virtualenvs.is_built(place, "key")
    assert not virtualenvs.is_built(place, "another key")


def test_what_a_half_removed_package_leaves_is_passed_over(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    (site / "left-1.0.dist-info").mkdir(parents=True)
    (site / "Whole_One-2.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: Whole_One\nVersion: 2.0\n"
    (site / "Whole_One-2.0.dist-info" / "METADATA").write_text(metadata)
    assert virtualenvs.installed(tmp_path) == {"whole-one": "2.0"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"install": 1}'])
def test_a_marker_that_cannot_be_read_marks_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "matrix.json").write_bytes(content)
    assert not virtualenvs.is_built(tmp_path, "key")
