"""Whether the files of a virtualenv are those that were installed: told by what the system says.

Compared are the paths, sizes, times and inodes of files, and where links lead: what was added,
removed, replaced or written to shows. Times of writing can be set back, times of change (ctime)
cannot, but to make or remove another hard link changes them. So they count where no file had one
when the virtualenv was marked: without a sandbox, as packages are no links then. A file with links
elsewhere that was overwritten with as many bytes, its time set back, is not told; in the sandbox
nothing can do that.

Not compared is what is not installed: the home of what runs there, and ``__pycache__``, which no
probe reads (``bytecode``).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG

MARKER = "matrix.json"
_OURS = (MARKER, "home")
_UNREAD = "__pycache__"


def files_of(folder: Path, by: str | None = None) -> dict[str, str]:
    """Return a digest of a virtualenv's files, and ``by`` which time of theirs.

    Where that is not given it is ``ctime`` if no file has another name, else ``mtime``.
    """
    entries = sorted(_entries(folder))
    if by is None:
        linked = any(S_ISREG(status.st_mode) and status.st_nlink > 1 for _, status in entries)
        by = "mtime" if linked else "ctime"
    summary = hashlib.sha256()
    for path, status in entries:
        time = status.st_ctime_ns if by == "ctime" else status.st_mtime_ns
        summary.update(os.fsencode(f"{path}\0{status.st_mode} {status.st_size} {time}"))
        summary.update(f" {status.st_ino}\n".encode())
    return {"files": summary.hexdigest(), "by": by}


def _entries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Give the path below a virtualenv of all in it but folders, with what the system says of it.

    A link is not followed; as another one it has another inode.
    """
    inside = [""]
    for above in inside:  # which grows meanwhile
        with os.scandir(folder / above) as entries:
            for entry in entries:
                path = f"{above}{entry.name}"
                if path in _OURS or entry.name == _UNREAD:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    inside.append(f"{path}/")
                else:
                    yield path, entry.stat(follow_symlinks=False)
