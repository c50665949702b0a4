"""The committed spec: its profiles are what the issue asks for, and a version is added in one line.

Nothing here counts cells: a version that is added to an axis leaves all of it true.
"""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import msgspec
import pytest
from packaging.version import Version

from matrix.plan.cells import Plan, make_plan, requirements_of
from matrix.spec.loading import DEFAULT_SPEC, LoadedSpec, load
from matrix.spec.snapshot import Release

SPEC = load()
QUANTIZERS = {"awq": ("autoawq-",), "gptq": ("auto-gptq-", "gptqmodel-")}


@pytest.fixture(scope="module")
def cpu() -> Plan:
    return make_plan(SPEC, "cpu")


def pinned(*beginnings: str) -> set[str]:
    """Return the environments for CPUs with our pins whose names begin so, but for ``+bounds``."""
    return {
        name
        for name, environment in SPEC.environments.items()
        if environment.resolution == "pinned" and environment.device == "cpu"
        if name.startswith(beginnings) and not name.endswith("+bounds")
    }


@pytest.mark.parametrize("method", QUANTIZERS)
def test_the_default_profile_has_every_pinned_quantizer(cpu: Plan, method: str) -> None:
    made = [c for c in cpu.checkpoints if c.scheme is not None and c.scheme.method == method]
    assert {c.quantizer.environment for c in made} == pinned(*QUANTIZERS[method])


def test_one_row_of_the_default_profile_runs_without_the_departure(cpu: Plan) -> None:
    awq = [c.quantizer for c in cpu.checkpoints if c.scheme and c.scheme.method == "awq"]
    stock = {role.name for role in awq if not role.departures}
    assert stock == {"autoawq-0.2.9+transformers-4.51.3+stock"}


def test_canaries_say_of_a_good_and_of_a_bad_cell_how_they_must_come_out(cpu: Plan) -> None:
    assert {cell.canary for cell in cpu.cells if cell.canary} == {"garbage", "works"}


def test_the_first_look_is_a_small_part_of_the_default_profile(cpu: Plan) -> None:
    smoke = make_plan(SPEC, "smoke")
    assert {cell.id for cell in smoke.cells} < {cell.id for cell in cpu.cells}
    assert len(smoke.cells) < len(cpu.cells) / 20


def test_the_plan_has_no_circle_and_an_engine_waits_for_every_quantizer(cpu: Plan) -> None:
    needs = requirements_of(cpu)
    TopologicalSorter(needs).prepare()
    assert needs["twins"] == []
    quantizers = pinned(*QUANTIZERS["awq"], *QUANTIZERS["gptq"])
    assert set(needs["vllm-0.32.0"]) == {"twins", *quantizers}


AXES = [
    (r'axes\.autoawq = \["0\.2\.6"', '"0.2.6"', "autoawq-{}+transformers-"),
    (r'axes\.auto_gptq = \["0\.7\.1"', '"0.7.1"', "auto-gptq-{}+transformers-"),
    (r'axes\.autoawq = \["0\.2\.7\.post3"', '"0.2.7.post3"', "autoawq-{}+transformers-"),
    (r'\{ vllm = "0\.32\.0", torch = "[^"]*" \}', "", "vllm-{}"),
]


@pytest.mark.parametrize(("place", "version", "name"), AXES)
def test_a_version_is_added_in_one_line(
    tmp_path: Path, cpu: Plan, place: str, version: str, name: str
) -> None:
    """It gets an environment for each of its sibling's, and the cells that patterns give both."""
    text = DEFAULT_SPEC.read_text()
    found = re.search(place, text)
    assert found
    sibling = version.strip('"') or "0.32.0"
    added = f"{found[0]}, " + (version or found[0]).replace(sibling, "99.9")
    file = tmp_path / "mine.toml"
    file.write_text(text.replace(found[0], added, 1))
    after = make_plan(load(file), "cpu")
    old, new = name.format(sibling), name.format("99.9")
    new_environments = set(after.environments) - set(cpu.environments)
    assert {one.replace(new, old) for one in new_environments} == {
        one for one in cpu.environments if one.startswith(old)
    }
    new_cells = {cell.id for cell in after.cells} - {cell.id for cell in cpu.cells}
    assert new_cells
    assert {cell.replace(new, old) for cell in new_cells} <= {cell.id for cell in cpu.cells}
    assert {cell.id for cell in after.cells} > {cell.id for cell in cpu.cells}


@pytest.mark.parametrize("name", sorted(SPEC.spec.profiles))
def test_every_profile_names_what_there_is(name: str) -> None:
    assert make_plan(SPEC, name).cells


def test_a_newer_release_leaves_every_profile_standing() -> None:
    """A patch of everything that a range takes the newest of: what profiles name stays."""
    newer = {
        package: [*releases, _patch_of(releases)]
        for package, releases in SPEC.snapshot.packages.items()
    }
    later = load(DEFAULT_SPEC, msgspec.structs.replace(SPEC.snapshot, packages=newer))
    assert set(later.environments) - set(SPEC.environments)
    for name in later.spec.profiles:
        assert models(later, name) == models(SPEC, name)


def models(loaded: LoadedSpec, profile: str) -> set[str]:
    return {cell.checkpoint.model.name for cell in make_plan(loaded, profile).cells}


def _patch_of(releases: list[Release]) -> Release:
    newest = max(releases, key=lambda one: Version(one.version))
    major, minor, patch = Version(newest.version).release[:3]
    return msgspec.structs.replace(newest, version=f"{major}.{minor}.{patch + 1}")


def test_predictions_have_their_constants() -> None:
    constants = SPEC.spec.predictions
    assert constants is not None
    assert constants.download_mb_per_second > 0
    assert set(constants.cuda.quantize_seconds_per_billion) == {"awq", "gptq"}
