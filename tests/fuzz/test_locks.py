"""A lock of any bytes is a lock that answers what was asked, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.environments.locks import own_name, read_lock
from matrix.plan.needs import cuda_of
from matrix.store.sealing import seal_text
from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.mutations import like
from tests.unit.test_locks import environment, write

PINS = b"""small==1.0 \\
    --hash=sha256:00
torch[x]==2.1+cpu ; python_version < '3.13'
nvidia-cuda-runtime-cu12==12.8.90
a @ file:///b
"""
REFUSAL = b"# refused:   x No solution when resolving dependencies\n# refused: Because it\n"
MARK = b"PINS"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("locks")


@fuzzed("locks", like(MARK, MARK + PINS, MARK + REFUSAL))
def test_a_lock_is_one_or_none(data: bytes, folder: Path) -> None:
    """Where the data begin with a mark, the header that belongs there stands in its place."""
    asked = environment("released")
    file = folder / own_name(asked)
    write(file, asked, "")
    header = file.read_bytes() if data.startswith(MARK) else b""
    text = header + data.removeprefix(MARK)
    for of_store in (True, False):
        file.write_bytes(seal_text(text) if of_store else text)
        if lock := read_lock(file, asked, of_store=of_store):
            texts = (*lock.pins, lock.digest, cuda_of(lock.text))
            assert all(isinstance(name, str) for name in texts)
