"""The catalogue itself: each known issue fits its own logs first, and none of its near misses."""

from __future__ import annotations

import msgspec
import pytest

from matrix.diagnose.catalogue import Issue, load_issues
from matrix.diagnose.fixtures import failure_of_log, fits_where_marked, match_log
from matrix.diagnose.matching import Failure, Fit, Side, literals, match_issues
from matrix.diagnose.passages import excerpt_of_text

ISSUES = load_issues()
EACH = pytest.mark.parametrize("issue", ISSUES.values(), ids=list(ISSUES))


@EACH
def test_a_known_issue_fits_a_real_log_where_it_is_marked(issue: Issue) -> None:
    assert issue.logs, "add one: matrix issues ID --add"
    for log in issue.logs:
        assert fits_where_marked(issue, log), log.source


@EACH
def test_a_known_issue_fits_none_of_its_near_misses(issue: Issue) -> None:
    assert issue.near_misses, "what says nearly the same, and is something else?"
    for log in issue.near_misses:
        assert match_log(issue, log) is None, log.source


@EACH
def test_no_other_issue_takes_the_place_of_the_one_that_a_log_is_of(issue: Issue) -> None:
    all_literals = literals(list(ISSUES.values()))
    for log in issue.logs:
        failure = failure_of_log(issue, log)
        if not log.check:
            text = log.text.replace("⟦", "").replace("⟧", "")
            failure = Failure(excerpt_of_text(text, all_literals))
        side = Side(log.installed)
        failure = msgspec.structs.replace(failure, step=issue.steps[0], here=side, maker=side)
        assert match_issues(ISSUES.values(), failure)[0].issue.id == issue.id, log.source


@EACH
def test_what_was_observed_has_versions_of_which_the_issue_is(issue: Issue) -> None:
    for log in issue.logs:
        if log.observed:
            side = Side(log.installed)
            failure = msgspec.structs.replace(failure_of_log(issue, log), here=side, maker=side)
            assert match_issues([issue], failure)[0].fit is not Fit.LOOKS_LIKE
