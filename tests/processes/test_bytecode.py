"""Bytecode is shared between environments that hold the same files, and only then."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from matrix.environments import bytecode

TAG = sys.implementation.cache_tag


class Made:
    """A virtualenv with one package, as uv links it from its cache."""

    def __init__(self, folder: Path, cache: Path, *, content: str = "X = 1\n") -> None:
        self.folder = folder
        self.site = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        cached = cache / f"{abs(hash(content))}.py"
        cache.mkdir(exist_ok=True)
        if not cached.exists():
            cached.write_text(content)
        self.source = self.site / "pkg" / "__init__.py"
        self.source.parent.mkdir(parents=True)
        os.link(cached, self.source)
        self.record = self.site / "pkg-1.0.dist-info" / "RECORD"
        self.record.parent.mkdir()
        size = len(content)
        self.record.write_text(f"pkg/__init__.py,sha256={size},{size}\npkg/data.txt,sha256=1,1\n")
        self.compiled = self.site / "pkg" / "__pycache__" / f"__init__.{TAG}.pyc"

    def compile(self) -> None:
        py_compile.compile(str(self.source), str(self.compiled))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_what_one_environment_compiled_the_next_one_uses(tmp_path: Path, cache: Path) -> None:
    first, second = Made(tmp_path / "a", cache), Made(tmp_path / "b", cache)
    first.compile()
    bytecode.share(first.folder, tmp_path / "pool")
    bytecode.adopt(second.folder, tmp_path / "pool")
    assert second.compiled.samefile(first.compiled)
    code = f"import sys; sys.path.insert(0, {str(second.site)!r}); import pkg"
    done = subprocess.run(
        [sys.executable, "-I", "-v", "-c", code], capture_output=True, text=True, check=True
    )
    assert f"{second.compiled} matches {second.source}" in done.stderr


def test_another_release_gets_none_of_it(tmp_path: Path, cache: Path) -> None:
    first = Made(tmp_path / "a", cache)
    other = Made(tmp_path / "b", cache, content="X = 22\n")
    first.compile()
    bytecode.share(first.folder, tmp_path / "pool")
    bytecode.adopt(other.folder, tmp_path / "pool")
    assert not other.compiled.exists()


def test_what_was_never_compiled_is_no_trouble(tmp_path: Path, cache: Path) -> None:
    made = Made(tmp_path / "a", cache)
    bytecode.adopt(made.folder, tmp_path / "pool")
    bytecode.share(made.folder, tmp_path / "pool")
    bytecode.share(made.folder, tmp_path / "pool")
    assert not made.compiled.exists()


def test_sharing_again_changes_nothing(tmp_path: Path, cache: Path) -> None:
    first = Made(tmp_path / "a", cache)
    first.compile()
    for _ in range(2):
        bytecode.share(first.folder, tmp_path / "pool")
        bytecode.adopt(first.folder, tmp_path / "pool")
    assert first.compiled.stat().st_nlink == 2


@pytest.mark.parametrize("name", ["../../../../secret.py", "pkg/../../../../../secret.py"])
def test_a_package_cannot_reach_beyond_its_folder(tmp_path: Path, cache: Path, name: str) -> None:
    made = Made(tmp_path / "a", cache)
    outside = tmp_path / "__pycache__" / f"secret.{TAG}.pyc"
    outside.parent.mkdir()
    outside.write_bytes(b"mine")
    made.record.write_text(f"pkg/__init__.py,,\n{name},,\n")
    assert (made.site / name).parent.samefile(tmp_path)
    made.compile()
    pool = tmp_path / "some" / "where" / "deep" / "down" / "pool"
    bytecode.share(made.folder, pool)
    assert made.compiled.stat().st_nlink == 2
    assert outside.stat().st_nlink == 1
