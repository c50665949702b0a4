"""The committed answers on who can share an environment are of the packages that the spec names."""

from __future__ import annotations

from matrix.report.pairs import state, table
from matrix.spec.loading import DEFAULT_SPEC, load
from matrix.spec.pairs import Pairs, Questions, pairs_of


def kept() -> Pairs:
    pairs = pairs_of(DEFAULT_SPEC)
    assert pairs is not None
    return pairs


def test_they_are_of_the_packages_of_the_spec_and_no_later_than_its_snapshot() -> None:
    loaded = load()
    assert list(kept().since) == list(Questions(loaded).since)
    assert kept().as_of <= loaded.snapshot.asked


def test_the_newest_of_all_packages_have_an_answer_beside_each_other() -> None:
    for row in table(kept()).newest:
        beside = {state(pair) for partner, pair in row.beside.items() if partner != row.package}
        assert beside <= {"resolves", "refused"}, row.package


def test_both_sides_say_the_same_of_the_newest() -> None:
    newest = {row.package: row for row in table(kept()).newest}
    for package, row in newest.items():
        for partner, pair in row.beside.items():
            if pair is not None:
                assert state(pair) == state(newest[partner].beside[package])
                assert pair.newest == newest[partner].release


def test_why_not_is_a_line_that_names_requirements() -> None:
    refusals = {pair.refusal for pair in kept().pairs if pair.refusal}
    assert refusals
    assert all(" wants " in refusal and refusal.isprintable() for refusal in refusals)
    assert max(map(len, refusals)) < 120
