"""How autoawq 0.2.7 stood when it came out and how it stands today, by a real run of both."""

from __future__ import annotations

from matrix.judge.standings import Ran, Solution, differences, standings, works
from matrix.spec.tables import Environment
from tests.recorded.recording import observations, spec, table_of

THEN, TODAY = "autoawq-0.2.7+released", "autoawq-0.2.7+today"


def test_autoawq_0_2_7_rotted() -> None:
    loaded, recorded = spec("times"), observations("times")
    installed = {
        observation.subject: observation.facts["versions"]
        for observation in recorded
        if observation.step == "install"
    }
    cells = table_of("times", recorded).cells
    ran = [
        Ran(
            loaded.environments[name],
            installed[name],
            *works([cell for cell in cells if cell.quantizer.environment == name], "quantizer"),
        )
        for name in (THEN, TODAY)
    ]

    def answer(environment: Environment) -> Solution | None:
        return {
            "released": Solution(installed[THEN]),
            "today": Solution(installed[TODAY]),
        }.get(environment.resolution)

    stands = standings(loaded, THEN, answer, ran)
    at = {standing.resolution: standing for standing in stands}
    assert list(at) == ["released", "today"]  # it has no pins to be resolved with
    assert (at["released"].works, at["released"].same_as) == ("works", "")
    assert (at["today"].works, at["today"].same_as) == ("broken", f"{TODAY} (today)")
    assert at["released"].cutoff < "2024-12-01" < "2026-11-01" < at["today"].cutoff
    rotted, moved = differences(stands)
    assert rotted == "rotted: works as released, is broken today at quantize"
    assert "transformers 4.46.3 then, 5.23.0 today" in moved
