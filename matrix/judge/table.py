"""From judged cells to the whole table: environments, specifiers, canaries, machine. Pure over
what it is given to read."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

import msgspec

from matrix.checkpoint.inspection import ConfigFacts, Inspection
from matrix.judge.canaries import Inputs, inputs_of
from matrix.judge.cells import CellJudge, command_of
from matrix.judge.declarations import PackageMetadata
from matrix.judge.installing import with_installs
from matrix.judge.issue_evidence import contradictions, issues_of
from matrix.judge.results import (
    NOT_RUN,
    CanaryState,
    EnvironmentResult,
    MatrixResult,
    ModelFacts,
    SchemeFacts,
)
from matrix.judge.specifiers import specifiers, trials
from matrix.judge.standings import (
    Ran,
    ReadSolution,
    StandsAs,
    differences,
    new_releases,
    standings,
    works,
)
from matrix.judge.verdict import canary_state
from matrix.pipeline.outcomes import Outcome
from matrix.pipeline.steps import Stage
from matrix.plan.cells import Cell, Model
from matrix.spec.tables import SchemeTable
from matrix.store.facts import InstallFacts, read_facts
from matrix.store.observations import Observation


class TableJudge:
    """Judges a whole plan: all its cells, and what they say together.

    ``flaky`` are the keys under which good and bad ends were both observed.
    """

    def __init__(
        self,
        judge: CellJudge,
        read_solution: ReadSolution = lambda _: None,
        flaky: frozenset[str] = frozenset(),
    ) -> None:
        self._judge = judge
        self._flaky = flaky
        self._loaded = judge.loaded
        self._plan = judge.plan
        self._standing_on: dict[str, list[Cell]] = {}
        for cell in self._plan.cells:
            for name in {cell.checkpoint.quantizer.environment, cell.engine.environment}:
                self._standing_on.setdefault(name, []).append(cell)
        self._metadata = PackageMetadata(self._loaded.snapshot, self._loaded.spec.metadata)
        self._read_solution = read_solution
        self._all_that_ran = cache(self._ran)

    def table(self) -> MatrixResult:
        """Return the whole table: all cells judged, and what they say together."""
        cells = [
            msgspec.structs.replace(self._judge.cell(cell.id), flaky=self._is_flaky(cell))
            for cell in self._plan.cells
        ]
        used = sorted(
            self._observations(), key=lambda observation: (observation.at, observation.key)
        )
        names = {name for cell in cells for name in cell.departures}
        trust = canary_state(cells)
        departures = {n: self._loaded.spec.departures[n] for n in sorted(names)}
        result = MatrixResult(
            profile=self._plan.profile,
            parts=self._plan.parts,
            runs=list(dict.fromkeys(observation.run for observation in used)),
            finished=used[-1].at if used else "",
            machine=_machine(used),
            departures={n: f"{d.what}, because {d.why}" for n, d in departures.items()},
            canaries=trust,
            environments=[self._environment(name) for name in self._plan.environments],
            cells=cells,
            models={model.name: self._model(model) for model in self._plan.models},
            schemes={
                checkpoint.scheme_name: scheme_facts(checkpoint.scheme)
                for checkpoint in self._plan.checkpoints
                if checkpoint.scheme is not None
            },
            issues=issues_of(cells, self._judge.diagnoser.issues),
            issue_troubles=contradictions(
                zip(self._plan.cells, cells, strict=True),
                self._judge.diagnoser.issues.values(),
                self._judge.sides.of_cell,
            ),
            new_releases=new_releases(self._loaded.snapshot, self._plan.environments.values()),
        )
        if trust is CanaryState.VOID:
            return result  # what a run says that cannot be believed, holds nowhere
        tried = trials(result, self._loaded.snapshot.packages, self._made_on())
        held = specifiers(tried, self._metadata.declares, self._metadata.versions)
        result = msgspec.structs.replace(result, specifiers=held)
        return with_installs(
            result, self._plan.environments, self._read_solution, self._judge.sides.installed
        )

    def _is_flaky(self, cell: Cell) -> bool:
        if not self._flaky:
            return False
        return any(key and key.value in self._flaky for key in self._judge.keys_of(cell).values())

    def inputs_of_canaries(self) -> dict[str, Inputs]:
        """Return what went into each canary, as far as its steps were observed."""
        thresholds = self._loaded.spec.thresholds
        return {
            cell.id: inputs_of(self._judge.observations(cell.id), thresholds)
            for cell in self._plan.cells
            if cell.canary is not None
        }

    def _model(self, model: Model) -> ModelFacts:
        """Return what is known of a model: by its files where they were inspected, else as asked
        for."""
        inspections = (
            self._judge.observations(cell.id).get(Stage.INSPECT)
            for cell in self._plan.cells
            if cell.checkpoint.model == model and cell.checkpoint.scheme is None
        )
        passed = next((o for o in inspections if o and o.outcome is Outcome.PASSED), None)
        with suppress(msgspec.ValidationError):  # its stage says so
            config = read_facts(passed, Inspection).config if passed else None
            return model_facts(model, config)
        return model_facts(model)

    def _made_on(self) -> dict[str, str]:
        """Return what each environment's quantizers ran on, or else are to run on."""
        devices = {name: self._judge.keys.device(name) for name in self._plan.environments}
        for cell in self._plan.cells:
            imported = self._judge.observations(cell.id).get(Stage.QUANTIZER_IMPORT)
            if imported is not None:
                devices[cell.checkpoint.quantizer.environment] = imported.device
        return devices

    def _environment(self, name: str) -> EnvironmentResult:
        """Return an environment, judged by its stages in the first role that it plays."""
        cells, role = self._standing_on[name], self._role(name)
        first = Stage.QUANTIZER_RESOLVE if role == "quantizer" else Stage.ENGINE_RESOLVE
        place = list(Stage).index(first)
        stands = standings(self._loaded, name, self._read_solution, self._all_that_ran())
        return EnvironmentResult(
            name=name,
            role=role,
            packages=self._judge.sides.packages(name),
            stages=self._judge.cell(cells[0].id).stages[place : place + 3],
            cells=len(cells),
            departures=self._plan.environments[name].departures,
            command=command_of(self._loaded, self._plan, "run", "--environment", name),
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
            cells = [self._judge.cell(cell.id) for cell in self._standing_on[name]]
            came_to = works([c for c in cells if getattr(c, role).environment == name], role)
            solution = self._read_solution(environment)
            if solution is not None and came_to[0] != NOT_RUN:
                ran.append(Ran(environment, solution.packages, *came_to))
        return ran

    def _observations(self) -> list[Observation]:
        of_cells = (self._judge.observations(cell.id).values() for cell in self._plan.cells)
        return list({o.key: o for observations in of_cells for o in observations}.values())


def model_facts(model: Model, config: ConfigFacts | None = None) -> ModelFacts:
    """Return the facts of a model by its ``config.json``, or else by what the spec says of it."""
    repository, revision = (model.recipe.get(name) for name in ("repository", "revision"))
    named = ModelFacts(
        tied=model.tied,
        about=model.about,
        repository=repository if isinstance(repository, str) else "",
        revision=revision if isinstance(revision, str) else "",
    )
    if config is not None and config.model_type:
        return msgspec.structs.replace(
            named,
            model_type=config.model_type,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
        )
    recipe = {"model_type": model.recipe.get("architecture"), **model.recipe, **model.config}
    model_type = recipe["model_type"]
    # A recipe may be of an adapter of the user's own, to which these keys mean something else.
    sizes = {
        name: size
        for name in ("hidden_size", "intermediate_size")
        if isinstance(size := recipe.get(name), int)
    }
    text = model_type if isinstance(model_type, str) else ""
    return msgspec.structs.replace(named, model_type=text, **sizes)


def scheme_facts(scheme: SchemeTable) -> SchemeFacts:
    """Return the parameters of a scheme that are of its method."""
    of_awq = scheme.method == "awq"
    return SchemeFacts(
        method=scheme.method,
        bits=scheme.bits,
        group_size=scheme.group_size,
        zero_point=scheme.zero_point if of_awq else None,
        sym=None if of_awq else scheme.sym,
        desc_act=None if of_awq else scheme.desc_act,
        format=scheme.version.lower() if of_awq else scheme.format.value,
    )


def _machine(used: list[Observation]) -> dict[str, str]:
    """Return what the evidence was made on; several machines are named side by side."""
    # Observations of before each had a machine have it in the facts of the installs.
    machines = [
        observation.made_on or read_facts(observation, InstallFacts).machine
        for observation in used
        if observation.machine or observation.step == "install"
    ]
    fields = {name for machine in machines for name in machine}
    words = {
        name: ", ".join(sorted({str(machine[name]) for machine in machines if name in machine}))
        for name in sorted(fields)
    }
    devices = {observation.device for observation in used if "device" in observation.inputs}
    return {"device": ", ".join(sorted(devices)), **words}
