"""The committed spec: its profiles are what the issue asks for, and a version is added in one line.

Nothing here counts cells: a version that is added to an axis leaves all of it true.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from packaging.version import Version

from matrix.checkpoint.formats import Method
from matrix.plan.cells import Plan, make_plan, requirements_of
from matrix.spec.files import read_document, spec_files
from matrix.spec.loading import DEFAULT_SPEC, LoadedSpec, load
from matrix.spec.snapshot import Release

SPEC = load()
OF_CPUS = "environments/cpu.toml"
NEWEST = ("llmcompressor-0.14.0.1", "auto-round-0.16.1", "gptqmodel-7.7.0")
"""Of which the default profile has this release alone, in a part of their own."""
QUANTIZERS = {
    "awq": ("autoawq-", NEWEST[1]),
    "gptq": ("auto-gptq-", "gptqmodel-", NEWEST[1]),
    "compressed-tensors": NEWEST[:2],
}
"""Method -> how the environments begin that make it in the default profile."""


@pytest.fixture(scope="module")
def cpu() -> Plan:
    return make_plan(SPEC, "cpu")


def pinned(*beginnings: str) -> set[str]:
    """Return the environments for CPUs with our pins whose names begin so, of no group unless a
    part names them."""
    return {
        name
        for name, environment in SPEC.environments.items()
        if environment.resolution == "pinned" and environment.device == "cpu"
        if name.startswith(beginnings)
        if not environment.group or name.startswith(NEWEST)
    }


@pytest.mark.parametrize("method", QUANTIZERS)
def test_the_default_profile_has_every_pinned_quantizer(cpu: Plan, method: str) -> None:
    made = [c for c in cpu.checkpoints if c.scheme is not None and c.scheme.method == method]
    assert {c.quantizer.environment for c in made} == pinned(*QUANTIZERS[method])


def test_one_row_of_the_default_profile_runs_without_the_departure(cpu: Plan) -> None:
    awq = [c.quantizer for c in cpu.checkpoints if c.quantizer.adapter.stem == "autoawq"]
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
    quantizers = pinned(*(name for names in QUANTIZERS.values() for name in names))
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
    text = (DEFAULT_SPEC / OF_CPUS).read_text()
    hit = re.search(place, text)
    assert hit
    sibling = version.strip('"') or "0.32.0"
    added = f"{hit[0]}, " + (version or hit[0]).replace(sibling, "99.9")
    after = make_plan(load(changed(tmp_path, hit[0], added)), "cpu")
    old, new = name.format(sibling), name.format("99.9")
    new_environments = set(after.environments) - set(cpu.environments)
    assert {environment.replace(new, old) for environment in new_environments} == {
        environment for environment in cpu.environments if environment.startswith(old)
    }
    new_cells = {cell.id for cell in after.cells} - {cell.id for cell in cpu.cells}
    assert new_cells
    assert {cell.replace(new, old) for cell in new_cells} <= {cell.id for cell in cpu.cells}
    assert {cell.id for cell in after.cells} > {cell.id for cell in cpu.cells}


def changed(folder: Path, old: str, new: str) -> Path:
    """Return a copy of the project's spec with one change in its environments for CPUs."""
    copy = folder / "spec"
    shutil.copytree(DEFAULT_SPEC, copy, ignore=shutil.ignore_patterns("locks"))
    text = (copy / OF_CPUS).read_text()
    assert old in text
    (copy / OF_CPUS).write_text(text.replace(old, new, 1))
    return copy


ROW = '  { gptqmodel = "7.6.0", transformers = "5.23.0" },\n'


def test_a_pairing_is_added_in_one_row(tmp_path: Path, cpu: Plan) -> None:
    """It is one environment and no other, however many versions there are beside it."""
    added = ROW.replace("5.23.0", "5.22.0")
    after = load(changed(tmp_path, ROW, ROW + added))
    name = "gptqmodel-7.6.0+transformers-5.22.0"
    assert set(after.environments) - set(SPEC.environments) == {name}
    new_cells = {cell.id for cell in make_plan(after, "cpu").cells} - {c.id for c in cpu.cells}
    assert new_cells
    assert {cell.split("/")[2] for cell in new_cells} == {name}


def test_a_pairing_beside_axes_is_added_in_one_row(tmp_path: Path) -> None:
    axis = 'axes.autoawq = ["0.2.6"]\n'
    row = 'rows = [{ autoawq = "0.2.5", transformers = "4.43.4", constraints = ["datasets<3"] }]\n'
    after = load(changed(tmp_path, axis, axis + row))
    new = {n: e for n, e in after.environments.items() if n not in SPEC.environments}
    assert list(new) == ["autoawq-0.2.5+transformers-4.43.4"]
    (environment,) = new.values()
    sibling = SPEC.environments["autoawq-0.2.6+transformers-4.42.4"]
    assert environment.constraints == [*sibling.constraints, "datasets<3"]
    assert environment.requirements == ["autoawq==0.2.5", "transformers==4.43.4"]


def test_the_files_one_after_another_are_a_spec_in_one_file() -> None:
    """As a recorded run keeps it."""
    text = "\n".join(file.read_text() for file in spec_files(DEFAULT_SPEC))
    assert tomllib.loads(text) == read_document(DEFAULT_SPEC)[0]


@pytest.mark.parametrize("file", spec_files(DEFAULT_SPEC), ids=lambda file: file.name)
def test_every_file_fits_a_screen_or_a_few(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert len(lines) <= 300
    assert [line for line in lines if len(line) > 120] == []


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
    newest = max(releases, key=lambda release: Version(release.version))
    major, minor, patch = Version(newest.version).release[:3]
    return msgspec.structs.replace(newest, version=f"{major}.{minor}.{patch + 1}")


def test_predictions_have_their_constants() -> None:
    constants = SPEC.spec.predictions
    assert constants is not None
    assert constants.download_mb_per_second > 0
    assert set(constants.cuda.quantize_seconds_per_billion) == set(get_args(Method))
