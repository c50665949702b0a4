"""The libraries of an installed release, and in which of them something is."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from matrix.builds import builds_of
from matrix.missing import Build, Kind, Missing

LIBRARIES = {
    "pack/_C.abi3.so": b"\x00gemm(Tensor x) -> ()\x00",
    "pack/_C_AVX2.abi3.so": b"\x00_Z4gemmRKN2at6TensorE\x00 ns::gemm( my_gemm( gemm_fast(\x00",
    "pack/_C_AVX512.abi3.so": b"xx\x00gemm\x00",
    "pack/amx/_ops.so": b"",
}


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A made-up environment with one release of several builds, and another that has the name."""
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for release, files in {"pack": LIBRARIES, "other": {"other/x.so": b"gemm("}}.items():
        for name, data in files.items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_bytes(data)
        info = site / f"{release}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {release}\nVersion: 1.0\n")
        (info / "RECORD").write_text(
            "".join(f"{name},,\n" for name in [*files, f"{release}/gone.so"])
        )
    return tmp_path


def test_an_operator_is_looked_for_in_every_build_of_the_release(environment: Path) -> None:
    assert builds_of(environment, Missing(Kind.OPERATOR, "gemm", "pack")) == [
        Build("pack/_C.abi3.so", "", True),
        Build("pack/_C_AVX2.abi3.so", "AVX2", False),
        Build("pack/_C_AVX512.abi3.so", "AVX-512", True),
        Build("pack/amx/_ops.so", "", False),
    ]


@pytest.mark.parametrize("package", ["", "unheard-of"])
def test_no_release_has_no_builds(environment: Path, package: str) -> None:
    assert builds_of(environment, Missing(Kind.OPERATOR, "gemm", package)) == []


def test_a_symbol_is_looked_for_where_it_is_defined(tmp_path: Path) -> None:
    """numpy's own library is a real one: it defines its module's start and refers to libm's."""
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    site.parent.mkdir(parents=True)
    numpy = importlib.metadata.distribution("numpy").locate_file("")
    site.symlink_to(str(numpy))

    def having(symbol: str) -> list[str]:
        builds = builds_of(tmp_path, Missing(Kind.SYMBOL, symbol, "numpy"))
        return [Path(build.library).name for build in builds if build.has_it]

    assert [name.partition(".")[0] for name in having("PyInit__multiarray_umath")] == [
        "_multiarray_umath"
    ]
    assert having("PyErr_SetString") == [], "that is Python's, and only referred to"


def test_what_is_no_library_at_all_has_no_symbol(environment: Path) -> None:
    builds = builds_of(environment, Missing(Kind.SYMBOL, "gemm", "pack"))
    assert len(builds) == len(LIBRARIES)
    assert not any(build.has_it for build in builds)
