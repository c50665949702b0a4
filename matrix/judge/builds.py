"""The compiled libraries of an installed release, and in which of them something is."""

from __future__ import annotations

import csv
import importlib.metadata
import mmap
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.hash import ELFHashSection, GNUHashSection

from matrix.judge.missing import Build, Kind, Missing

MOST_LIBRARIES = 500
_DAMAGED = (
    OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, struct.error,
    csv.Error, ELFError,
)  # fmt: skip
"""What readers of packages' files raise where those are no such files, or made to be none."""
_PART_OF_NAME = re.compile(rb"[\w:]")
_END_OF_NAME = rb"(?:\.\w{1,100})?[(\0]"
"""What follows an operator's name: ``.out`` of an overload, then its arguments or nothing."""
_WORDS = re.compile(r"[A-Za-z0-9]+")
_INSTRUCTION_SETS = {
    "avx": "AVX", "avx2": "AVX2", "avx512": "AVX-512", "avx512f": "AVX-512", "amx": "AMX",
    "avx512bf16": "AVX-512 BF16",
}  # fmt: skip
"""Words in names of libraries -> the instruction sets that they stand for."""


def builds_of(environment: Path, missing: Missing) -> list[Build]:
    """Return the libraries of the release whose package asked for what is missing.

    Nothing of them is loaded. Empty where no installed release has such a package, or where what
    is missing is nothing that a library could have.
    """
    builds = [
        Build(str(library), _instruction_set(library), _has(site / library, missing))
        for site in environment.glob("lib/python*/site-packages")
        for library in _libraries(site, missing.package)
    ]
    return sorted(builds, key=lambda build: build.library)


def _libraries(site: Path, package: str) -> Iterator[Path]:
    """Yield the libraries, below a folder of packages, of the release that a package is of."""
    for distribution in importlib.metadata.distributions(path=[str(site)]):
        files = _files(distribution)
        # A file is imported by its folder's name, or by its own where it lies there by itself, such
        # as ``kernels.cpython-311-x86_64-linux-gnu.so``.
        if package and any(file.parts[0].partition(".")[0] == package for file in files):
            libraries = [file for file in files if ".so" in file.suffixes]
            yield from (file for file in libraries[:MOST_LIBRARIES] if (site / file).is_file())


def _files(distribution: importlib.metadata.Distribution) -> list[Path]:
    """Return the files of a release, below the folder of packages; none where no list of them can
    be read."""
    try:
        return [path for file in distribution.files or () if (path := Path(file)).parts]
    except _DAMAGED:
        return []


def _instruction_set(library: Path) -> str:
    """Return the instruction set that a library's name says, or else the folders it lies in."""
    words = [word.lower() for part in reversed(library.parts) for word in _WORDS.findall(part)]
    return next((_INSTRUCTION_SETS[word] for word in words if word in _INSTRUCTION_SETS), "")


def _has(library: Path, missing: Missing) -> bool:
    try:
        if missing.kind is Kind.OPERATOR:
            return _names_operator(library, missing.name, missing.namespace)
        return missing.kind is Kind.SYMBOL and _defines(library, missing.name)
    except _DAMAGED:
        return False  # not one that can be read, so none that could be loaded


def _names_operator(library: Path, operator: str, namespace: str) -> bool:
    """Whether a library registers an operator: its name stands there by itself or in a schema,
    which may begin with the namespace (``_C::gemm(Tensor a)``, as torchvision writes its own)."""
    name = re.compile(re.escape(operator.encode()) + _END_OF_NAME)
    qualifier = f"{namespace}::".encode()
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in name.finditer(data):
            start = match.start()
            if data[max(start - len(qualifier), 0) : start] == qualifier:
                start -= len(qualifier)
            if not _PART_OF_NAME.match(data[max(start - 1, 0) : start]):
                return True
    return False


def _defines(library: Path, symbol: str) -> bool:
    with library.open("rb") as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, (GNUHashSection, ELFHashSection)):
                entry = section.get_symbol(symbol)
                return entry is not None and entry["st_shndx"] != "SHN_UNDEF"
    return False
