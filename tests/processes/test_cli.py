"""``python -m matrix`` as a user starts it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from matrix.cli import app as cli
from matrix.run.progress import Clock, Progress
from tests import REPOSITORY
from tests.unit import small_spec

SOUND = REPOSITORY / "tests" / "checkpoints" / "autoawq-0.2.9-4bit-g64"
HEAVY = ("torch", "transformers", "vllm", "pandas", "jinja2", "numpy")


def matrix(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return matrix_in(REPOSITORY, *arguments, **environ)


def matrix_in(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MATRIX_")}
    return subprocess.run(
        [sys.executable, "-m", "matrix", *arguments],
        cwd=folder, env=ours | environ, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip


def test_a_plan_as_json_lists_the_cells_with_their_parts() -> None:
    done = matrix("plan", "--profile", "smoke", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert plan["profile"] == "smoke"
    assert len(plan["cells"]) == 4
    for cell in plan["cells"]:
        parts = [cell[name] for name in ("model", "scheme", "quantizer", "engine")]
        assert cell["id"] == "/".join(parts)
    assert [environment["name"] for environment in plan["environments"]] == [
        "twins", "autoawq-0.2.7+transformers-4.47.1", "autoawq-0.2.9+transformers-4.51.3",
        "auto-gptq-0.7.1+transformers-4.46.3", "vllm-0.32.0",
    ]  # fmt: skip


def test_a_plan_is_shown_for_a_person_by_default_and_builds_nothing(tmp_path: Path) -> None:
    file = small_spec.write(tmp_path)
    store = tmp_path / "store"
    variables = {"MATRIX_SPEC": str(file), "MATRIX_PROFILE": "all", "MATRIX_STORE": str(store)}
    done = matrix("plan", "--cells", **variables)
    assert done.returncode == 0
    assert "4 environments" in done.stdout
    assert "tied/awq/maker-2.0/runner-3.0" in done.stdout
    assert not store.exists()


def test_an_option_goes_before_a_variable(tmp_path: Path) -> None:
    file = small_spec.write(tmp_path)
    done = matrix("plan", "--spec", str(file), "--profile", "all", MATRIX_PROFILE="cpu")
    assert done.returncode == 0


WRONG = {
    "a wrong spec": (("limit", "Did you mean 'limits'"), ("plan",)),
    "a spec that is not there": (("none.toml", "cannot be read"), ("plan", "--spec", "none.toml")),
    "an unknown profile": (("profiles.gpu", "Defined: all"), ("plan", "--profile", "gpu")),
    "an unknown cell": (("'a/b/c/d'", "lists the ids"), ("run", "--cell", "a/b/c/d")),
    "an unknown environment": (("'maker-9'", "lists"), ("run", "--environment", "maker-9")),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line_and_status_2(tmp_path: Path, case: str) -> None:
    words, arguments = WRONG[case]
    change = [("schema = 1", "schema = 1\nlimit = 1")] if case == "a wrong spec" else []
    variables = {
        "MATRIX_SPEC": str(small_spec.write(tmp_path, *change)),
        "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(tmp_path / "store"),
    }
    done = matrix(*arguments, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words)


@pytest.mark.parametrize(
    ("command", "store", "words"),
    [
        ("resolve", "/dev/null", "error: /dev/null/"),
        ("run", "/dev/null", "error: /dev/null: File exists. "),
        ("clean", "/dev/null", "error: /dev/null: there is no store here. "),
        ("resolve", "/proc/nope/store", "error: /proc/nope: No such file or directory. "),
        ("run", "/proc/nope/store", "error: /proc/nope: No such file or directory. "),
    ],
)
def test_a_store_that_cannot_be_made_is_one_line_and_status_2(
    tmp_path: Path, command: str, store: str, words: str
) -> None:
    spec = str(small_spec.write(tmp_path))
    done = matrix(command, "--spec", spec, "--store", store, MATRIX_PROFILE="all")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(words)
    assert "MATRIX_STORE" in line


def test_a_mistake_of_ours_still_shows_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken() -> None:
        raise OSError("no file is named")

    monkeypatch.setattr(cli, "app", mistaken)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(OSError, match="no file is named"):
        cli.main()


def test_a_report_of_nothing_observed_says_so_and_fails_only_if_asked(tmp_path: Path) -> None:
    variables = {
        "MATRIX_SPEC": str(small_spec.write(tmp_path)),
        "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(tmp_path / "store"),
        "MATRIX_REPORTS": str(tmp_path / "reports"),
    }
    (tmp_path / "store").mkdir()
    done = matrix("report", **variables)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "reports") in done.stdout
    made = {file.name for file in (tmp_path / "reports").iterdir()}
    assert made >= {"index.html", "matrix.md", "matrix.csv", "matrix.json"}
    table = json.loads((tmp_path / "reports" / "matrix.json").read_text())
    assert {cell["verdict"] for cell in table["cells"]} == {"not run"}
    assert matrix("report", "--fail-on", "not run", **variables).returncode == 1
    assert matrix("report", "--fail-on", "infra", **variables).returncode == 0
    assert matrix("report", "--fail-on", "garbage", **variables).returncode == 0


def test_a_run_of_which_all_was_the_machines_trouble_is_no_success(tmp_path: Path) -> None:
    variables = {
        "MATRIX_SPEC": str(small_spec.write(tmp_path)),
        "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(tmp_path / "store"),
        "MATRIX_REPORTS": str(tmp_path / "reports"),
        "UV_DEFAULT_INDEX": "http://127.0.0.1:1/simple",  # where nobody listens
        "UV_HTTP_RETRIES": "0",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_FIND_LINKS": "",
        "PIP_FIND_LINKS": "",
        "NO_PROXY": "*",
    }
    assert matrix("run", **variables).returncode == 2
    done = matrix("report", **variables)
    assert done.returncode == 1
    assert done.stderr == "no success: no cell has an answer (6 infra)\n"
    assert (tmp_path / "reports" / "index.html").exists(), "it says what was in the way"
    light, other = str(tmp_path / "light"), str(tmp_path / "other")
    again = matrix("report", "--light", light, **variables)
    assert again.returncode == 1, "nor is the same report one"
    variables["MATRIX_STORE"] = str(tmp_path / "nowhere")
    elsewhere = matrix("report", "--from-light", light, "--reports", other, **variables)
    assert (elsewhere.returncode, elsewhere.stderr) == (1, again.stderr)
    here = {f.name: f.read_bytes() for f in (tmp_path / "reports").iterdir() if f.is_file()}
    assert here == {f.name: f.read_bytes() for f in Path(other).iterdir() if f.is_file()}


def test_a_report_is_not_replaced_by_one_of_a_store_that_is_empty(tmp_path: Path) -> None:
    variables = {
        "MATRIX_SPEC": str(small_spec.write(tmp_path)),
        "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(tmp_path / "mistyped"),
        "MATRIX_REPORTS": str(tmp_path / "reports"),
    }
    (tmp_path / "mistyped").mkdir()
    assert matrix("report", **variables).returncode == 0
    assert matrix("report", **variables).returncode == 0, "one of nothing may be replaced"
    file = tmp_path / "reports" / "matrix.json"
    table = json.loads(file.read_text())
    file.write_text(json.dumps(table | {"runs": ["20261130T000000-abcd"]}))
    done = matrix("report", **variables)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'mistyped'}: nothing was observed there")
    assert "MATRIX_STORE" in line
    assert json.loads(file.read_text())["runs"], "it is left as it was"
    assert matrix("report", "--reports", str(tmp_path / "other"), **variables).returncode == 0
    file.write_text("{")
    assert matrix("report", **variables).returncode == 0, "nobody can read that one"


def test_without_a_store_there_is_no_report_and_one_that_is_there_stays(tmp_path: Path) -> None:
    variables = {
        "MATRIX_SPEC": str(small_spec.write(tmp_path)),
        "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(tmp_path / "store"),
        "MATRIX_REPORTS": str(tmp_path / "reports"),
    }
    page = tmp_path / "reports" / "index.html"
    page.parent.mkdir()
    page.write_text("an older page")
    done = matrix("report", **variables)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'store'}: there is no store here")
    assert "`matrix run` makes one" in line
    assert "--store or MATRIX_STORE" in line
    assert page.read_text() == "an older page"
    assert [file.name for file in page.parent.iterdir()] == ["index.html"]
    assert not (tmp_path / "store").exists()


def test_store_and_reports_lie_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / ".matrix").mkdir(parents=True)
    done = matrix_in(
        tmp_path / "elsewhere", "report", PYTHONPATH=str(REPOSITORY),
        MATRIX_SPEC=str(small_spec.write(tmp_path)), MATRIX_PROFILE="all",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {".matrix", "reports"}


def test_a_sound_checkpoint_has_status_0_and_one_that_a_check_fails_1(tmp_path: Path) -> None:
    sound = matrix("inspect", str(SOUND))
    assert (sound.returncode, sound.stderr) == (0, "")
    assert sound.stdout.startswith("sound: no fault in what was looked at; its weights were not")
    copy = Path(shutil.copytree(SOUND, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config["quantization_config"] |= {"quant_method": "\x1b[31m\u202egptq", "group_size": 32}
    (copy / "config.json").write_text(json.dumps(config))
    done = matrix("inspect", str(copy))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("not sound: ")
    assert "group-size          failed" in done.stdout
    assert "␛[31m⟨U+202E⟩gptq" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_is_no_checkpoint_is_one_line_and_status_2(tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(SOUND, tmp_path / "copy"))
    (copy / name).write_text("{")
    done = matrix("inspect", str(copy))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {name}: ")


def test_the_suite_counts_what_does_not_work_as_a_result(tmp_path: Path) -> None:
    variables = {
        "MATRIX_SPEC": str(small_spec.write(tmp_path)),
        "MATRIX_PROFILE": "all",
        "MATRIX_STORE": str(tmp_path / "store"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    options = ("-q", "--no-header", "--tb=no", "-r", "N", "tests/compat")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--environment", "twins"],
        cwd=REPOSITORY, env=os.environ | variables, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert " found not to work (a result, no failure of this run)" in done.stdout
    assert "failed" not in done.stdout


def test_a_checkpoint_is_divided_among_one_at_least() -> None:
    assert matrix("inspect", str(SOUND), "--tensor-parallel", "0").returncode == 2


def test_what_a_package_says_steers_no_terminal() -> None:
    stream = io.StringIO()
    clock = Clock(lambda: 0.0, lambda: datetime(2026, 11, 30, 9, 5, 3))
    Progress([], list, stream, {}, clock=clock).tell("load: \x1b[2J\nfailed")
    assert stream.getvalue() == "09:05:03  load: ␛[2J ↵ failed\n"


def imported(code: str) -> list[str]:
    """Return the modules that are imported after code has run."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout.splitlines()[-1].split()


def test_starting_imports_nothing_heavy() -> None:
    modules = imported("from matrix.cli.app import COMMANDS, command; [*map(command, COMMANDS)]")
    assert not set(HEAVY) & set(modules)
    assert "matrix.cli.advise" in modules, "they all were"


@pytest.mark.parametrize("arguments", [["explain", "-"], ["--help"], ["--version"]])
def test_a_command_imports_nothing_of_the_others(arguments: list[str]) -> None:
    call = f"cli.app({arguments}, standalone_mode=False)"
    modules = imported(f"import contextlib\nfrom matrix.cli import app as cli\ntry: {call}\n"
                       "except SystemExit: pass")  # fmt: skip
    own = {"matrix.cli", *(f"matrix.cli.{name}" for name in ("app", "options", "examples"))}
    if "explain" in arguments:
        own |= {"matrix.cli.explain", "matrix.cli.issue_text"}
    assert {module for module in modules if module.startswith("matrix.cli")} == own
    assert not {*HEAVY, "matrix.run", "matrix.store", "matrix.judge", "psutil"} & set(modules)


def test_what_draws_pictures_is_imported_only_where_a_report_is_written() -> None:
    code = "import sys, matrix.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
