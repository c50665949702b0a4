"""A published checkpoint in a quantizer's place: downloaded from the Hub, or a local directory.

Downloading wants the environment's ``environ`` to say ``HF_HUB_OFFLINE = "0"`` (probes are offline
otherwise), and limits of ``quantize`` that fit the download.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Any

Json = dict[str, Any]

PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""The files that are taken: configuration, tensors, tokenizer. No code and no pickle."""


def import_package(_options: Json) -> None:
    """Import what a user of the Hub imports."""
    import huggingface_hub  # noqa: F401


def quantize(job: Json) -> Json:
    """Leave a published checkpoint in ``job["output"]``; the job's model and scheme are not used.

    Options, one of the two: ``repository`` with ``revision`` (a whole commit hash, since branches
    and tags move), or ``directory`` (an absolute path). Raises ``ValueError`` where the options
    are not so or a file of the directory is not a plain one, and what huggingface_hub raises.
    """
    output = Path(job["output"])
    output.mkdir(parents=True, exist_ok=True)
    match job["options"]:
        case {"directory": str(directory), **others} if not others:
            take_directory(Path(directory), output)
        case {"repository": str(repository), "revision": str(revision), **others} if not others:
            download(repository, revision, output)
        case options:
            raise ValueError(f"options {options}: give directory, or repository and revision")
    if not any(output.glob("*.safetensors")):
        raise ValueError(f"{job['options']}: no *.safetensors there, so no checkpoint to take")
    return {}


def take_directory(directory: Path, output: Path) -> None:
    """Copy the files of one folder: a package under test must not reach the user's own.

    A link is refused: it would make a file of this machine part of a checkpoint.
    """
    if not directory.is_absolute():
        raise ValueError(f"directory {str(directory)!r}: give an absolute path")
    for name in sorted(os.listdir(directory)):
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in PATTERNS):
            continue
        source = directory / name
        if not stat.S_ISREG(source.lstat().st_mode):
            raise ValueError(
                f"{source}: not a plain file; give a folder without links, "
                "such as `hf download --local-dir` makes"
            )
        shutil.copyfile(source, output / name, follow_symlinks=False)


def download(repository: str, revision: str, output: Path) -> None:
    """Download the files at the top of a repository as they were at one commit."""
    from huggingface_hub import snapshot_download

    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(f"revision {revision!r}: give the 40 hexadecimal digits of a commit")
    snapshot_download(
        repository,
        revision=revision,
        local_dir=output,
        allow_patterns=PATTERNS,
        ignore_patterns=["*/*"],
    )
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(output / ".cache")  # huggingface_hub's notes on the download
