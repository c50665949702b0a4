"""From made-up observations to the whole table."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matrix.judge.standings import Solution
from matrix.judge.table import TableJudge
from matrix.pipeline.outcomes import REASONS, Conclusion, Outcome, Verdict
from matrix.pipeline.steps import Blame
from matrix.plan.cells import make_plan
from matrix.spec.loading import load
from matrix.spec.snapshot import Release, Snapshot
from matrix.spec.tables import Environment
from tests.unit import small_spec
from tests.unit.made_history import Ends, History
from tests.unit.made_world import (
    CANARY,
    FLOAT,
    GOOD,
    RAISED,
    World,
    cell_judge,
)


def test_a_table_of_nothing_is_all_infra(world: World) -> None:
    history = History(make_plan(world.loaded, "all"))
    table = world.table(history)
    assert {cell.verdict for cell in table.cells} == {Verdict.NOT_RUN}
    assert (table.runs, table.finished, table.canaries) == ([], "", "not established")
    assert [environment.name for environment in table.environments] == list(
        history.plan.environments
    )


def test_the_table_says_where_its_evidence_is_from(world: World) -> None:
    history = world.history()
    table = world.table(history)
    assert table.runs == ["run-1"]
    assert table.finished == max(observation.at for observation in history.observations.values())
    assert table.machine == {"device": "cpu", "processor": "made up"}
    assert table.departures == {"shim": "a shim, because it must be"}
    cell = next(cell for cell in table.cells if cell.id == GOOD)
    assert cell.departures == ["shim"]
    assert cell.engine.packages == {"runner": "3.0", "torch": "2.1"}
    assert (cell.quantizer.axes, cell.engine.axes["runner"]) == ({"maker": "2.0"}, "3.0")
    assert cell.engine.torch == "2.1+cpu"
    assert cell.command.endswith(f" --profile all --cell {GOOD}")
    roles = {environment.name: environment.role for environment in table.environments}
    assert roles == {"twins": "quantizer", "maker-1.0": "quantizer", "maker-2.0": "quantizer",
                     "runner-3.0": "engine"}  # fmt: skip
    assert [environment.axes.get("maker") for environment in table.environments] == [
        None, "1.0", "2.0", None,
    ]  # fmt: skip


def test_runs_are_named_oldest_first_and_only_those_that_left_evidence(world: World) -> None:
    history = world.history()
    history.change("resolve", "twins", run="run-9", at="2027-01-01T00:00:00")
    history.change("build", "tied", run="run-0", at="2025-01-01T00:00:00")
    table = world.table(history)
    assert table.runs == ["run-0", "run-1", "run-9"]
    assert table.finished == "2027-01-01T00:00:00"


def test_an_environment_broken_alone_is_one_cause_with_all_its_cells(world: World) -> None:
    table = world.table(world.history({("import", "maker-1.0"): RAISED}))
    (broken,) = [e for e in table.environments if e.stages[2].outcome is Outcome.FAILED]
    assert (broken.name, broken.cells) == ("maker-1.0", 2)


some_ends = st.dictionaries(
    st.sampled_from(
        [("resolve", "maker-1.0"), ("install", "runner-3.0"), ("import", "maker-2.0"),
         ("build", "tied"), ("quantize", "untied/awq/maker-1.0"), ("inspect", "tied/float/none"),
         ("inspect", "tied/awq/maker-2.0"), ("load", GOOD), ("load", FLOAT), ("generate", GOOD),
         ("generate", FLOAT), ("generate", CANARY)]
    ),
    st.builds(
        lambda conclusion, message: msgspec.structs.replace(conclusion, message=message),
        st.sampled_from([Conclusion(o, r) for o, some in REASONS.items() for r in sorted(some)]),
        st.sampled_from(["", "words"]),
    ),
    max_size=4,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some_ends, st.randoms(use_true_random=False), st.floats(0, 1))
def test_any_history_gives_one_table_whatever_order_it_is_read_in(
    world: World, ends: Ends, shuffle: random.Random, kept: float
) -> None:
    history = world.history(ends)
    places = [place for place in history.observations if shuffle.random() <= kept or kept > 0.5]
    history.observations = {place: history.observations[place] for place in places}
    table = world.table(history)
    assert world.table(history) == table

    shuffle.shuffle(places)
    history.observations = {place: history.observations[place] for place in places}
    judge = world.judge(history)
    names = [cell.id for cell in history.plan.cells]
    shuffle.shuffle(names)
    for name in names:
        judge.cell(name)
    assert TableJudge(judge).table() == table
    assert msgspec.json.encode(TableJudge(judge).table()) == msgspec.json.encode(table)

    for cell in table.cells:
        if cell.verdict is Verdict.WORKS:
            assert all(stage.outcome is Outcome.PASSED for stage in cell.stages)
            assert cell.output == cell.expected
        if cell.verdict in (
            Verdict.INFRA,
            Verdict.NOT_RUN,
            Verdict.UNTESTED,
            Verdict.UNSUPPORTED,
            Verdict.WORKS,
        ):
            assert cell.blame is Blame.NOBODY


def test_an_environment_stands_by_its_locks_and_by_what_was_run(world: World) -> None:
    made = {"2024-01-01T00:00:00Z": "1.0", "2024-06-01T00:00:00Z": "2.0"}
    releases = [Release(version, uploaded, declares=[]) for uploaded, version in made.items()]
    snapshot = Snapshot(1, "2026-11-22T00:00:00Z", {"maker": releases})
    loaded = msgspec.structs.replace(world.loaded, snapshot=snapshot)
    questions: list[str] = []

    def answer(environment: Environment) -> Solution | None:
        questions.append(f"{environment.name} {environment.resolution} {environment.cutoff[:10]}")
        if environment.name == "runner-3.0":
            return Solution({"runner": "3.0"}) if environment.resolution == "pinned" else None
        if environment.name != "maker-2.0":
            return None
        if environment.resolution == "today":
            return Solution({}, "no such set")
        return Solution({"maker": "2.0", "torch": "2.1"})

    history = world.history()
    judge = TableJudge(cell_judge(loaded, history), answer)
    results = {result.name: result for result in judge.table().environments}
    stands = {standing.resolution: standing for standing in results["maker-2.0"].standings}
    assert [(s.resolves, s.works, s.same_as) for s in stands.values()] == [
        ("yes", "works", ""), ("yes", "works", "pinned"), ("no", "not run", ""),
    ]  # fmt: skip
    assert stands["today"].refusal == "no such set"
    assert results["maker-2.0"].differences == ["rotted: resolved as released, is refused today"]
    assert results["maker-1.0"].standings == []
    runner = [
        (standing.resolution, standing.resolves) for standing in results["runner-3.0"].standings
    ]
    assert runner == [("pinned", "yes"), ("today", "not asked")]  # no date of release is known
    assert "maker-2.0 released 2024-06-08" in questions
    assert not [line for line in questions if line.startswith("runner-3.0 released")]


def test_what_holds_is_told_beside_what_is_declared(world: World, tmp_path: Path) -> None:
    versions = {"maker": "2.0", "runner": "3.0", "torch": "2.1", "transformers": "4.47.1"}

    def facts(step: str, subject: str) -> dict[str, Any]:
        usual = world.facts(step, subject)
        return {**usual, "versions": versions} if step == "install" else usual

    beside = ('"runner==', '"transformers==4.47.1", "runner==')
    loaded = load(small_spec.write(tmp_path, beside))
    snapshot = Snapshot(
        1, "2026-11-22T00:00:00Z", {"runner": [Release("3.0", declares=["transformers<4"])]}
    )
    loaded = msgspec.structs.replace(loaded, snapshot=snapshot)
    history = History(make_plan(loaded, "all")).finish({}, facts)
    (specifier,) = TableJudge(cell_judge(loaded, history)).table().specifiers
    assert (specifier.package, specifier.release, specifier.partner) == (
        "runner",
        "3.0",
        "transformers",
    )
    assert (specifier.holds, specifier.declared) == ("==4.47.1", "<4")
    assert specifier.differs == ["forbidden by metadata, but works: 4.47.1"]


def test_what_holds_is_from_where_the_quantizer_ran(world: World, tmp_path: Path) -> None:
    versions = {"maker": "2.0", "runner": "3.0", "torch": "2.1", "transformers": "4.47.1"}

    def facts(step: str, subject: str) -> dict[str, Any]:
        usual = world.facts(step, subject)
        return {**usual, "versions": versions} if step == "install" else usual

    beside = ('"maker==', '"transformers==4.47.1", "maker==')
    loaded = load(small_spec.write(tmp_path, beside))
    loaded = msgspec.structs.replace(loaded, snapshot=Snapshot(1, "", {"maker": []}))
    history = History(make_plan(loaded, "all")).finish({}, facts)
    for subject in ("maker-1.0", "maker-2.0"):
        history.change("import", subject, device="cuda 8.0")
    specifiers = TableJudge(cell_judge(loaded, history)).table().specifiers
    assert [specifier.devices for specifier in specifiers] == [["cuda 8.0"]] * len(specifiers) != []


def test_an_environment_that_works_says_how_it_is_installed_again(world: World) -> None:
    history = world.history()

    def answer(environment: Environment) -> Solution:
        package, _, version = environment.name.rpartition("-")
        return Solution({package: version, "torch": "2.1"})

    judge = TableJudge(cell_judge(world.loaded, history), answer)
    table = judge.table()
    installs = {result.name: result.install for result in table.environments}
    works = {
        name
        for cell in table.cells
        if cell.verdict is Verdict.WORKS
        for name in (cell.quantizer.environment, cell.engine.environment)
        if (cell.quantizer.name, name) != ("none", cell.quantizer.environment)
    }
    shown = {name for name, install in installs.items() if install is not None and install.works}
    assert shown == works != set()
    runner = installs["runner-3.0"]
    assert runner is not None
    assert runner.pins == {"runner": "3.0", "torch": "2.1"}
