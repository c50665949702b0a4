"""Where an environment's standings differ from each other, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from matrix.judge.results import Standing
from matrix.outcomes import Stage, Verdict
from matrix.spec.tables import Resolution

MOVED = "resolved to other packages"
"""How a difference begins that is to be expected: packages that others brought moved on."""
_GOOD = (Verdict.WORKS.value, Verdict.DEGRADED.value)
_BAD = (Verdict.BROKEN.value, Verdict.GARBAGE.value)
_BEFORE_IT_RUNS = tuple(
    stage.value for stage in Stage if stage.value.endswith(("-install", "-import"))
)
_WHEN: dict[Resolution, str] = {
    "pinned": "with our pins",
    "released": "as released",
    "today": "today",
}


def differences(standings: Iterable[Standing]) -> list[str]:
    """Return where an environment's standings differ from each other, in words; worst first."""
    at = {standing.resolution: standing for standing in standings}
    then, now = at.get("released"), at.get("today")
    rotted = _rotted(then, now) if now else ""
    return [
        *([rotted] if rotted else []),
        *_forbidden(at),
        *_allowed({when: at[when] for when in at if not (rotted and when == "today")}),
        *_yanked(at),
        *(_moved(then, now) if then and now else []),
    ]


def _rotted(then: Standing | None, now: Standing) -> str:
    if now.resolves == "no" and then is not None and then.resolves == "yes":
        return "rotted: resolved as released, is refused today"
    if now.resolves != "yes" or now.works not in _BAD:
        return ""
    if now.stage in _BEFORE_IT_RUNS:
        what = f"today, but does not {now.stage.rpartition('-')[2]}"
        same = then is not None and (then.works, then.stage) == (now.works, now.stage)
        return f"resolves as released and {what}" if same else f"rotted: resolves {what}"
    if then is not None and then.works in _GOOD:
        return f"rotted: {then.works} as released, is {now.works} today at {now.stage}"
    return ""


def _forbidden(at: Mapping[Resolution, Standing]) -> list[str]:
    lines = [
        f"forbidden by metadata, but {standing.works}: {standing.declared_by}"
        for standing in at.values()
        if standing.declared == "forbidden" and standing.works in _GOOD
    ]
    return list(dict.fromkeys(lines))


def _allowed(at: Mapping[Resolution, Standing]) -> list[str]:
    ends: dict[str, list[str]] = {}
    for resolution, standing in at.items():
        if standing.declared == "allowed" and standing.resolves == "no":
            ends.setdefault("refused", []).append(_WHEN[resolution])
        elif standing.declared == "allowed" and standing.works in _BAD:
            end = f"{standing.works} at {standing.stage}"
            ends.setdefault(end, []).append(_WHEN[resolution])
    return [f"allowed by metadata, but {end} {', '.join(when)}" for end, when in ends.items()]


def _yanked(at: Mapping[Resolution, Standing]) -> list[str]:
    reasons = {name: why for standing in at.values() for name, why in standing.yanked.items()}
    return [f"yanked: {name}" + (f" ({why})" if why else "") for name, why in reasons.items()]


def _moved(then: Standing, now: Standing) -> list[str]:
    if then.resolves != "yes" or now.resolves != "yes":
        return []
    moved = [
        f"{name} {then.packages.get(name, 'none')} then, {now.packages.get(name, 'none')} today"
        for name in dict.fromkeys([*then.packages, *now.packages])
        if then.packages.get(name) != now.packages.get(name)
    ]
    return [f"{MOVED}: {', '.join(moved)}"] if moved else []
