"""What ``plan`` tells a person and a program, of a made-up spec on made-up machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from matrix.cli.plan import PlannedWork, document, lines
from matrix.environments.virtualenvs import commit
from matrix.machine.hardware import Gpu, Machine
from matrix.plan.cell_steps import steps_of_role
from matrix.plan.predictions import name_of
from matrix.run.context import Context, Settings
from matrix.run.estimates import choose_for_nox, estimate
from matrix.spec.methods import METHODS, Listing, Methods, Spans, encode
from matrix.spec.tables import SpecError
from tests.unit import small_spec
from tests.unit.made_history import History, plain_facts

GIB = 2**30
BARE = Machine(processor="made up", cores=4, memory=128 * GIB, system="Linux", note="no driver")
CARD = Gpu(0, "GPU-0", "Made Up 24", 24 * GIB, "8.9")
WITH_CARD = msgspec.structs.replace(BARE, gpus=[CARD], cuda="12.8", note="")
QWEN_14B = (  # Qwen1.5-14B, but tied
    'tied = true\nconfig = { model_type = "qwen2", hidden_size = 5120, intermediate_size = 13696, '
    "num_hidden_layers = 40, num_attention_heads = 40, num_key_value_heads = 40, "
    "vocab_size = 152064 }\n"
)
ON_CUDA = (
    ('name = "maker-{maker}"', 'name = "maker-{maker}"\ndevice = "cuda"'),
    ('name = "runner-{runner}"', 'name = "runner-{runner}"\ndevice = "cuda"'),
    ('environments = "maker-*"', 'environments = "maker-*"\ndevice = "cuda"'),
    ('environments = "runner-*"', 'environments = "runner-*"\ndevice = "cuda"'),
)
LARGE = ("tied = true\n", QWEN_14B)
CELL = "tied/awq/maker-1.0/runner-3.0"


def opened(folder: Path, machine: Machine, *changes: tuple[str, str]) -> Context:
    file = small_spec.write(folder, *changes)
    settings = Settings.of({}, spec=file, profile="all", store=folder / "store")
    return Context(settings, {"HOME": str(folder)}, machine)


def planned(
    context: Context, minutes: float | None = None, disk_gb: float | None = None
) -> PlannedWork:
    expected = estimate(context, {"HOME": str(context.settings.store.parent)})
    return PlannedWork(context, expected, minutes, disk_gb)


def text(context: Context, *, everything: bool = False, **budget: float) -> str:
    return "\n".join(lines(planned(context, **budget), everything=everything))


def row(output: str, name: str) -> list[str]:
    return next(line for line in output.splitlines() if line.strip().startswith(name)).split()


def test_a_profile_is_summed_up_by_part_with_what_is_left_to_do(tmp_path: Path) -> None:
    output = text(opened(tmp_path, BARE))
    assert "4 environments, 2 models, 4 checkpoints, 6 cells" in output
    assert row(output, "All") == ["All", "6", "0", "6", "0", "0"]
    assert row(output, "cells ")[:2] == ["cells", "6"]
    assert row(output, "models ")[:2] == ["models", "2"]
    assert CELL not in output
    assert "untested" in output  # the column
    assert "Untested" not in output  # there are none


def test_a_single_model_is_no_plural(tmp_path: Path) -> None:
    output = text(opened(tmp_path, BARE, ('models = ["tied", "untied"]', 'models = ["tied"]')))
    assert "environments, 1 model, 2 checkpoints, 3 cells" in output


def test_environments_and_cells_are_listed_where_they_are_asked_for(tmp_path: Path) -> None:
    output = text(opened(tmp_path, BARE), everything=True)
    assert f"{CELL}  to do" in output
    assert "maker==1.0" in output


def test_without_a_gpu_everything_is_named_with_its_need_and_nothing_is_to_do(
    tmp_path: Path,
) -> None:
    output = text(opened(tmp_path, BARE, *ON_CUDA, LARGE))
    assert "4 cores, 128 GiB of memory, no GPU (no driver)" in output
    assert row(output, "All") == ["All", "6", "0", "0", "6", "0"]
    assert "6 cells untested here:" in output
    assert "(here: no GPU" in output
    assert "Nothing is left to be done that can be done here." in output
    assert "Untested here; on a machine with the hardware, from the beginning, predicted:" in output
    assert row(output, "cells ")[:2] == ["cells", "6"]
    assert "nothing like it was timed here" in output


def test_sizes_and_needs_of_models_are_told(tmp_path: Path) -> None:
    output = text(opened(tmp_path, BARE, *ON_CUDA, LARGE))
    # 40 layers x (4 x 5120^2 + 3 x 5120 x 13696) and 152064 x 5120, tied: 13.4 billion.
    line = row(output, "tied ")
    assert line[:3] == ["tied", "13.39B", "26.8"]
    assert "1 GPU with" in " ".join(line)


def test_with_a_gpu_what_fits_is_to_do_and_what_does_not_is_untested(tmp_path: Path) -> None:
    output = text(opened(tmp_path, WITH_CARD, *ON_CUDA, LARGE))
    assert "1 x Made Up 24, 24 GiB, capability 8.9" in output
    # The large model's float and quantized cells do not fit; the other's, of no size, do.
    assert row(output, "All") == ["All", "6", "0", "3", "3", "0"]


def test_a_budget_tells_what_it_buys_and_why(tmp_path: Path) -> None:
    output = text(opened(tmp_path, BARE), minutes=100000)
    assert "budget of 100000 minutes: 6 cells (6 new) chosen" in output
    assert f"  new       {CELL}" in output
    none = text(opened(tmp_path, BARE), disk_gb=0)
    assert "no cell chosen" in none
    assert "left out because of the budget: 6 cells (6 new)" in none


RELEASES = """{"schema": 1, "asked": "2026-01-01T00:00:00Z", "packages": {
 "maker": [{"version": "1.0", "uploaded": "2024-01-01T00:00:00Z"},
           {"version": "2.0", "uploaded": "2025-01-01T00:00:00Z"}],
 "runner": [{"version": "3.0", "uploaded": "2026-01-01T00:00:00Z"}]}}"""


def test_of_cells_with_the_same_newest_release_the_other_ones_date_decides(tmp_path: Path) -> None:
    (tmp_path / "releases.json").write_text(RELEASES)
    output = text(opened(tmp_path, BARE), minutes=100000)
    chosen = [line.split()[1] for line in output.splitlines() if line.startswith("  new   ")]
    assert chosen[:3] == [
        "tied/float/none/runner-3.0", "tied/awq/maker-2.0/runner-3.0",
        "untied/float/none/runner-3.0",
    ]  # fmt: skip
    assert chosen.index("untied/awq/maker-2.0/runner-3.0") < chosen.index(CELL)


def test_a_machine_on_which_nothing_runs_tells_what_another_would_do(tmp_path: Path) -> None:
    output = text(opened(tmp_path, BARE, *ON_CUDA, LARGE), minutes=100000)
    assert "Nothing of it runs here. On a machine with the hardware, from the beginning:" in output
    assert "6 cells (6 new) chosen" in output
    output = text(opened(tmp_path, WITH_CARD, *ON_CUDA, LARGE), minutes=100000)
    assert "Nothing of it runs here" not in output
    assert "3 cells (3 new) chosen" in output


def test_a_program_is_given_the_same(tmp_path: Path) -> None:
    context = opened(tmp_path, BARE, *ON_CUDA, LARGE)
    data: dict[str, Any] = json.loads(msgspec.json.encode(document(planned(context, minutes=1.0))))
    assert (data["schema"], data["profile"]) == (1, "all")
    assert [environment["device"] for environment in data["environments"]] == [
        "cpu", "cuda", "cuda", "cuda",
    ]  # fmt: skip
    cell = next(cell for cell in data["cells"] if cell["id"] == CELL)
    assert cell["state"] == "untested here"
    assert cell["unmet"].startswith("needs 1 GPU")
    assert cell["vram_bytes"] > 26 * 10**9
    assert cell["predicted_seconds"] > 0
    assert data["predicted"]["to do here"]["seconds"] == 0
    assert data["predicted"]["untested here"]["seconds"] > 0
    assert data["budget"]["cells"] == {}  # a minute is too little for it
    assert data["budget_for_another_machine"]


def test_titles_cannot_steer_a_terminal_and_are_cut(tmp_path: Path) -> None:
    title = ('title = "All"', f'title = "\\u202e{"x" * 200}"')
    output = text(opened(tmp_path, BARE, title))
    assert "\u202e" not in output
    assert "x" * 80 not in output
    with pytest.raises(SpecError, match=r"profiles\.all\.title: has the control character U\+001B"):
        opened(tmp_path, BARE, ('title = "All"', 'title = "\\u001b[2J"'))


def test_where_uv_is_told_to_copy_each_environment_takes_its_disk(tmp_path: Path) -> None:
    context = opened(tmp_path, BARE)
    linked, copied = (
        estimate(context, {"HOME": str(tmp_path), "UV_LINK_MODE": mode}).prediction.of_cells([CELL])
        for mode in ("hardlink", "copy")
    )
    assert copied.disk > linked.disk
    assert copied.download == linked.download


def test_wheels_that_a_built_environment_shares_are_paid_and_no_import_is(tmp_path: Path) -> None:
    context = opened(tmp_path, BARE)
    history = History(context.plan)
    role = next(c.quantizer for c in context.plan.checkpoints if c.quantizer.name == "maker-1.0")
    resolve, install, imported = steps_of_role(role)
    for step in (resolve, install):
        history.observe(history.keys.of(step), {}, plain_facts)
    context.keys = history.keys
    installed = history.keys.of(install)
    assert installed is not None
    commit(context.store.path("environments", "maker-1.0", "x").parent, installed.value)
    expected = estimate(context, {"HOME": str(tmp_path)})
    shared = "wheels of torch of today"
    assert shared in expected.prediction.needs["environment maker-2.0"]
    assert expected.paid == {"environment maker-1.0", shared}
    names = expected.prediction.names([CELL, "tied/awq/maker-2.0/runner-3.0"], expected.paid)
    assert shared not in names
    assert {name_of(imported), "environment maker-2.0"} < set(names)


def test_a_cell_that_is_checked_again_is_paid_anew(tmp_path: Path) -> None:
    context = opened(tmp_path, BARE)
    history = History(context.plan).finish()
    context.keys = history.keys
    assert not context.keys.unfinished(next(c for c in context.plan.cells if c.id == CELL))
    paid = estimate(context, {"HOME": str(tmp_path)}).paid
    assert not [name for name in paid if name.startswith("cell ")]


def test_nothing_is_written_by_looking(tmp_path: Path) -> None:
    text(opened(tmp_path, BARE), minutes=5)
    assert not (tmp_path / "store").exists()


def test_nox_is_given_a_file_with_the_choice(tmp_path: Path) -> None:
    context = opened(tmp_path, BARE)
    host = {"HOME": str(tmp_path), "MATRIX_MINUTES": "100000"}
    file = choose_for_nox(context, host)
    assert file is not None
    chosen = Context(msgspec.structs.replace(context.settings, cells=file), host, BARE)
    assert [cell.id for cell in chosen.plan.cells] == [cell.id for cell in context.plan.cells]
    assert choose_for_nox(context, {"HOME": str(tmp_path)}) is None


@pytest.mark.parametrize("amount", ["many", "-1", "nan", "inf"])
def test_a_budget_that_is_no_amount_is_refused(tmp_path: Path, amount: str) -> None:
    context = opened(tmp_path, BARE)
    with pytest.raises(SpecError, match=f"environment: MATRIX_DISK: '{amount}' is no amount"):
        choose_for_nox(context, {"HOME": str(tmp_path), "MATRIX_DISK": amount})


def test_a_choice_of_another_profile_is_refused(tmp_path: Path) -> None:
    context = opened(tmp_path, BARE)
    file = choose_for_nox(context, {"HOME": str(tmp_path), "MATRIX_MINUTES": "5"})
    settings = msgspec.structs.replace(context.settings, cells=file, profile="other")
    with pytest.raises(SpecError):
        Context(settings, {"HOME": str(tmp_path)}, BARE)


def test_the_gpu_profile_is_planned_without_a_gpu_and_claims_nothing_to_have_run(
    tmp_path: Path,
) -> None:
    settings = Settings.of({}, profile="gpu", store=tmp_path)
    context = Context(settings, {"HOME": str(tmp_path)}, BARE)
    work = planned(context, minutes=480.0)
    data: dict[str, Any] = json.loads(msgspec.json.encode(document(work)))
    states = {cell["state"] for cell in data["cells"]}
    assert states <= {"untested here", "not run"}
    assert "untested here" in states
    with_vram = [cell for cell in data["cells"] if cell["vram_bytes"] > 2**30]
    assert len(with_vram) == len(data["cells"])
    everywhere = data["predicted"]["untested here"]
    assert everywhere["measured"] == 0
    assert min(everywhere[name] for name in ("download", "disk", "seconds")) > 0
    output = "\n".join(lines(work, everything=False))
    assert "cells untested here:" in output
    assert "nothing like it was timed here" in output
    assert len(output.splitlines()) < 120


def test_an_engine_that_does_not_list_a_format_is_told_before_it_is_run(tmp_path: Path) -> None:
    runner = Listing("a.py", ["2.0", "3.0"], {"awq": Spans([("2.0", "2.0")])})
    (tmp_path / METHODS).write_bytes(encode(Methods(1, "", {"runner": runner, "torch": runner})))
    output = text(opened(tmp_path, BARE))
    assert "Likely to be refused" in output
    assert "       4 cells: runner 3.0 does not list awq" in output.splitlines()
    assert document(planned(opened(tmp_path, BARE)))["unlisted"] == {
        "runner 3.0 does not list awq": 4
    }
    # an adapter of another name has something else read the files
    other = opened(tmp_path, BARE, ('adapter = "./runner.py"', 'adapter = "./maker.py"'))
    assert "Likely to be refused" not in text(other)
