"""A quantizer's release then and now, and where the transformers it works with begin and end: real
runs, with what was measured by hand."""

from __future__ import annotations

import pytest

from matrix.judge.results import CellResult
from matrix.pipeline.outcomes import Verdict
from matrix.pipeline.steps import Stage
from tests.recorded.recording import observations, table_of


def cells(profile: str) -> dict[str, CellResult]:
    """Return the cells of a profile's recording by quantizer and model, but for the float ones."""
    table = table_of(profile, observations(profile))
    quantized = [cell for cell in table.cells if cell.scheme != "float"]
    return {f"{cell.quantizer.name} {cell.model}": cell for cell in quantized}


def test_autoawq_0_2_7_worked_when_it_came_out_and_does_not_today() -> None:
    by_name = cells("times")
    assert {name: cell.verdict for name, cell in by_name.items()} == {
        "autoawq-0.2.7+released twin-untied": Verdict.WORKS,
        "autoawq-0.2.7+released twin-tied": Verdict.GARBAGE,  # it drops the embedding
        "autoawq-0.2.7+today twin-untied": Verdict.BROKEN,
        "autoawq-0.2.7+today twin-tied": Verdict.BROKEN,
    }
    today = by_name["autoawq-0.2.7+today twin-untied"]
    assert today.stage is Stage.QUANTIZE
    assert "missing 1 required positional argument: 'attention_mask'" in today.message


@pytest.mark.parametrize(
    ("transformers", "verdict", "stage"),
    [
        *((version, Verdict.BROKEN, Stage.QUANTIZER_IMPORT) for version in ("4.40.2", "4.41.2")),
        *((v, Verdict.BROKEN, Stage.QUANTIZE) for v in ("4.42.4", "4.43.4", "4.44.2")),
        *((version, Verdict.WORKS, None) for version in ("4.45.2", "4.46.3", "4.47.1")),
        *((v, Verdict.BROKEN, Stage.QUANTIZE) for v in ("4.48.3", "4.49.0", "4.50.3", "4.51.3")),
    ],
)
def test_autoawq_0_2_7_works_with_three_minors_of_transformers(
    transformers: str, verdict: Verdict, stage: Stage | None
) -> None:
    cell = cells("bounds")[f"autoawq-0.2.7+transformers-{transformers}+bounds twin-untied"]
    assert (cell.verdict, cell.stage) == (verdict, stage)


def test_the_specifier_that_holds_is_computed_and_set_against_the_declared_one() -> None:
    table = table_of("bounds", observations("bounds"))
    (specifier,) = [specifier for specifier in table.specifiers if specifier.package == "autoawq"]
    assert (specifier.release, specifier.partner) == ("0.2.7", "transformers")
    assert (specifier.holds, specifier.declared) == (">=4.45,<4.48", ">=4.35.0")
    assert specifier.worked == ["4.45.2", "4.46.3", "4.47.1"]
    assert "allowed by metadata, but does not work" in specifier.differs[0]
