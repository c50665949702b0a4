"""Made-up standings in the shape of real ones: of the realistic result, and of a thousand."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from matrix.judge.results import EnvironmentResult, MatrixResult, Specifier, Standing
from matrix.judge.specifiers import specifiers, trials
from matrix.judge.standings import differences
from matrix.pipeline.outcomes import Outcome, StageResult
from matrix.pipeline.steps import Stage
from tests.unit.report_results import realistic

DECLARES = {
    "0.2.6": ["torch==2.3.1", "transformers>=4.35.0"],
    "0.2.7": ["torch>=2.5.1", "transformers>=4.35.0"],
    "0.2.7.post3": ["torch>=2.2.0", "transformers>=4.45.0"],
}
REFUSAL = (
    "× No solution found when resolving dependencies:\n  ╰─▶ Because autoawq==0.2.7.post3 depends "
    "on transformers>=4.45.0 and you require transformers==4.42.4, we can conclude that your "
    "requirements are unsatisfiable."
)


def standing_result() -> MatrixResult:
    """Return the realistic result with standings, specifiers and a new release."""
    result = realistic()
    held = specifiers(
        trials(result, ["autoawq"], {}),
        lambda _, version: DECLARES.get(version),
        lambda _: ["4.44.2", "4.45.2", "4.48.3", "4.49.0", "4.50.3", "5.1.0"],
    )
    return msgspec.structs.replace(
        result,
        environments=[
            _stands(environment) if environment.role == "quantizer" else environment
            for environment in result.environments
        ],
        specifiers=held,
        new_releases={"autoawq 0.2.9": "2026-11-23", "vllm 0.32.0": "2026-11-23"},
    )


def _stands(environment: EnvironmentResult) -> EnvironmentResult:
    autoawq = environment.packages.get("autoawq", "")
    if not autoawq:
        return environment
    beside = environment.packages["transformers"]
    failed = next((s for s in environment.stages if s.outcome is Outcome.FAILED), None)
    requires = DECLARES.get(autoawq)
    refused = failed is not None and failed.stage is Stage.QUANTIZER_RESOLVE
    declared = "unknown" if requires is None else "forbidden" if refused else "allowed"
    common: dict[str, object] = {
        "declared": declared,
        "declared_by": f"autoawq {autoawq} wants {requires[1]}" if requires else "",
    }
    if refused:
        fields = {**common, "resolves": "no", "refusal": REFUSAL}
        return _of(environment, [_standing(name, fields) for name in TIMES])
    ran = _ran(failed)
    packages = {"autoawq": autoawq, "transformers": beside}
    then = {**common, "resolves": "yes", "others": 61, "packages": {**packages, "torch": "2.5.1"}}
    now = {**then, "packages": {**packages, "torch": "2.15.0"}, "others": 74}
    if autoawq == "0.2.7":
        now |= {"yanked": {"intel-extension-for-pytorch 2.4.0": "for security"}}
    pinned = {**then, **ran, "packages": {**packages, "torch": "2.13.0"}, "others": 58}
    return _of(environment, [
        _standing("released", {**then, **(ran if autoawq == "0.2.6" else {})}),
        _standing("today", now | ({**ran, "same_as": "pinned"} if autoawq == "0.2.9" else {})),
        _standing("pinned", pinned),
    ])  # fmt: skip


TIMES = {"pinned": "", "released": "2024-11-23T10:11:10Z", "today": "2026-11-22T07:00:00Z"}


def _ran(failed: StageResult | None) -> dict[str, str]:
    if failed is None:
        return {"works": "works"}
    return {"works": "broken", "stage": failed.stage.value, "message": failed.message}


def _standing(resolution: str, fields: Mapping[str, object]) -> Standing:
    whole = {"resolution": resolution, "cutoff": TIMES[resolution], **fields}
    return msgspec.convert(whole, Standing)


def _of(environment: EnvironmentResult, stands: list[Standing]) -> EnvironmentResult:
    return msgspec.structs.replace(environment, standings=stands, differences=differences(stands))


def a_thousand() -> MatrixResult:
    """Return a result in which only the resolver was asked: 1,000 environments, no evidence."""
    environments = []
    for release in range(40):
        for beside in range(25):
            packages = {"vllm": f"0.{release}.1", "transformers": f"4.{38 + beside}.2"}
            name = "+".join(f"{package}-{version}" for package, version in packages.items())
            old = {"declared": "allowed", "declared_by": f"vllm 0.{release}.1 wants transformers"}
            good = {**old, "resolves": "yes", "packages": packages, "others": 140}
            bad = {"declared": "forbidden", "resolves": "no", "refusal": REFUSAL}
            forbidden = beside < release // 2
            stands = [
                _standing("released", bad if forbidden else good),
                _standing("today", bad if forbidden or (release + beside) % 9 == 0 else good),
            ]
            made = EnvironmentResult(
                name=name, role="engine", packages=packages, stages=[], cells=1, axes=packages
            )
            environments.append(_of(made, stands))
    result = realistic()
    return msgspec.structs.replace(result, environments=environments, cells=[], specifiers=[])


def hostile_specifier(text: str) -> Specifier:
    """Return a specifier in which every field is a text."""
    return Specifier(
        package=text, release=text, partner=text, holds=text, declared=text, differs=[text],
        worked=[text], failed=[text], unknown=[text], untried=[text], devices=[text],
    )  # fmt: skip
