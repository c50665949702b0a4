"""Ranges of releases as axes, and one environment in its three resolutions."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.environments.locks import Lock, committed_name, own_name
from matrix.plan.keys import lock_inputs
from matrix.spec.loading import LoadedSpec, load
from matrix.spec.snapshot import SNAPSHOT, Release, Snapshot, SourceMetadata, encode
from matrix.spec.tables import MetadataTable, SpecError
from tests.unit import small_spec

RANGE = 'axes.maker = { since = "1.0", pick = "latest patch per minor" }'
RUNNER = '[[environments]]\nname = "runner-{runner}"\n'


def snapshot() -> Snapshot:
    made = [
        Release("0.9", uploaded="2024-01-01T00:00:00Z", sdist=True),
        Release("1.0", uploaded="2024-02-01T00:00:00Z", sdist=True),
        Release("1.0.post1", uploaded="2024-02-02T00:00:00Z", sdist=True),
        Release("1.1", uploaded="2024-03-01T10:00:00Z", sdist=True, yanked="broken"),
        Release("2.0", uploaded="2024-04-01T00:00:00Z", sdist=True),
    ]
    torch = [Release("2.1", uploaded="2024-05-01T00:00:00Z", sdist=True)]
    return Snapshot(1, "2026-11-22T06:00:00Z", {"maker": made, "torch": torch})


def opened(folder: Path, *changes: tuple[str, str]) -> LoadedSpec:
    (folder / SNAPSHOT).write_bytes(encode(snapshot()))
    return load(small_spec.write(folder, *changes))


def makers(loaded: LoadedSpec) -> list[str]:
    return [name for name in loaded.environments if name.startswith("maker-")]


def test_a_range_takes_what_its_rule_says_from_the_snapshot(tmp_path: Path) -> None:
    loaded = opened(tmp_path, ('axes.maker = ["1.0", "2.0"]', RANGE),
                    ("maker-1.0/runner", "maker-1.0.post1/runner"))  # fmt: skip
    assert makers(loaded) == ["maker-1.0.post1", "maker-2.0"]


@pytest.mark.parametrize(
    ("axis", "problem"),
    [
        ('{ since = "1.0", package = "nobody" }', "the snapshot of the index has no package"),
        ('{ since = "1.0", pick = "the best" }', "the best"),
        ('{ since = "first" }', "first"),
    ],
)
def test_a_range_that_cannot_be_taken_says_what_to_write(
    tmp_path: Path, axis: str, problem: str
) -> None:
    with pytest.raises(SpecError, match=problem) as error:
        opened(tmp_path, ('axes.maker = ["1.0", "2.0"]', f"axes.maker = {axis}"))
    assert "environments[1].maker" in str(error.value)


def test_an_environment_has_three_resolutions_and_our_pins_are_in_one(tmp_path: Path) -> None:
    loaded = opened(tmp_path, ('requirements = ["maker=={maker}"]\n',
                    'requirements = ["maker=={maker}"]\npins = ["torch==2.1"]\n'
                    'constraints = ["numpy<2"]\n'))  # fmt: skip
    pinned, released, today = loaded.resolutions("maker-2.0")
    assert (pinned.requirements, pinned.constraints) == (["maker==2.0", "torch==2.1"], ["numpy<2"])
    for other in (released, today):
        assert (other.requirements, other.constraints) == (["maker==2.0"], [])
        assert other.overrides == pinned.overrides  # a departure stays
    assert (pinned.cutoff, released.cutoff) == ("", "2024-04-08T00:00:00Z")
    assert today.cutoff == "2026-11-22T06:00:00Z"


def test_the_newest_of_the_named_releases_dates_an_environment(tmp_path: Path) -> None:
    loaded = opened(tmp_path, ('["maker=={maker}"]', '["maker=={maker}", "torch==2.1"]'),
                    ("[[environments]]", "[released]\ngrace_days = 3\n[[environments]]"),
                    )  # fmt: skip
    assert loaded.at("maker-1.0", "released").cutoff == "2024-05-04T00:00:00Z"


def test_while_the_grace_lasts_as_released_is_as_of_today(tmp_path: Path) -> None:
    longer = ("[[environments]]", "[released]\ngrace_days = 9999\n[[environments]]")
    loaded = opened(tmp_path, longer)
    assert loaded.at("maker-1.0", "released").cutoff == loaded.at("maker-1.0", "today").cutoff


def test_metadata_can_be_given_to_environments_that_do_not_name_the_release(tmp_path: Path) -> None:
    table = """[[metadata]]
package = "relic"
version = "1.0"
environments = "maker-1*"
requires_dist = []
source = "its setup.py"
[[environments]]"""
    loaded = opened(tmp_path, ("[[environments]]", table))
    assert [metadata.package for metadata in loaded.at("maker-1.0", "today").metadata] == ["relic"]
    assert loaded.at("maker-2.0", "today").metadata == []


def test_an_exception_holds_where_it_says_and_as_released_only(tmp_path: Path) -> None:
    exception = """[[released.exceptions]]
package = "Numpy"
environments = "maker-1*"
until = "none"
reason = "was not there yet"
[[environments]]"""
    loaded = opened(tmp_path, ("[[environments]]", exception))
    assert loaded.at("maker-1.0", "released").cutoffs == {"numpy": "none"}
    assert loaded.at("maker-2.0", "released").cutoffs == {}
    assert loaded.at("maker-1.0", "today").cutoffs == {}


def test_what_names_no_known_release_was_never_released(tmp_path: Path) -> None:
    loaded = opened(tmp_path, ('requirements = ["torch==2.0"]', 'requirements = ["numpy<2"]'))
    assert [environment.resolution for environment in loaded.resolutions("twins")] == [
        "pinned",
        "today",
    ]
    with pytest.raises(SpecError, match="names no release whose date is known"):
        loaded.at("twins", "released")


def test_metadata_goes_with_the_releases_that_are_named(tmp_path: Path) -> None:
    table = """[[metadata]]
