"""The pages of the cells: of each its verdict and cause, what to do, and all that was observed.

A page has the cells of one checkpoint, and shows the cell that its address names. It needs no
script, and is the same whatever the cells' order. There may be 20,000 of them: what cells share,
such as a side or a known issue, is rendered once.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

from markupsafe import Markup

from matrix.judge.results import CellResult, ModelFacts, Side
from matrix.judge.stories import CellStory, StageStory
from matrix.pipeline.outcomes import Judgement, Outcome, Verdict
from matrix.pipeline.steps import STAGES, Stage, SubjectKind
from matrix.report import table
from matrix.report.addresses import CELLS, file_of, place_of
from matrix.report.fragments import PAGES, TEMPLATES, rendered_once
from matrix.report.locks import all_lines, install_lines
from matrix.report.material import Material
from matrix.report.reproducers import Reproducers
from matrix.spec.loading import FLOAT_MODEL
from matrix.untrusted.text import natural

STYLE = f"{CELLS}/cell.css"
FIRST = "<!doctype html><!-- a cell of the quantization compatibility matrix -->"
"""How each page begins, by which one of an earlier report is recognised."""
ALTERNATIVES = 3
"""How many quantizers, and how many engines, are named that work instead."""

Place = tuple[str, str, str]
"""A model, a scheme, and the name of a side."""


def cell_files(material: Material) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each page of cells, and of the pages' style.

    The material's result is normalised.
    """
    pages, cells = _Pages(material), material.result.cells
    if cells:
        yield STYLE, (TEMPLATES / "cell.css").read_bytes()
    for name, own in table.grouped(cells, lambda cell: file_of(cell.id)).items():
        yield name, pages.page(own).encode()


