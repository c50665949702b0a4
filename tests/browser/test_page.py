"""The report as it is looked at: it fits, all can see and reach it, nothing goes wrong."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Locator, Page
from pypdf import PdfReader

from matrix.pipeline.outcomes import Verdict
from matrix.report.addresses import file_of, place_of
from matrix.report.rendering import ICON
from matrix.report.table import SYMBOLS, counts
from tests.browser.conftest import Open, Reports
from tests.browser.reports import TROUBLE, made
from tests.unit.report_results import ARTICLE

AXE = {
    "resultTypes": ["violations"],
    "rules": {"target-size": {"enabled": True}},
    "preload": False,  # it would fetch style sheets again, which the page's policy refuses
}


def a_cell(folder: Path) -> tuple[str, str]:
    """Return the page of a cell of a report, and the cell's place on it."""
    file = min((folder / "cells").glob("*.html"))
    places = ARTICLE.findall(file.read_text())
    return f"cells/{file.name}", f"#{places[-1]}"


def unfold(page: Page) -> None:
    """Open all that is folded."""
    page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")


@pytest.mark.parametrize("name", ["real", "made", "void", "empty"])
def test_nothing_goes_wrong_when_it_is_opened(open_page: Open, name: str) -> None:
    page = open_page(name)
    assert "Quantization compatibility matrix" in page.title()
    unfold(page)


def test_nothing_goes_wrong_when_a_cell_is_opened(open_page: Open, report: Reports) -> None:
    page = open_page("made", *a_cell(report("made")))
    (title,) = page.locator("h1:visible").all()
    assert page.locator("h1").count() > 1
    assert title.inner_text()


def test_a_cell_is_shown_alone_and_leads_to_the_others_of_its_checkpoint(
    open_page: Open, report: Reports
) -> None:
    file, place = a_cell(report("made"))
    page = open_page("made", file)
    assert not page.locator("article:visible").count()
    links = page.get_by_role("navigation", name="Engines").get_by_role("link").all()
    assert len(links) == page.locator("article").count() > 1
    for link in links:
        link.click()
        assert page.locator("article:visible").get_attribute("id") == page.url.partition("#")[2]
    assert page.url.endswith(place)


def test_a_run_of_a_cell_has_an_address_that_shows_it(open_page: Open) -> None:
    (past,) = made().past
    page = open_page("made", file_of(past))
    run = page.locator(f"[id='{place_of(past)}'] .past li").first.get_attribute("id")
    page = open_page("made", file_of(past), f"#{run}")
    assert page.locator("article:visible").get_attribute("id") == place_of(past)


def test_a_report_that_reaches_out_is_caught(open_page: Open, troubles: list[str]) -> None:
    page = open_page("made")
    page.evaluate("new Image().src = 'http://127.0.0.1:9/x'; eval.call(window, '1')")
    page.wait_for_timeout(0)
    assert troubles
    troubles.clear()


@pytest.mark.parametrize("width", [1500, 900, 390])
@pytest.mark.parametrize("name", ["real", "made", "empty", "hostile"])
def test_nothing_is_wider_than_the_window(
    open_page: Open, report: Reports, name: str, width: int
) -> None:
    pages = [("index.html", ""), *([] if name == "empty" else [a_cell(report(name))])]
    for file, place in pages:
        page = open_page(name, file, place, width=width)
        for state in ("as opened", "unfolded"):
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide == page.evaluate("document.documentElement.clientWidth"), (file, state)
            unfold(page)


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, {"width": 390}])
def test_axe_finds_nothing(open_page: Open, report: Reports, options: dict[str, Any]) -> None:
    file, place = a_cell(report("made"))
    audit(open_page("made", **options))
    audit(open_page("made", file, place, **options))
    audit(open_page("made", file, **options))


@pytest.mark.parametrize("name", ["void", "empty"])
def test_axe_finds_nothing_in_rare_reports(open_page: Open, name: str) -> None:
    audit(open_page(name))


def audit(page: Page) -> None:
    """Fail with what axe-core finds in a page of which all is unfolded."""
    unfold(page)
    results = Axe().run(page, options=AXE)
    assert not results.violations_count, results.generate_report()


