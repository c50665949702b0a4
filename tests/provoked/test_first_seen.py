"""A model and a checkpoint of the Hub whose commit the first connected run records."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from matrix.pipeline.outcomes import Outcome, Reason, Verdict
from matrix.plan.cell_steps import build_of, steps_of_checkpoint
from matrix.plan.cells import select
from matrix.plan.keys import Key
from matrix.run.context import Context, Settings
from matrix.run.run import Run
from matrix.run.workspace import Workspace
from matrix.store.observations import Observation
from tests.processes.made_hub import NEW, OLD, REPOSITORY, Hub, serving
from tests.provoked.runs import SPEC

CELL = "made-up/awq-4bit-g64/plain+good/plain+good"
FIRST_SEEN = f'repository = "{REPOSITORY}", revision = "first seen"'
ANSWERS = Verdict.DEGRADED
"""The made-up quantizer copies the float model: it answers right, and nothing is packed."""
WHICH = """
from . import {real}

import_package = {real}.import_package
load = getattr({real}, "load", None)
generate = getattr({real}, "generate", None)


def {step}(job):
    return {{**{real}.{step}(job), "revision": job["{of}"]["revision"]}}
"""


class World:
    """The made-up spec, its model and its good quantizer of the Hub, and a store."""

    def __init__(self, folder: Path) -> None:
        made_up = folder / "made_up"
        shutil.copytree(SPEC.parent, made_up)
        self.spec, self.store = made_up / "spec.toml", folder / "store"
        (made_up / "hub_builder.py").write_text(
            WHICH.format(real="builder", step="build", of="recipe")
        )
        (made_up / "hub_quantizer.py").write_text(
            WHICH.format(real="behaviours", step="quantize", of="options")
        )
        text = self.spec.read_text()
        model = 'adapter = "./hub_builder.py"\nrecipe = { ' + FIRST_SEEN + " }\n"
        good = 'adapter = "./behaviours.py"\noptions = { behaviour = "good", at = "quantize" }'
        hub = good.replace("behaviours.py", "hub_quantizer.py").replace(" }", f", {FIRST_SEEN} }}")
        # One of the models; and its good quantizer in all rows, a repaired one repeats it.
        for old, new, times in (('adapter = "./builder.py"\n', model, 1), (good, hub, -1)):
            assert old in text
            text = text.replace(old, new, times)
        self.spec.write_text(text)

    def run(self, endpoint: str) -> tuple[Context, list[str]]:
        settings = Settings.of({}, spec=self.spec, profile="quantizers", store=self.store)
        context, lines = Context(settings), list[str]()
        host = {**os.environ, "HF_ENDPOINT": endpoint}
        run = Run(Workspace(context, host), lines.append, str, fork=True)
        run.perform(select(context.plan, cells=[CELL]))
        return context, lines


def observed(context: Context, key: Key | None) -> Observation:
    observation = context.keys.observed(key)
    assert observation is not None
    return observation


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_first_run_records_the_commit_and_all_jobs_are_given_it(world: World) -> None:
    hub = Hub()
    with serving(hub) as endpoint:
        context, _ = world.run(endpoint)
        checkpoint = next(c for c in context.plan.cells if c.id == CELL).checkpoint
        build = observed(context, context.keys.of(build_of(checkpoint.model)))
        quantize = observed(context, context.keys.of(steps_of_checkpoint(checkpoint)[-2]))
        assert build.facts["revision"] == quantize.facts["revision"] == OLD
        assert context.fresh_judge().cell(CELL).verdict is ANSWERS
        hub.main = NEW
        assert world.run(endpoint)[1] == [], "wherever main goes"


def test_without_a_connection_nothing_is_begun(world: World) -> None:
    context, lines = world.run("http://127.0.0.1:9")
    build = observed(context, context.keys.of(build_of(context.plan.models[0])))
    assert (build.outcome, build.reason) == (Outcome.INFRA, Reason.NETWORK)
    assert REPOSITORY in build.message
    assert context.fresh_judge().cell(CELL).verdict is Verdict.INFRA
    assert [line for line in lines if "build made-up: infra (network)" in line]
    assert not build.final, "the next run asks again"


def test_a_vanished_commit_is_an_error_that_names_it_and_never_another_one(world: World) -> None:
    hub = Hub()
    with serving(hub) as endpoint:
        context, _ = world.run(endpoint)
        shutil.rmtree(world.store / "models")
        hub.main, hub.commits = NEW, {NEW}
        context, _ = world.run(endpoint)
    build = observed(context, context.keys.of(build_of(context.plan.models[0])))
    assert build.outcome is Outcome.INFRA
    assert OLD in build.message
    assert NEW in build.message
