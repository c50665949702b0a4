"""From judged cells to the whole table: environments, specifiers, canaries, machine. Pure over
what it is given to read."""

from __future__ import annotations

from functools import cache

import msgspec

from matrix.judge.canaries import Inputs, inputs_of
from matrix.judge.cells import CellJudge, ReadReference
from matrix.judge.installing import with_installs
from matrix.judge.results import NOT_RUN, EnvironmentResult, MatrixResult
from matrix.judge.specifiers import facts, specifiers
from matrix.judge.standings import (
    Known,
    Ran,
    ReadSolution,
    StandsAs,
    differences,
    new_releases,
    standings,
    works,
)
from matrix.judge.verdict import VOID, canaries
from matrix.pipeline.steps import Stage
from matrix.plan.cells import Cell, Plan
from matrix.plan.keys import Keys
from matrix.spec.loading import LoadedSpec
from matrix.store.observations import Observation


class Judge(CellJudge):
    """Judges a whole plan: all its cells, and what they say together."""

    def __init__(
        self,
        loaded: LoadedSpec,
        plan: Plan,
        keys: Keys,
        read_reference: ReadReference,
        read_solution: ReadSolution = lambda _: None,
    ) -> None:
        super().__init__(loaded, plan, keys, read_reference)
        self._standing_on: dict[str, list[Cell]] = {}
        for cell in plan.cells:
            for name in {cell.checkpoint.quantizer.environment, cell.engine.environment}:
                self._standing_on.setdefault(name, []).append(cell)
        self._known = Known(loaded.snapshot, loaded.spec.metadata)
        self._read_solution = read_solution
        self._all_that_ran = cache(self._ran)

    def table(self) -> MatrixResult:
        """Judge all cells."""
        cells = [self.cell(cell.id) for cell in self._plan.cells]
        used = self._observations()
        newest = max((observation.at for observation in used), default="")
        names = {name for cell in cells for name in cell.departures}
        trust = canaries(cells)
        departures = {n: self._spec.departures[n] for n in sorted(names)}
        result = MatrixResult(
            profile=self._plan.profile,
            parts=self._plan.parts,
            runs=_runs(used),
            finished=newest,
            machine=_machine(used),
            departures={n: f"{d.what}, because {d.why}" for n, d in departures.items()},
            canaries=trust,
            environments=[self._environment(name) for name in self._plan.environments],
            cells=cells,
            new_releases=new_releases(self._loaded.snapshot, self._plan.environments.values()),
        )
        if trust == VOID:
            return result  # what a run says that cannot be believed, holds nowhere
        tried = facts(result, self._loaded.snapshot.packages, self._made_on())
        held = specifiers(tried, self._known.declares, self._known.versions)
        result = msgspec.structs.replace(result, specifiers=held)
        return with_installs(result, self._plan.environments, self._read_solution, self._installed)

    def inputs_of_canaries(self) -> dict[str, Inputs]:
        """Return what went into each canary, as far as its steps were observed."""
        ids = [cell.id for cell in self._plan.cells if cell.canary is not None]
        return {cell: inputs_of(self._seen(cell), self._spec.thresholds) for cell in ids}

    def _made_on(self) -> dict[str, str]:
        """Return what each environment's quantizers ran on, or else are to run on."""
        devices = {name: self._keys.device(name) for name in self._plan.environments}
        for cell in self._plan.cells:
            imported = self._seen(cell.id).get(Stage.QUANTIZER_IMPORT)
            if imported is not None:
                devices[cell.checkpoint.quantizer.environment] = imported.device
        return devices

    def _environment(self, name: str) -> EnvironmentResult:
        """Judge an environment by the stages it goes through in the first role it plays."""
        cells, role = self._standing_on[name], self._role(name)
        first = Stage.QUANTIZER_RESOLVE if role == "quantizer" else Stage.ENGINE_RESOLVE
        place = list(Stage).index(first)
        stands = standings(self._loaded, name, self._read_solution, self._all_that_ran())
        return EnvironmentResult(
            name=name,
            role=role,
            packages=self._packages(name),
            stages=self.cell(cells[0].id).stages[place : place + 3],
            cells=len(cells),
            departures=self._plan.environments[name].departures,
            command=self._command("--environment", name),
            standings=stands,
            differences=differences(stands),
            axes=self._plan.environments[name].axes,
        )

    def _role(self, name: str) -> StandsAs:
        first = self._standing_on[name][0]
        return "quantizer" if first.checkpoint.quantizer.environment == name else "engine"

    def _ran(self) -> list[Ran]:
        """Return what came of the environments that were built, with the sets of packages."""
        ran = []
        for name, environment in self._plan.environments.items():
            role = self._role(name)
            cells = [self.cell(cell.id) for cell in self._standing_on[name]]
            came_to = works([c for c in cells if getattr(c, role).environment == name], role)
            answer = self._read_solution(environment)
            if answer is not None and came_to[0] != NOT_RUN:
                ran.append(Ran(environment, answer.packages, *came_to))
        return ran

    def _observations(self) -> list[Observation]:
        by_key: dict[str, Observation] = {}
        for cell in self._plan.cells:
            by_key |= {seen.key: seen for seen in self._seen(cell.id).values()}
        return list(by_key.values())


def _runs(used: list[Observation]) -> list[str]:
    ordered = sorted(used, key=lambda seen: (seen.at, seen.key))
    return list(dict.fromkeys(seen.run for seen in ordered))


def _machine(used: list[Observation]) -> dict[str, str]:
    """Return what the evidence was made on; several machines are named side by side."""
    # Observations of before each had a machine have it in the facts of the installs.
    machines = [
        seen.machine or seen.facts.get("machine", {})
        for seen in used
        if seen.machine or seen.step == "install"
    ]
    fields = {name for machine in machines for name in machine}
    words = {
        name: ", ".join(sorted({str(machine[name]) for machine in machines if name in machine}))
        for name in sorted(fields)
    }
    devices = {seen.device for seen in used if "device" in seen.inputs}
    return {"device": ", ".join(sorted(devices)), **words}
