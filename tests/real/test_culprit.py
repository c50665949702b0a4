"""``matrix culprit`` on AutoAWQ 0.2.6, whose import transformers 4.47.0 broke.

What is asserted was first found by hand (docs/culprit.md).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import REPOSITORY

RUN_SECONDS = 1800
OLD, NEW = (
    f"twin-tied/awq-4bit-g64/autoawq-0.2.6+transformers-{version}/vllm-0.32.0"
    for version in ("4.46.3", "4.47.1")
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def ask(store: Path, *arguments: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MATRIX_")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-m", "matrix", *arguments],
        cwd=REPOSITORY, env=environ | {"MATRIX_STORE": str(store)}, timeout=RUN_SECONDS, text=True,
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return done.stdout


def test_the_transformers_release_that_broke_the_import_is_named(store: Path) -> None:
    answer = ask(store, "culprit", OLD, NEW)
    assert "First bad release: transformers 4.47.0; 4.46.3 is good" in answer
    assert "cannot import name 'shard_checkpoint'" in answer
    assert ask(store, "culprit", OLD, NEW).endswith(answer[answer.index("First bad") :])