package = "Maker"
version = "1.0"
requires_dist = ["torch"]
source = "its setup.py"
[[environments]]"""
    loaded = opened(tmp_path, ("[[environments]]", table))
    assert [metadata.version for metadata in loaded.at("maker-1.0", "today").metadata] == ["1.0"]
    assert loaded.at("maker-2.0", "today").metadata == []
    assert loaded.at("maker-1.0", "pinned").metadata == []


def test_what_a_source_archive_requires_goes_along_unless_the_spec_says_it(tmp_path: Path) -> None:
    """By the source that committed locks name: other words would be another question to uv."""
    read = SourceMetadata(["torch>=2", "numpy"], "PKG-INFO")
    kept = [
        Release(version, "2026-01-01T00:00:00Z", ">=3.8", source=read) for version in ("1.0", "2.0")
    ]
    snapshot = Snapshot(1, "2026-11-22T00:00:00Z", {"maker": kept})
    (tmp_path / SNAPSHOT).write_bytes(encode(snapshot))
    table = """[[metadata]]
package = "maker"
version = "2.0"
requires_dist = ["torch"]
source = "its setup.py"
[[environments]]"""
    loaded = load(small_spec.write(tmp_path, ("[[environments]]", table)))
    expected = MetadataTable(
        package="maker",
        version="1.0",
        requires_dist=["torch>=2", "numpy"],
        requires_python=">=3.8",
        source="PKG-INFO in https://pypi.org/project/maker/1.0/#files",
    )
    assert loaded.at("maker-1.0", "released").metadata == [expected]
    assert loaded.at("maker-1.0", "pinned").metadata == []
    (ours,) = loaded.at("maker-2.0", "released").metadata
    assert ours.source == "its setup.py"


def test_the_resolution_may_be_an_axis(tmp_path: Path) -> None:
    runner = RUNNER.replace("{runner}", "{runner}+{resolution}")
    loaded = opened(
        tmp_path,
        (RUNNER, runner + 'axes.resolution = ["released", "today"]\n'),
        ("runner=={runner}", "maker==2.0"),
        ("maker-2.0/runner-3.0", "maker-2.0/runner-3.0+today"),
        ("maker-1.0/runner-3.0", "maker-1.0/runner-3.0+released"),
    )
    runners = [
        environment
        for name, environment in loaded.environments.items()
        if name.startswith("runner")
    ]
    assert [environment.resolution for environment in runners] == ["released", "today"]
    names = [environment.resolution for environment in loaded.resolutions("runner-3.0+today")]
    assert names == ["released", "today"]  # it has no pins to be resolved with


def test_a_resolution_that_is_none_is_named_with_its_key(tmp_path: Path) -> None:
    runner = RUNNER.replace("{runner}", "{runner}+{resolution}")
    wrong = (RUNNER, runner + 'axes.resolution = ["tomorrow"]\n')
    with pytest.raises(SpecError, match=r"environments\[2\]\.resolution: 'tomorrow' is no"):
        opened(tmp_path, wrong)


def test_the_day_is_no_part_of_what_was_asked_but_of_where_the_answer_lies(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    today = opened(tmp_path / "a").at("maker-2.0", "today")
    text = encode(snapshot()).replace(b"2026-11-22", b"2026-11-23")
    file = small_spec.write(tmp_path / "b")
    (tmp_path / "b" / SNAPSHOT).write_bytes(text)
    tomorrow = load(file).at("maker-2.0", "today")
    assert lock_inputs(today) == lock_inputs(tomorrow)
    assert own_name(today) != own_name(tomorrow)
    assert committed_name(today) == ""
    locks = [
        Lock(f"# as of: {environment.cutoff}\nmaker==2.0\ntorch==2.1 ; sys_platform == 'linux'\n")
        for environment in (today, tomorrow)
    ]
    assert locks[0].digest == locks[1].digest
    assert locks[0].pins == {"maker": "2.0", "torch": "2.1"}
    assert Lock("# as of: x\nmaker==2.1\n").digest != locks[0].digest


def test_variables_of_builds_are_part_of_what_was_asked_only_where_there_are_any(
    tmp_path: Path,
) -> None:
    """So that the locks and the evidence of all others stay."""
    (tmp_path / "with").mkdir()
    without = opened(tmp_path).environments["maker-2.0"]
    variables = 'build_environ.maker = { BUILD_CUDA_EXT = "0" }\n'
    place = 'requirements = ["maker=={maker}"]\n'
    made = opened(tmp_path / "with", (place, place + variables)).environments["maker-2.0"]
    assert made.build_environ == {"maker": {"BUILD_CUDA_EXT": "0"}}
    assert lock_inputs(made) == {
        **lock_inputs(without), "build_environ": {"maker": {"BUILD_CUDA_EXT": "0"}},
    }  # fmt: skip
    assert "build_environ" not in lock_inputs(without)


def test_axes_and_groups_are_no_part_of_what_was_asked(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    name = ('name = "maker-{maker}"', 'name = "maker-{maker}"\ngroup = "bounds"')
    made = opened(tmp_path / "other", name).environments["maker-2.0"]
    assert (made.group, made.axes) == ("bounds", {"maker": "2.0"})
    assert lock_inputs(made) == lock_inputs(opened(tmp_path).environments["maker-2.0"])
