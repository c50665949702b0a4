"""Bytecode is shared between environments that hold the same sources, and none that they made."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from matrix.environments import bytecode
from matrix.machine.sandbox import OPEN, Sandbox, find_sandbox
from matrix.spec.tables import Limits

TAG = sys.implementation.cache_tag
LIMITS = Limits(seconds=600, silence=600, memory_mb=2000, log_mb=4)
SANDBOXES = [pytest.param(find_sandbox(), id="sandbox"), pytest.param(OPEN, id="open")]


def record_of(name: str, content: str) -> str:
    """Return a line of RECORD."""
    text_digest = hashlib.sha256(content.encode()).digest()
    return f"{name},sha256={base64.urlsafe_b64encode(text_digest).decode().rstrip('=')},1\n"


class Made:
    """A virtualenv with one package."""

    def __init__(self, folder: Path, *, content: str = "X = 1\n", recorded: str = "") -> None:
        self.folder = folder
        self.site = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        self.source = self.site / "pkg" / "__init__.py"
        self.source.parent.mkdir(parents=True)
        self.source.write_text(content)
        self.record = self.site / "pkg-1.0.dist-info" / "RECORD"
        self.record.parent.mkdir()
        line = record_of("pkg/__init__.py", recorded or content)
        self.record.write_text(f"{line}pkg/data.txt,sha256=1,1\n")
        self.python = folder / "bin" / "python"
        self.python.parent.mkdir()
        base = Path(sys.executable).resolve()
        self.python.symlink_to(base)
        settings = f"home = {base.parent}\ninclude-system-site-packages = false\n"
        (folder / "pyvenv.cfg").write_text(settings)
        below = self.site.relative_to(self.site.anchor) / "pkg" / f"__init__.{TAG}.pyc"
        self.compiled = folder / bytecode.OWN / below

    def use(self) -> str:
        """Import the package as a probe does; return what Python says of it."""
        environ = {"PYTHONPYCACHEPREFIX": str(self.folder / bytecode.OWN), "PYTHONPATH": ""}
        code = f"import sys; sys.path.insert(0, {str(self.site)!r}); import pkg; print(pkg.X)"
        done = subprocess.run(
            [str(self.python), "-v", "-c", code],
            capture_output=True, text=True, check=True, env=environ,
        )  # fmt: skip
        return done.stdout + done.stderr


class Sharing:
    """A pool, and the sandbox in which its compiler runs."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.pool = folder / "pool"
        self._work = folder / "work"
        self._sandbox = sandbox

    def share(self, made: Made) -> None:
        """Share the bytecode of an environment."""
        self._work.mkdir()
        bytecode.share(made.folder, self.pool, self._work, LIMITS, self._sandbox)
        for file in self._work.iterdir():
            file.unlink()
        self._work.rmdir()

    def adopt(self, made: Made) -> None:
        """Give an environment what is shared."""
        bytecode.adopt(made.folder, self.pool)

    def files(self) -> list[Path]:
        """Return what is shared of packages, whose digests are longer than the library's."""
        return [file for file in self.pool.glob("*/*.pyc") if len(file.stem) == 43]


@pytest.fixture(params=SANDBOXES)
def sharing(request: pytest.FixtureRequest, tmp_path: Path) -> Sharing:
    return Sharing(tmp_path, request.param)


def test_what_is_imported_in_an_environment_the_next_has_compiled(
    tmp_path: Path, sharing: Sharing
) -> None:
    first, second = Made(tmp_path / "a"), Made(tmp_path / "b")
    assert f"created {str(first.compiled)!r}" in first.use()
    sharing.share(first)
    sharing.adopt(second)
    said = second.use()
    assert f"{second.compiled} matches {second.source}" in said
    assert "created" not in said, "what of the library is imported is shared as well"


def test_what_a_package_left_as_bytecode_runs_in_no_other_environment(
    tmp_path: Path, sharing: Sharing
) -> None:
    first, second = Made(tmp_path / "a"), Made(tmp_path / "b")
    evil = Made(tmp_path / "evil", content="X = 2\n")
    evil.use()
    first.compiled.parent.mkdir(parents=True)
    first.compiled.write_bytes(evil.compiled.read_bytes())
    sharing.share(first)
    sharing.adopt(second)
    assert second.use().startswith("1\n")


def test_a_record_that_names_another_source_gives_others_nothing(
    tmp_path: Path, sharing: Sharing
) -> None:
    evil = Made(tmp_path / "a", content="X = 2\n", recorded="X = 1\n")
    second = Made(tmp_path / "b")
    evil.use()
    sharing.share(evil)
    sharing.adopt(second)
    assert second.compiled.exists()
    assert second.use().startswith("1\n")


def test_what_an_environment_has_is_its_own_to_write_to(tmp_path: Path, sharing: Sharing) -> None:
    first, second = Made(tmp_path / "a"), Made(tmp_path / "b")
    first.use()
    sharing.share(first)
    sharing.adopt(second)
    (shared,) = sharing.files()
    assert (shared.stat().st_nlink, second.compiled.stat().st_nlink) == (1, 1)


def test_another_release_gets_none_of_it(tmp_path: Path, sharing: Sharing) -> None:
    first, other = Made(tmp_path / "a"), Made(tmp_path / "b", content="X = 22\n")
    first.use()
    sharing.share(first)
    sharing.adopt(other)
    assert not other.compiled.exists()


def test_what_was_never_imported_is_no_trouble(tmp_path: Path, sharing: Sharing) -> None:
    made = Made(tmp_path / "a")
    sharing.adopt(made)
    sharing.share(made)
    sharing.share(made)
    assert not made.compiled.exists()
    assert sharing.files() == []


def test_sharing_again_changes_nothing(tmp_path: Path, sharing: Sharing) -> None:
    first = Made(tmp_path / "a")
    first.use()
    sharing.share(first)
    (shared,) = sharing.files()
    before = shared.stat()
    sharing.share(first)
    assert shared.stat() == before


def test_a_source_that_cannot_be_compiled_keeps_no_other_back(
    tmp_path: Path, sharing: Sharing
) -> None:
    made = Made(tmp_path / "a")
    made.use()
    wrong = made.site / "pkg" / "wrong.py"
    wrong.write_text("1 +")
    made.record.write_text(record_of("pkg/wrong.py", "1 +") + made.record.read_text())
    (made.compiled.parent / f"wrong.{TAG}.pyc").write_bytes(b"")
    sharing.share(made)
    assert len(sharing.files()) == 1


@pytest.mark.parametrize("name", ["../../../../secret.py", "pkg/../../../../../secret.py"])
def test_a_package_cannot_reach_beyond_its_folder(
    tmp_path: Path, sharing: Sharing, name: str
) -> None:
    made = Made(tmp_path / "deep" / "a")
    made.use()
    secret = (made.site / name).resolve()
    secret.write_text("MINE = 1\n")
    made.record.write_text(record_of(name, "MINE = 1\n"))
    reached = made.folder / bytecode.OWN / str(made.site / name)[1:]
    compiled = Path(os.path.normpath(reached.with_name(f"secret.{TAG}.pyc")))
    compiled.parent.mkdir(parents=True, exist_ok=True)
    compiled.write_bytes(b"")
    sharing.share(made)
    assert sharing.files() == []