class _Pages:
    """Renders the pages of one result."""

    def __init__(self, material: Material) -> None:
        result = material.result
        self._material, self._result = material, result
        self._reproducers = Reproducers(result)
        self._page = PAGES.get_template("cells.html.j2")
        self._template = PAGES.get_template("cell.html.j2")
        self._parts = cast("Any", PAGES.get_template("cell_parts.html.j2").module)  # has macros
        self._side, self._checks = (
            rendered_once(self._parts.side),
            rendered_once(self._parts.checks),
        )
        self._stage = functools.cache(self._parts.stage)
        self._left_by_files = rendered_once(self._parts.left)
        self._cause, self._answered = (
            rendered_once(self._caused),
            rendered_once(self._parts.answered),
        )
        self._ran = rendered_once(self._parts.ran)
        self._departed, self._installed = (
            rendered_once(self._parts.departed),
            rendered_once(self._parts.installs),
        )
        self._badges = {verdict: self._parts.badge(verdict) for verdict in Verdict}
        self._issues = {name: self._parts.issue(entry) for name, entry in result.issues.items()}
        self._locks, self._installs = all_lines(result), install_lines(result)
        good = [cell for cell in result.cells if cell.verdict is Verdict.WORKS]
        self._by_engine = table.grouped(good, lambda cell: _place(cell, cell.engine))
        self._by_quantizer = table.grouped(good, lambda cell: _place(cell, cell.quantizer))
        repaired = [cell for cell in good if cell.quantizer.repairs]
        self._repaired = table.grouped(repaired, _place_by_environment)
        self._alike = Counter(cell.group for cell in result.cells)
        self._others_in = functools.cache(self._quantizers_that_work)
        self._others_by = functools.cache(self._engines_that_work)

    def page(self, cells: list[CellResult]) -> str:
        """Return the page of the cells of one checkpoint."""
        return self._page.render(
            first=Markup(FIRST),
            cell=cells[0],
            told=[(place_of(cell.id), cell, Markup(self._told(cell))) for cell in cells],
            badges=self._badges,
        )

    def _told(self, cell: CellResult) -> str:
        """Return what a page tells of one cell."""
        story, result = self._material.story(cell.id), self._result
        stories = {stage.stage: stage for stage in story.stages}
        named = (finding for finding in cell.findings if finding.check == cell.explained_by)
        works = cell.verdict is Verdict.WORKS
        whys = {name: result.departures.get(name, "not explained") for name in cell.departures}
        return self._template.render(
            cell=cell,
            place=place_of(cell.id),
            past=self._material.past.get(cell.id, ()),
            badges=self._badges,
            cause=self._cause(
                cell.message,
                cell.stage,
                cell.reason,
                cell.blame,
                cell.group,
                next(named, None) if cell.explained_by else None,
                self._alike[cell.group],
                cell.issue,
                cell.looks_like,
            ),
            instead="" if works else self._what_works_instead(cell),
            installs=self._install(cell) if works else "",
            answered=self._answered(cell.expected, cell.output),
            staged=self._staged(cell, stories),
            checked=self._checked(cell),
            left=self._left(cell, stories),
            quantizer=self._shown_side("Quantizer", cell.quantizer, works=works),
            engine=self._shown_side("Engine", cell.engine, works=works),
            ran=self._ran(
                _about(cell.model, result.models.get(cell.model)),
                table.ran(cell),
                cell.device,
                cell.made_on,
                _machine(story),
            ),
            departures=self._departed(whys),
            script=self._reproducers.script(cell) or "",
        )

    def _caused(self, *values: Any) -> Markup:
        *others, issue, looks_like = values
        issues = self._issues.get(issue), self._issues.get(looks_like)
        return cast("Markup", self._parts.cause(*others, *issues))

    def _shown_side(self, title: str, side: Side, *, works: bool) -> Markup:
        return self._side(title, side, self._locks.get(side.environment), works)

    def _staged(self, cell: CellResult, stories: dict[Stage, StageStory]) -> Markup:
        """Return the rows of the stages."""
        rows = []
        for result in cell.stages:
            story = stories.get(result.stage, StageStory(stage=result.stage))
            seconds = cell.timings.get(result.stage)
            rows.append(self._stage(result, seconds, story.peak_bytes, story.at))
        return Markup("".join(rows))

    def _checked(self, cell: CellResult) -> Markup:
        """Return the rows of the checks that apply; of a checkpoint, many cells have the same."""
        applied = [f for f in cell.findings if f.judgement is not Judgement.NOT_APPLICABLE]
        by_stage = table.grouped(applied, lambda finding: finding.stage)
        return Markup("".join(map(self._checks, by_stage.values())))

    def _left(self, cell: CellResult, stories: dict[Stage, StageStory]) -> Markup:
        """Return what was left by the stages that did not pass, and by those of files and cells."""
        blocks = []
        for result in cell.stages:
            story, subject = stories.get(result.stage), STAGES[result.stage].subject
            passed = result.outcome is Outcome.PASSED
            if story is None or (passed and subject is SubjectKind.ENVIRONMENT):
                continue
            if story.exception or story.traceback or story.warnings or story.log:
                render = self._parts.left if subject is SubjectKind.CELL else self._left_by_files
                blocks.append(render(story, not passed))
        return Markup("".join(blocks))

    def _install(self, cell: CellResult) -> Markup:
        """Return how to install both sides of a cell that works."""
        sides = {"To quantize": cell.quantizer, "To load": cell.engine}
        if cell.quantizer.name == FLOAT_MODEL:
            del sides["To quantize"]
        lines = {title: self._installs.get(side.environment) for title, side in sides.items()}
        return self._installed({title: line.line for title, line in lines.items() if line})

    def _what_works_instead(self, cell: CellResult) -> Markup:
        """Return what does in place of a cell that does not work: a repair, another side."""
        if cell.quantizer.name == FLOAT_MODEL:
            return Markup()
        in_engine = _place(cell, cell.engine)
        same = [] if cell.quantizer.repairs else self._repaired.get(_place_by_environment(cell), [])
        repairs = map(self._parts.repaired, same)
        others = [self._others_in(in_engine), self._others_by(_place(cell, cell.quantizer))]
        return Markup("".join([*repairs, *others]))

    def _quantizers_that_work(self, key: Place) -> Markup:
        cells = [cell for cell in self._by_engine.get(key, []) if not cell.quantizer.repairs]
        return self._newest("Quantize by, for this engine", cells, "quantizer")

    def _engines_that_work(self, key: Place) -> Markup:
        cells = self._by_quantizer.get(key, [])
        return self._newest("Load such a checkpoint in", cells, "engine")

    def _newest(self, title: str, cells: list[CellResult], role: str) -> Markup:
        """Return cells that work with how to install a side of them, an environment once."""
        in_order = sorted(cells, key=lambda cell: natural(getattr(cell, role).name), reverse=True)
        distinct: dict[str, CellResult] = {}
        for cell in in_order:
            distinct.setdefault(getattr(cell, role).environment, cell)
        newest = list(distinct.values())[:ALTERNATIVES]
        links: Markup = self._parts.links(title, newest, role, self._installs)
        return links


def _place(cell: CellResult, side: Side) -> Place:
    return cell.model, cell.scheme, side.name


def _place_by_environment(cell: CellResult) -> tuple[str, ...]:
    return cell.model, cell.scheme, cell.engine.name, cell.quantizer.environment


def _about(name: str, facts: ModelFacts | None) -> str:
    """Return in words what a model is, as far as that is said."""
    where = f"{facts.repository}, from the Hugging Face Hub" if facts and facts.repository else ""
    about = facts.about if facts and facts.about else where
    return f"{name}: {about}" if about else name


def _machine(story: CellStory) -> str:
    """Return in words the machine on which the last stage of a cell was observed."""
    machine = story.stages[-1].machine if story.stages else {}
    return "; ".join(f"{name}: {value}" for name, value in sorted(machine.items()))
