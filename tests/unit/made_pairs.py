"""A made-up spec of pairs with its snapshot, and a resolver that answers of them as told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from matrix.environments.locks import Lock
from matrix.environments.resolving import Resolved, conclusion_of
from matrix.pipeline.outcomes import Conclusion, Outcome, Reason
from matrix.spec.loading import LoadedSpec, load
from matrix.spec.pairs import Pair, Pairs
from matrix.spec.snapshot import Release, Snapshot, SourceMetadata, encode
from matrix.spec.tables import Environment
from tests.unit import small_spec

AS_OF = "2026-11-30T00:00:00Z"
TABLE = '[pairs]\nmaker = { since = "1.0" }\nrunner = { since = "2.0" }\n'
CLASH = """error: No solution found when resolving dependencies
  cause: Because runner==3.0 depends on torch==2.1 and maker>=2.0 depends on
         torch{platform_machine == 'x86_64'}>=2.2, we can conclude that they are incompatible.
         And because you require maker==2.0 and runner==3.0, your requirements are unsatisfiable.
"""
BOTH_NEWEST = "maker==2.0 runner==3.0"
TAKEN = {"maker>=1.0 runner==3.0": "1.0"}
PAIRS_MADE = Pairs(
    1, AS_OF, {"maker": "1.0", "runner": "2.0"},
    [
        Pair("maker", "2.0", "runner", "3.0", refusal="maker wants <b>torch</b>"),
        Pair("maker", "1.0", "runner", "3.0"),
        Pair("runner", "3.0", "maker", "2.0", refusal="runner wants torch==2.1", instead="1.0"),
    ],
)  # fmt: skip


def write(folder: Path, table: str = TABLE) -> Path:
    """Write a spec with pairs and its snapshot, in which a release of ``runner`` has no wheel."""
    release = SourceMetadata(["torch==2.1"], "PKG-INFO")
    packages = {
        "maker": [Release("1.0", wheels=["py3-none-any"]), Release("2.0", wheels=["py3-none-any"])],
        "runner": [
            Release("1.0", wheels=["py3-none-any"]),
            Release("2.0", sdist=True, source=release),
            Release("3.0", wheels=["py3-none-any"]),
        ],
    }
    (folder / "releases.json").write_bytes(encode(Snapshot(1, AS_OF, packages)))
    return small_spec.write(folder, ("[models.tied]", f"{table}\n[models.tied]"))


def loaded(folder: Path, table: str = TABLE) -> LoadedSpec:
    """Return that spec, read."""
    return load(write(folder, table))


def resolver(
    taken: dict[str, str], troubles: Iterable[str] = ()
) -> tuple[Callable[[Iterable[Environment]], Iterator[Resolved]], list[str]]:
    """Return a resolver, and the requirements of what it is asked, in order.

    It refuses 2.0 of ``maker`` beside 3.0 of ``runner``, and where it may choose all but what is
    given in ``taken``: requirements -> the version that it takes.
    """
    asked_for: list[str] = []

    def resolve(environments: Iterable[Environment]) -> Iterator[Resolved]:
        for environment in environments:
            requirements = " ".join(environment.requirements)
            asked_for.append(requirements)
            if environment.name in troubles:
                trouble = Conclusion(Outcome.INFRA, Reason.NETWORK, "the index is down\n")
                yield Resolved(environment, None, trouble)
                continue
            is_exact = ">=" not in requirements
            refused = requirements == BOTH_NEWEST if is_exact else requirements not in taken
            pins = [
                re.sub(">=.*", f"=={taken.get(requirements, '')}", item)
                for item in environment.requirements
            ]
            lock = Lock("", CLASH) if refused else Lock("\n".join(pins))
            yield Resolved(environment, lock, conclusion_of(lock))

    return resolve, asked_for
