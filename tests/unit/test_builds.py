"""The libraries of an installed release, and in which of them something is."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.hash import GNUHashSection

from matrix.judge.builds import builds_of
from matrix.judge.missing import Build, Kind, Missing

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
        Build("pack/amx/_ops.so", "AMX", False),
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


@pytest.mark.parametrize(
    "record",
    [
        b"pack/_C.abi3.so,,\n\npack/x.py,,\n",
        b"pack/_C.abi3.so,,many\n",
        b"pack/\xff.so,,\npack/_C.abi3.so,,\n",
    ],
)
def test_a_release_whose_files_are_listed_in_no_readable_way_has_none(
    environment: Path, record: bytes
) -> None:
    next(environment.glob("lib/*/*/pack-1.0.dist-info/RECORD")).write_bytes(record)
    assert builds_of(environment, Missing(Kind.OPERATOR, "gemm", "pack")) == []


def test_a_file_without_a_name_is_passed_over(environment: Path) -> None:
    record = next(environment.glob("lib/*/*/pack-1.0.dist-info/RECORD"))
    record.write_text('"",,\n' + record.read_text())
    builds = builds_of(environment, Missing(Kind.OPERATOR, "gemm", "pack"))
    assert len(builds) == len(LIBRARIES)


def test_a_library_whose_table_of_symbols_is_damaged_defines_none(environment: Path) -> None:
    """With no buckets, whoever looks into it divides by zero."""
    multiarray = importlib.metadata.distribution("numpy").locate_file("numpy/_core")
    library = next(Path(str(multiarray)).glob("_multiarray_umath*.so"))
    with library.open("rb") as file:
        sections = ELFFile(file).iter_sections()
        table = next(section for section in sections if isinstance(section, GNUHashSection))
        start = table["sh_offset"]
    data = bytearray(library.read_bytes())
    data[start : start + 4] = bytes(4)
    next(environment.glob("lib/*/*/pack/_C.abi3.so")).write_bytes(data)
    builds = builds_of(environment, Missing(Kind.SYMBOL, "PyInit__multiarray_umath", "pack"))
    assert len(builds) == len(LIBRARIES)
    assert not any(build.has_it for build in builds)


def test_an_operator_may_stand_with_its_namespace_or_an_overload(environment: Path) -> None:
    site = environment / "lib" / "python3.11" / "site-packages"
    texts = {
        "_C.abi3.so": b"\0_C::gemm(Tensor x) -> ()\0",
        "_C_AVX2.abi3.so": b"\0gemm.out(Tensor x) -> ()\0",
        "_C_AVX512.abi3.so": b"\0other::gemm(Tensor x)\0/src/gemm.cpp: x\0my_C::gemm(\0",
    }
    for name, data in texts.items():
        (site / "pack" / name).write_bytes(data)
    builds = builds_of(environment, Missing(Kind.OPERATOR, "gemm", "pack", "_C"))
    assert [build.library for build in builds if build.has_it] == [
        "pack/_C.abi3.so", "pack/_C_AVX2.abi3.so",
    ]  # fmt: skip


def test_a_folder_names_an_instruction_set_and_a_module_may_lie_by_itself(
    environment: Path,
) -> None:
    info = environment / "lib" / "python3.11" / "site-packages" / "other-1.0.dist-info"
    alone = "kernels.cpython-311-x86_64-linux-gnu.so"
    for name in (alone, "ops/avx512/_C.so"):
        (info.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (info.parent / name).write_bytes(b"")
    (info / "RECORD").write_text(f"{alone},,\nops/avx512/_C.so,,\n")
    assert builds_of(environment, Missing(Kind.OPERATOR, "gemm", "kernels")) == [
        Build(alone, "", False),
        Build("ops/avx512/_C.so", "AVX-512", False),
    ]


@pytest.mark.parametrize(
    "record", [b"\xff\xfe,,\n", b"\n", b"a,b,c,d\n", b",,\n", b"x,,many\n", b'"\0\n', b"x\ry,,"]
)
def test_a_record_that_a_package_spoiled_keeps_nothing_else_from_being_read(
    environment: Path, record: bytes
) -> None:
    site = environment / "lib" / "python3.11" / "site-packages"
    with (site / "other-1.0.dist-info" / "RECORD").open("ab") as file:
        file.write(record)
    missing = Missing(Kind.OPERATOR, "gemm", "pack")
    assert len(builds_of(environment, missing)) == len(LIBRARIES)
    builds_of(environment, Missing(Kind.OPERATOR, "gemm", "other"))