def test_the_first_screen_has_what_is_looked_for(open_page: Open) -> None:
    page = open_page("real")
    for part in ("#belief", "#changes", "#main-causes", "#chooser"):
        box = page.locator(part).bounding_box()
        assert box is not None
        assert box["y"] < 1000, part


def test_a_void_run_says_first_which_canary(open_page: Open) -> None:
    page = open_page("void")
    box = page.get_by_text(TROUBLE).first.bounding_box()
    assert box is not None
    assert box["y"] < 500


def test_every_link_leads_somewhere(open_page: Open, report: Reports) -> None:
    folder = report("made").resolve()
    for file in ("index.html", a_cell(folder)[0]):
        page = open_page("made", file)
        links = page.evaluate("[...document.querySelectorAll('[href],[src]')].map("
                              "it => it.href || it.src)")  # fmt: skip
        missing = {link for link in links if not leads(link, folder)}
        assert links
        assert not missing


def leads(link: str, folder: Path) -> bool:
    """Return whether a link is to a file of the report, and to a place in it where it says one."""
    address = urlsplit(link)
    if address.scheme == "https" or link == ICON:
        return True
    target = Path(unquote(address.path))
    if folder not in target.parents or not target.is_file():
        return False
    place = unquote(address.fragment)
    return (
        not place
        or "=" in place  # a filter, which the script reads
        or f'id="{place}"' in target.read_text(encoding="utf-8")
    )


def test_pictures_are_shown(open_page: Open) -> None:
    page = open_page("made")
    pictures = page.locator("img")
    assert pictures.count() == 4
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        assert picture.get_attribute("alt")
        page.wait_for_function("it => it.complete", arg=picture.element_handle())
        assert picture.evaluate("it => it.naturalWidth") > 0


def test_all_is_reached_without_scripts(open_page: Open) -> None:
    page = open_page("made", java_script_enabled=False)
    cells = made().result.cells
    links = page.locator("table a[href^='cells/']")
    addresses = {link.get_attribute("href") for link in links.all()}
    assert len(addresses) == len(cells)
    assert not page.locator("form:visible").count()  # they would do nothing
    first = page.locator("table.grid td > a").first
    first.click()
    assert "/cells/" in page.url
    assert page.locator("h1:visible").count() == 1
    page.get_by_role("link", name="The matrix").click()
    assert "/index.html" in page.url


def test_it_prints_with_all_its_words(open_page: Open) -> None:
    page = open_page("made")
    printed = PdfReader(BytesIO(page.pdf(prefer_css_page_size=True)))
    words = " ".join(" ".join(sheet.extract_text() for sheet in printed.pages).split())
    numbers = counts(made().result.cells)
    for verdict in Verdict:
        if numbers[verdict]:
            assert f"{numbers[verdict]} {SYMBOLS[verdict]} {verdict}" in words
    # Each cell that works has a square; those that never got to an engine share one.
    assert words.count(SYMBOLS[Verdict.WORKS]) >= numbers[Verdict.WORKS]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_verdicts_are_told_apart_without_colour_and_without_symbols(
    open_page: Open, scheme: str
) -> None:
    page = open_page("real", color_scheme=scheme)
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setEmulatedVisionDeficiency", {"type": "achromatopsia"})
    grey = {}
    for verdict in (Verdict.WORKS, Verdict.GARBAGE, Verdict.BROKEN):
        square = page.locator(f"table.grid td > a.{verdict}:visible").first
        square.evaluate("it => it.style.color = 'transparent'")
        grey[verdict] = shot(square)
    for one, other in [("works", "broken"), ("works", "garbage"), ("broken", "garbage")]:
        first, second = grey[Verdict(one)], grey[Verdict(other)]
        assert np.abs(first - second).mean() > 12, (one, other)


def shot(square: Locator) -> Any:
    """Return what a square looks like, as 16 by 16 numbers from black to white."""
    with Image.open(BytesIO(square.screenshot())) as picture:
        return np.asarray(picture.convert("L").resize((16, 16)), dtype=float)
