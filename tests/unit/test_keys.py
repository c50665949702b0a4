"""What has to be done again after a change, and what has not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.pipeline.steps import Stage
from matrix.plan.cell_steps import build_of, by_stage, steps_of, steps_of_checkpoint, steps_of_role
from matrix.plan.cells import Cell, Plan, make_plan
from matrix.plan.keys import Key, Keys
from matrix.spec.loading import load
from matrix.store.identity import adapter_digest, file_digest
from tests.unit import small_spec
from tests.unit.made_history import History, plain_facts

CELL = "tied/awq/maker-1.0/runner-3.0"


def _keys(keys: Keys, cell: Cell) -> list[Key | None]:
    return [keys.of(step) for step in steps_of(cell)]


@pytest.fixture(autouse=True)
def _files_are_read_anew() -> Iterator[None]:
    yield
    forget_files()


def forget_files() -> None:
    file_digest.cache_clear()
    adapter_digest.cache_clear()


def plan_of(folder: Path, *changes: tuple[str, str]) -> Plan:
    return make_plan(load(small_spec.write(folder, *changes)), "all")


def changed_steps(before: History, after: History) -> set[str]:
    """Return the steps of which any subject has another key now."""
    assert before.names().keys() == after.names().keys()
    return {place[0] for place, key in before.names().items() if after.names()[place] != key}


CHANGES: dict[str, tuple[tuple[str, str], set[str]]] = {
    "a threshold": (("stored_size = 0.5", "stored_size = 0.7"), set()),
    "a limit": (("seconds = 10", "seconds = 99"), set()),
    "a title": (('title = "All"', 'title = "Everything"'), set()),
    "a canary": (('= "garbage"', '= "broken"'), set()),
    "a text that asks for hardware": (("GPU, please", "no GPU"), {"import", "load", "generate"}),
    "why a departure is made": (('why = "it must be"', 'why = "for fun"'), set()),
    "an engine's options": (
        ("needs_hardware", "options.dtype = 1\nneeds_hardware"), {"load", "generate"}),
    "a quantizer's options": (
        ('adapter = "./maker.py"', 'adapter = "./maker.py"\noptions.n = 1'),
        {"quantize", "inspect", "load", "generate"}),
    "a scheme": (("bits = 4", "bits = 8"), {"quantize", "inspect", "load", "generate"}),
    "a model's recipe": (
        ("seed = 0", "seed = 1"), {"build", "quantize", "inspect", "load", "generate"}),
    "an engine's departures": (
        ("needs_hardware", 'departures = ["shim"]\nneeds_hardware'),
        {"import", "load", "generate"}),
    "an engine's variables": (
        ('variants = [', 'environ.X = "1"\nvariants = ['), {"import", "load", "generate"}),
    "what an engine is resolved from": (
        ('"runner=={runner}"', '"runner=={runner}", "six"'), {"resolve"}),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_spec_repeats_only_what_it_reaches(tmp_path: Path, change: str) -> None:
    text, reached = CHANGES[change]
    before = History(plan_of(tmp_path)).finish()
    after = History(plan_of(tmp_path, text)).finish()
    assert changed_steps(before, after) == reached


def test_a_changed_recipe_repeats_what_is_made_by_it(tmp_path: Path) -> None:
    def names(recipe: str) -> History:
        (tmp_path / "recipe.yaml").write_text(recipe)
        option = (
            'adapter = "./maker.py"',
            'adapter = "./maker.py"\noptions.recipe = "./recipe.yaml"',
        )
        return History(plan_of(tmp_path, option)).finish()

    before, after = names("bits: 4"), names("bits: 8")
    assert changed_steps(before, after) == {"quantize", "inspect", "load", "generate"}


@pytest.mark.parametrize(
    ("adapter", "reached"),
    [
        ("runner.py", {"import", "load", "generate"}),
        ("maker.py", {"import", "quantize", "inspect", "load", "generate"}),
        ("model.py", {"import", "build", "quantize", "inspect", "load", "generate"}),
    ],
)
def test_a_changed_adapter_repeats_only_its_own(
    tmp_path: Path, adapter: str, reached: set[str]
) -> None:
    plan = plan_of(tmp_path)
    before = History(plan).finish()
    (tmp_path / adapter).write_text("# something else\n")
    (tmp_path / "beside.py").write_text("# no adapter at all\n")
    forget_files()
    after = History(plan).finish()
    assert changed_steps(before, after) == reached
    role = {"runner.py": "runner", "maker.py": "maker", "model.py": "twins"}[adapter]
    old, new = before.names(), after.names()
    imports = {subject for step, subject in old if step == "import"}
    again = {name for name in imports if old["import", name] != new["import", name]}
    assert again == {name for name in imports if name.startswith(role)}


@pytest.mark.parametrize("how", ["from . import beside", "from .beside import *"])
def test_what_an_adapter_imports_from_beside_it_is_part_of_it(tmp_path: Path, how: str) -> None:
    plan = plan_of(tmp_path)
    (tmp_path / "runner.py").write_text(f"import json\n{how}\n")
    before = History(plan).finish()
    (tmp_path / "beside.py").write_text("# shared by adapters\n")
    forget_files()
    after = History(plan).finish()
    assert changed_steps(before, after) == {"import", "load", "generate"}


def test_what_that_imports_is_part_of_the_adapter_too(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    (tmp_path / "runner.py").write_text("from .beside import *\n")
    (tmp_path / "beside.py").write_text("from .further import *\nfrom .runner import *\n")
    before = History(plan).finish()
    (tmp_path / "further.py").write_text("# shared by what adapters share\n")
    forget_files()
    after = History(plan).finish()
    assert changed_steps(before, after) == {"import", "load", "generate"}


def test_an_adapter_that_is_no_python_has_a_name_all_the_same(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    (tmp_path / "runner.py").write_text("from . import\n")
    assert History(plan).finish().unfinished() == []


@pytest.mark.parametrize(
    ("where", "also"),
    [('adapter = "./maker.py"', "options.directory"), ("recipe = { seed = 0 }", "recipe")],
)
def test_what_lies_in_a_folder_that_is_named_is_part_of_the_key(
    tmp_path: Path, where: str, also: str
) -> None:
    folder = tmp_path / "brought"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    named = f'{where}\noptions.directory = "{folder}"'
    if also == "recipe":
        named = f'recipe = {{ directory = "{folder}" }}'
    plan = plan_of(tmp_path, (where, named))
    before = History(plan).finish()
    assert History(plan).finish().names() == before.names()
    (folder / "model.safetensors").write_bytes(b"another")
    steps = {"quantize", "inspect", "load", "generate"}
    assert changed_steps(before, History(plan).finish()) == steps | (
        {"build"} if also == "recipe" else set()
    )


def test_another_lock_repeats_that_environment_and_what_stands_on_it(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)

    def facts(step: str, subject: str) -> dict[str, Any]:
        another = (step, subject) == ("resolve", "maker-1.0")
        return {"lock": "another"} if another else plain_facts(step, subject)

    before, after = History(plan).finish().names(), History(plan).finish(facts=facts).names()
    changed = {place for place in before if before[place] != after[place]}
    dependent = {place for place in before if "maker-1.0" in place[1] and place[0] != "resolve"}
    assert changed == dependent
    assert {step for step, _ in changed} == {
        "install", "import", "quantize", "inspect", "load", "generate"
    }  # fmt: skip


def test_other_wheels_to_install_from_repeat_every_installation(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    before, after = History(plan).finish(), History(plan, "other wheels").finish()
    assert changed_steps(before, after) == {"install"}


def test_what_was_really_installed_is_part_of_a_probes_key(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    history = History(plan).finish()
    before = history.keys.of(steps_of_role(plan.cells[0].engine)[-1])
    history.change("install", "runner-3.0", facts={"python": "3.11.9", "torch": "2.1"})
    after = history.keys.of(steps_of_role(plan.cells[0].engine)[-1])
    assert before is not None
    assert after is not None
    assert before.value != after.value


def test_nothing_is_unfinished_when_all_is_observed(tmp_path: Path) -> None:
    history = History(plan_of(tmp_path)).finish()
    assert history.unfinished() == []


@pytest.mark.parametrize(
    ("step", "subject"),
    [
        ("resolve", "maker-1.0"),
        ("install", "runner-3.0"),
        ("import", "maker-1.0"),
        ("build", "tied"),
        ("quantize", "tied/awq/maker-1.0"),
        ("inspect", "tied/awq/maker-1.0"),
        ("load", CELL),
        ("generate", CELL),
    ],
)
def test_what_is_missing_or_was_stopped_by_the_machine_is_unfinished(
    tmp_path: Path, step: str, subject: str
) -> None:
    history = History(plan_of(tmp_path)).finish()
    history.change(step, subject, outcome=Outcome.INFRA, reason=Reason.NETWORK)
    assert CELL in [cell.id for cell in history.unfinished()]
    history.forget(step, subject)
    assert CELL in [cell.id for cell in history.unfinished()]


@pytest.mark.parametrize(
    ("step", "subject"),
    [("resolve", "maker-1.0"), ("install", "maker-1.0"), ("import", "maker-1.0"),
     ("build", "tied"), ("quantize", "tied/awq/maker-1.0"), ("load", CELL), ("generate", CELL)],
)  # fmt: skip
def test_a_failure_is_an_answer_and_what_builds_on_it_has_no_key(
    tmp_path: Path, step: str, subject: str
) -> None:
    failed = Conclusion(Outcome.FAILED, Reason.EXCEPTION)
    history = History(plan_of(tmp_path)).finish({(step, subject): failed})
    assert history.unfinished() == []
    cell = next(cell for cell in history.plan.cells if cell.id == CELL)
    if step not in ("load", "generate"):
        assert history.keys.of(by_stage(steps_of(cell))[Stage.LOAD]) is None


def test_an_unreadable_checkpoint_is_given_to_no_engine(tmp_path: Path) -> None:
    failed = Conclusion(Outcome.FAILED, Reason.UNREADABLE)
    history = History(plan_of(tmp_path)).finish({("inspect", "tied/awq/maker-1.0"): failed})
    assert ("load", CELL) not in history.names()
    assert history.unfinished() == []


def test_a_lock_that_was_made_anew_is_not_passed_over(tmp_path: Path) -> None:
    history = History(plan_of(tmp_path)).finish()
    history.locks["maker-1.0"] = "another"
    assert {cell.checkpoint.quantizer.name for cell in history.unfinished()} == {"maker-1.0"}


def test_an_excluded_cell_is_neither_run_nor_unfinished(tmp_path: Path) -> None:
    table = '[[exclusions]]\ncells = "*/awq/maker-1.0/*"\noutcome = "unsupported"\n'
    table += 'reason = "r"\nsource = "s"\n[profiles.all]\n'
    history = History(plan_of(tmp_path, ("[profiles.all]\n", table))).finish()
    assert ("load", CELL) not in history.names()
    assert history.unfinished() == []


def test_the_float_checkpoint_is_the_model_itself(tmp_path: Path) -> None:
    history = History(plan_of(tmp_path)).finish()
    itself = next(c for c in history.plan.checkpoints if c.scheme is None)
    made = by_stage(steps_of_checkpoint(itself))[Stage.QUANTIZE]
    assert history.keys.of(made) == history.keys.of(build_of(itself.model))


def test_fixed_keys_are_the_same_and_each_is_made_once(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    history = History(plan).finish({("load", CELL): Conclusion(Outcome.FAILED, Reason.EXCEPTION)})
    fixed = history.keys.fixed()
    for _ in range(2):
        for cell in plan.cells:
            assert _keys(fixed, cell) == _keys(history.keys, cell)
            assert fixed.unfinished(cell) == history.keys.unfinished(cell)
    assert history.keys.unfinished_of(plan.cells) == history.unfinished()
    history.looked_up.clear()
    for cell in plan.cells:
        _keys(fixed, cell)
    assert history.looked_up == []


def test_fixed_keys_stay_as_they_were_and_the_others_go_on(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    history = History(plan).finish()
    cell = next(cell for cell in plan.cells if cell.id == CELL)
    fixed = history.keys.fixed()
    before = fixed.of(by_stage(steps_of(cell))[Stage.LOAD])
    history.change("install", "runner-3.0", facts={"python": "3.11.9", "torch": "2.2"})
    assert fixed.of(by_stage(steps_of(cell))[Stage.LOAD]) == before
    assert history.keys.of(by_stage(steps_of(cell))[Stage.LOAD]) is None
    assert history.keys.fixed().of(by_stage(steps_of(cell))[Stage.LOAD]) is None


def test_fixed_keys_tell_roles_of_one_environment_apart(tmp_path: Path) -> None:
    two = """
[[engines]]
environments = "runner-*"
adapter = "./runner.py"
suffix = "other"
environ.X = "1"
"""
    plan = plan_of(tmp_path, ("[profiles.all]\n", two + "\n[profiles.all]\n"))
    history = History(plan).finish()
    fixed = history.keys.fixed()
    engines = {cell.engine.name: cell.engine for cell in plan.cells}
    assert len(engines) == 2
    for engine in engines.values():
        imported = steps_of_role(engine)[-1]
        assert fixed.of(imported) == history.keys.of(imported)
