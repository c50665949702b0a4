"""The two sides of a cell: their environments as installed, or else as asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from matrix.judge.results import Side
from matrix.plan.cell_steps import install_of
from matrix.plan.cells import Cell, Plan, Role
from matrix.plan.keys import Keys
from matrix.spec.loading import LoadedSpec
from matrix.store.facts import InstallFacts, departures_used, read_facts
from matrix.store.observations import Observation


class Installed(NamedTuple):
    """What is installed for a cell: distribution -> version, empty where nothing is."""

    quantizer: Mapping[str, str]
    engine: Mapping[str, str]


class Sides:
    """The environments of a plan in the roles that they play, by what was observed of them."""

    def __init__(self, loaded: LoadedSpec, plan: Plan, keys: Keys) -> None:
        declared = loaded.spec.departures
        self._only_where_used = {name for name in declared if declared[name].only_where_used}
        self._plan = plan
        self._keys = keys

    def side(self, role: Role) -> Side:
        """Return one side of a cell, spelled out."""
        facts = self._facts(role.environment)
        return Side(
            name=role.name,
            environment=role.environment,
            packages=self.packages(role.environment),
            torch=facts.torch,
            python=facts.python or self._plan.environments[role.environment].python,
            options=role.options,
            environ=role.environ,
            axes=self._plan.environments[role.environment].axes,
            adapter=role.adapter.stem,
            repairs=[str(name) for name in role.repairs],
        )

    def installed(self, environment: str) -> dict[str, str]:
        """Return all that is installed in an environment, with versions; empty where nothing is."""
        return self._facts(environment).versions

    def of_cell(self, cell: Cell) -> Installed:
        """Return what is installed in both environments of a cell."""
        roles = (cell.checkpoint.quantizer, cell.engine)
        return Installed(*(self.installed(role.environment) for role in roles))

    def packages(self, environment: str) -> dict[str, str]:
        """Return the environment's top packages, as installed or else as asked for."""
        versions = self.installed(environment)
        texts = self._plan.environments[environment].requirements
        return {
            requirement.name: versions.get(
                canonicalize_name(requirement.name), str(requirement.specifier).lstrip("=")
            )
            for requirement in map(Requirement, texts)
        }

    def departures(self, cell: Cell, observations: Iterable[Observation]) -> list[str]:
        """Return how a cell departs from stock packages, as declared or as it really came."""
        roles = (cell.checkpoint.quantizer, cell.engine)
        environments = (self._plan.environments[role.environment] for role in roles)
        declared = {name for role in roles for name in role.departures}
        declared |= {name for environment in environments for name in environment.departures}
        used = {name for observation in observations for name in departures_used(observation)}
        return sorted(declared - (self._only_where_used - used))

    def _facts(self, environment: str) -> InstallFacts:
        install = self._keys.passed(self._keys.of(install_of(environment)))
        return read_facts(install, InstallFacts) if install else InstallFacts()
