"""A spec of any text is a plan that is shown, or one clear SpecError."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from matrix.cli.plan import PlannedWork, lines
from matrix.machine.hardware import Machine
from matrix.run.context import Context, Settings
from matrix.run.estimates import estimate
from matrix.spec.tables import SpecError
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.mutations import changed, damaged, like
from tests.unit import small_spec

MACHINE = Machine(processor="made up", cores=4, memory=2**34, system="Linux", note="no driver")
CALLS = 2_000_000
"""A spec without predictions takes ours, which is read for them."""
NEXT_FILE = b"\n### next file\n"
SPEC = tomllib.loads(small_spec.TEXT + small_spec.FREE)
ROWS = {
    **SPEC,
    "bases": {"any": {"python": "3.11", "constraints": ["numpy<2"]}},
    "sets": {"makers": ["none", "maker-*"]},
    "environments": [
        {"name": "twins", "base": "any", "requirements": ["torch==2.0"]},
        {"name": "maker-{maker}", "resolution": "today", "requirements": ["vllm=={maker}"],
         "axes": {"maker": {"package": "vllm", "since": "0.30", "pick": "newest 2",
                            "always": {"0.6.6.post1": "old"}, "never": {"0.31.0": "bad"}}}},
        {"name": "runner-{runner}-{n}", "axes": {"runner": ["3.0", "3.1"], "n": ["1", "2"]},
         "rows": [{"runner": "4.0", "n": "3", "pins": ["a==1"]}], "environ": {"A": "b"},
         "build_requirements": {"b": ["setuptools"]}, "build_environ": {"b": {"C": "1"}},
         "requirements": ["runner=={runner}", "torch=={n}"]},
    ],
    "quantizers": [
        *SPEC["quantizers"],
        {**SPEC["quantizers"][0], "suffix": "repaired", "repairs": ["zero-biases"]},
    ],
    "metadata": [{"package": "b", "version": "1.0", "requires_dist": ["a"], "source": "here"}],
    "refusals": {"bits": {
        "packages": ["runner"], "versions": ">=3", "stages": ["load"], "exception": "ValueError",
        "raised_in": "runner/", "text": "it supports * bits only", "source": "its source",
    }},
    "profiles": {"all": {
        "title": "All", "models": ["tied"], "schemes": ["awq"], "quantizers": ["@makers"],
        "engines": [{"package": "runner", "device": "cpu"}],
        "parts": [{"title": "More", "models": ["un*"], "schemes": ["awq"],
                   "quantizers": ["none", "!maker-0.6*"], "engines": ["runner-*"]}],
    }},
}  # fmt: skip


def as_toml(value: Any) -> str:
    """Return a document with each of its sections as an inline value."""
    return "".join(f"{_text(name)} = {_value(part)}\n" for name, part in value.items())


def _value(value: Any) -> str:
    match value:
        case dict():
            pairs = (f"{_text(name)} = {_value(part)}" for name, part in value.items())
            return f"{{{', '.join(pairs)}}}"
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case str():
            return _text(value)
        case float():
            return repr(value)
        case _:
            return "true" if value is None else str(value).lower()


def _text(text: str) -> str:
    return msgspec.json.encode(text.encode("utf-8", "replace").decode()).decode()


@st.composite
def specs(draw: st.DrawFn) -> bytes:
    value = draw(st.sampled_from([SPEC, ROWS]).flatmap(changed))
    if not isinstance(value, dict):
        return as_toml({"x": value}).encode()
    sections = list(value.items())
    cut = draw(st.just(len(sections)) | st.integers(0, len(sections)))
    files = [as_toml(dict(part)).encode() for part in (sections[:cut], sections[cut:]) if part]
    return NEXT_FILE.join(files)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("specs")
    small_spec.write(place)
    return place


def shown(folder: Path, profile: str) -> Iterator[str]:
    host = {"HOME": str(folder)}
    settings = Settings.of(host, spec=folder, profile=profile, store=folder / ".store")
    context = Context(settings, host, MACHINE)
    yield from lines(PlannedWork(context, estimate(context, host), None, None), everything=True)


@fuzzed("specs", specs() | specs().flatmap(damaged) | like(small_spec.TEXT.encode()), CALLS)
def test_a_spec_is_planned_or_refused(data: bytes, folder: Path) -> None:
    for old in folder.glob("*.toml"):
        old.unlink()
    for number, part in enumerate(data.split(NEXT_FILE)[:20]):
        (folder / (f"{number}.toml" if number else "spec.toml")).write_bytes(part)
    with suppress(SpecError):
        assert all(isinstance(line, str) for line in shown(folder, "all"))
