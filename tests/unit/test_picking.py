"""Which releases a range takes; what is news; what a snapshot keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from matrix.index.news import dropped
from matrix.spec.picking import Picked, fits, for_linux, pick
from matrix.spec.snapshot import Release
from matrix.spec.tables import RangeTable
from matrix.spec.versions import parsed

PICKS = ("all", "latest patch per minor", "newest 1", "newest 3")
FOR_311 = "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"
FOR_310 = "cp310-cp310-manylinux1_x86_64"

finals = st.builds(
    lambda numbers, post: ".".join(map(str, numbers)) + (f".post{post}" if post else ""),
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3)),
    st.integers(0, 2),
)
sound = st.builds(Release, finals, sdist=st.just(True))
spoilt = st.one_of(
    st.builds(Release, finals, sdist=st.just(True), yanked=st.text(max_size=3)),
    st.builds(Release, finals.map("{}.dev1".format), sdist=st.just(True)),
    st.builds(Release, finals, sdist=st.just(True), requires_python=st.just("<3.10")),
    st.builds(Release, finals, wheels=st.just([FOR_310])),
    st.builds(Release, finals, sdist=st.just(True), gone=st.just("2026-01-01")),
)
releases_of_a_package = st.lists(
    st.one_of(sound, sound, spoilt), max_size=30, unique_by=lambda release: parsed(release.version)
)


def is_sound(release: Release) -> bool:
    """Whether nothing was planted in it, told by what the strategies plant."""
    return release == Release(release.version, sdist=True) and "dev" not in release.version


def sorted_versions(releases: list[Release]) -> list[str]:
    return sorted((release.version for release in releases), key=Version)


@given(releases_of_a_package, finals, finals, st.sampled_from(PICKS))
def test_every_release_of_a_range_is_taken_or_has_a_reason(
    releases: list[Release], since: str, until: str, rule: str
) -> None:
    picked = pick(releases, RangeTable(since=since, until=until, pick=rule), "3.11")
    within = {
        release.version
        for release in releases
        if Version(since) <= Version(release.version)
        and (Version(release.version) <= Version(until) or release.version.startswith(f"{until}."))
    }
    assert {*picked.versions, *picked.passed_over} >= within
    assert not {*picked.versions} & {*picked.passed_over}
    assert all(picked.passed_over.values())
    assert picked.versions == sorted(picked.versions, key=Version)
    sound_ones = {release.version for release in releases if is_sound(release)}
    assert sound_ones >= {*picked.versions}


@given(releases_of_a_package)
def test_all_takes_what_is_sound_and_nothing_else(releases: list[Release]) -> None:
    picked = pick(releases, RangeTable(since="0"), "3.11")
    assert picked.versions == sorted_versions([r for r in releases if is_sound(r)])


@given(releases_of_a_package, st.randoms(use_true_random=False), st.sampled_from(PICKS))
def test_the_order_in_which_an_index_lists_does_not_matter(
    releases: list[Release], random: object, rule: str
) -> None:
    shuffled = list(releases)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis's own random.Random
    wanted = RangeTable(since="0", pick=rule)
    assert pick(shuffled, wanted, "3.11") == pick(releases, wanted, "3.11")


@given(releases_of_a_package)
def test_of_each_minor_the_newest_sound_release_is_taken(releases: list[Release]) -> None:
    picked = pick(releases, RangeTable(since="0", pick="latest patch per minor"), "3.11")
    newest: dict[tuple[int, int], str] = {}
    for text in sorted_versions([r for r in releases if is_sound(r)]):
        newest[Version(text).major, Version(text).minor] = text
    assert picked.versions == sorted(newest.values(), key=Version)


@given(releases_of_a_package, st.integers(1, 5))
def test_the_newest_n_are_the_last_n(releases: list[Release], number: int) -> None:
    picked = pick(releases, RangeTable(since="0", pick=f"newest {number}"), "3.11")
    assert picked.versions == sorted_versions([r for r in releases if is_sound(r)])[-number:]


@given(releases_of_a_package, st.data(), st.sampled_from(PICKS))
def test_always_adds_what_exists_and_changes_nothing_else(
    releases: list[Release], data: st.DataObject, rule: str
) -> None:
    wanted = data.draw(st.sets(finals, max_size=3))
    if releases:
        wanted |= {data.draw(st.sampled_from(releases)).version}
    always = dict.fromkeys(wanted, "we want it")
    existing = {release.version for release in releases}
    plain = pick(releases, RangeTable(since="1", pick=rule), "3.11")
    picked = pick(releases, RangeTable(since="1", pick=rule, always=always), "3.11")
    assert {*picked.versions} == {*plain.versions} | (wanted & existing)
    assert {v for v, why in picked.passed_over.items() if why == "not on the index"} == (
        wanted - existing
    )


@given(releases_of_a_package, st.data(), st.sampled_from(PICKS))
def test_never_is_as_if_there_were_no_such_release(
    releases: list[Release], data: st.DataObject, rule: str
) -> None:
    never = [release for release in releases if data.draw(st.booleans())]
    reasons = {release.version: "it eats the disk" for release in never}
    kept = [release for release in releases if release not in never]
    picked = pick(releases, RangeTable(since="0.dev0", pick=rule, never=reasons), "3.11")
    without = pick(kept, RangeTable(since="0.dev0", pick=rule), "3.11")
    assert picked.versions == without.versions
    assert all(picked.passed_over[version] == "it eats the disk" for version in reasons)


def made(*versions: str) -> list[Release]:
    return [Release(version, sdist=True) for version in versions]


def test_a_post_release_is_a_release_of_its_own() -> None:
    releases = made("0.2.6", "0.2.7", "0.2.7.post1", "0.2.7.post2", "0.2.7.post3", "0.2.8")
    assert pick(releases, RangeTable(since="0.2.7", until="0.2.7"), "3.11").versions == [
        "0.2.7", "0.2.7.post1", "0.2.7.post2", "0.2.7.post3",
    ]  # fmt: skip


def test_the_latest_patch_of_a_minor_may_be_a_post_release() -> None:
    releases = made("0.4.0", "0.4.0.post1", "0.4.3", "0.5.3", "0.5.3.post1", "0.10.0")
    picked = pick(releases, RangeTable(since="0.4", pick="latest patch per minor"), "3.11")
    assert picked == Picked(
        ["0.4.3", "0.5.3.post1", "0.10.0"],
        {
            "0.4.0": "not the newest patch of 0.4",
            "0.4.0.post1": "not the newest patch of 0.4",
            "0.5.3": "not the newest patch of 0.5",
        },
    )


def test_until_takes_in_what_is_below_it() -> None:
    releases = made("4.56.2", "4.57.0", "4.57.6", "4.58.0")
    assert pick(releases, RangeTable(since="4.57", until="4.57"), "3.11").versions == [
        "4.57.0", "4.57.6",
    ]  # fmt: skip


def test_until_a_post_release_is_until_that_release() -> None:
    releases = made("0.2.7", "0.2.7.post1", "0.2.7.post2", "0.2.8")
    assert pick(releases, RangeTable(since="0", until="0.2.7.post1"), "3.11").versions == [
        "0.2.7", "0.2.7.post1",
    ]  # fmt: skip


def test_each_reason_is_told_as_it_is() -> None:
    releases = [
        Release("1.0", sdist=True, yanked="for security"),
        Release("1.1", sdist=True, yanked=""),
        Release("1.2", sdist=True, requires_python=">=3.8,<3.11"),
        Release("1.3", wheels=[FOR_310]),
        Release("1.4rc1", sdist=True),
        Release("1.5", sdist=True),
        Release("1.6", sdist=True, gone="2026-11-21"),
        Release("1.7", wheels=[FOR_310, FOR_311]),
    ]
    picked = pick(releases, RangeTable(since="1", never={"1.5": "a typo in its name"}), "3.11")
    assert picked == Picked(
        ["1.7"],
        {
            "1.0": "yanked (for security)",
            "1.1": "yanked",
            "1.2": "needs Python <3.11",
            "1.3": "no file for Python 3.11 on Linux x86_64",
            "1.4rc1": "a pre-release",
            "1.5": "a typo in its name",
            "1.6": "gone from the index (found so on 2026-11-21)",
        },
    )


def test_always_wins_over_never_and_over_the_range() -> None:
    rule = RangeTable(since="2", always={"1.0": "old", "2.0": "both"}, never={"2.0": "both"})
    assert pick(made("1.0", "1.1", "2.0"), rule, "3.11").versions == ["1.0", "2.0"]


@pytest.mark.parametrize(
    ("tags", "python", "expected"),
    [
        ("cp311-cp311-manylinux1_x86_64", "3.11", True),
        ("cp311-cp311-manylinux1_x86_64", "3.11.9", True),
        ("cp311-cp311-manylinux1_x86_64", "3.10", False),
        ("cp38-abi3-manylinux1_x86_64", "3.11", True),
        ("cp312-abi3-manylinux1_x86_64", "3.11", False),
        ("py3-none-any", "3.11", True),
        ("py2.py3-none-any", "3.13", True),
        ("py2-none-any", "3.11", False),
        ("cp310.cp311-cp310.cp311-linux_x86_64", "3.11", True),
        ("cp311-cp311-win_amd64", "3.11", False),
        ("cp311-cp311-musllinux_1_2_x86_64", "3.11", False),
        ("cp311-cp311-macosx_11_0_x86_64", "3.11", False),
        ("cp311-cp311-manylinux_2_17_aarch64", "3.11", False),
        ("cp311-cp311-manylinux_2_28_aarch64.manylinux_2_28_x86_64", "3.11", True),
    ],
)
def test_a_wheel_fits_a_python_on_linux(tags: str, python: str, expected: bool) -> None:
    assert fits(tags, python) is expected


def test_only_the_platform_says_whether_a_wheel_is_for_linux() -> None:
    assert for_linux("cp27-none-manylinux1_x86_64")
    assert not for_linux("cp311-cp311-win_amd64")
    assert not for_linux("")


@pytest.mark.parametrize(
    ("bounds", "python", "against"),
    [
        (">=3.8,!=3.11.0", "3.11", ""),
        (">=3.11.4", "3.11", ""),
        (">3.11", "3.11", ""),
        ("<=3.11", "3.11", ""),
        (">=3.8,!=3.11.*", "3.11", "!=3.11.*"),
        (">=3.12", "3.11", ">=3.12"),
        (">=3.8,<3.11", "3.11", "<3.11"),
        (">=3.11.5,<3.11.5", "3.11", "<3.11.5,>=3.11.5"),
        ("!=3.11.0", "3.11.0", "!=3.11.0"),
    ],
)
def test_a_minor_of_python_is_any_of_its_patches(bounds: str, python: str, against: str) -> None:
    picked = pick(
        [Release("1.0", requires_python=bounds, sdist=True)], RangeTable(since="0"), python
    )
    assert picked.passed_over == ({"1.0": f"needs Python {against}"} if against else {})


@pytest.mark.parametrize(
    ("had", "lacks", "believed"),
    [(4, 3, True), (4, 4, False), (101, 10, True), (101, 11, False), (101, 100, False)],
)
def test_an_index_may_drop_a_few_releases_at_once(had: int, lacks: int, believed: bool) -> None:
    before = made(*(f"1.{number}" for number in range(had)))
    long_gone = [Release(f"0.{number}", gone="2026-01-01") for number in range(50)]
    lost = dropped([*long_gone, *before], [*before[lacks:], *made("2.0")])
    assert lost == ([] if believed else [release.version for release in before[:lacks]])


HOSTILE = ["", "\x1b[31m1.0", "1" * 5000, "1.0; rm -rf", "١.٠", "1.0\n", "../1", "1.0 ", "nan"]


def test_a_hostile_version_is_passed_over() -> None:
    releases = [*made(*HOSTILE), *made("1.0.1")]
    assert pick(releases, RangeTable(since="0"), "3.11").versions[-1] == "1.0.1"
    assert not {"\x1b[31m1.0", "1" * 5000, "1.0; rm -rf", "../1"} & {
        *pick(releases, RangeTable(since="0"), "3.11").versions
    }


@given(st.lists(st.text(max_size=80)), st.sampled_from(PICKS))
def test_no_version_and_no_bound_makes_pick_raise(texts: list[str], rule: str) -> None:
    releases = [Release(text, requires_python=text, wheels=[text]) for text in texts]
    pick(releases, RangeTable(since="0", pick=rule), "3.11")


def test_bounds_that_are_none_forbid_nothing() -> None:
    """As installers have it."""
    releases = [Release("1.0", requires_python="python 3, please", sdist=True)]
    assert pick(releases, RangeTable(since="0"), "3.11").versions == ["1.0"]


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (RangeTable(since="first"), "since: 'first' is no version"),
        (RangeTable(since="1", until="last"), "until: 'last' is no version"),
        (RangeTable(since="1", always={"?": "x"}), "always: '\\?' is no version"),
        (RangeTable(since="1", pick="newest 0"), "pick: 'newest 0' is no way to pick"),
        (RangeTable(since="1", pick="some"), "pick: 'some' is no way to pick"),
    ],
)
def test_a_wrong_rule_is_named(rule: RangeTable, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        pick(made("1.0"), rule, "3.11")
