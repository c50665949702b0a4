"""Whatever packages, models and logs say, a browser runs none of it and adds no element for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Open

TAGS = "[...new Set([...document.querySelectorAll('*')].map(it => it.tagName))]"
Reports = Callable[[str], Path]


def harmless(page: Page, benign: Page) -> None:
    """Fail where a page has what the same page of good records has not, or something ran."""
    assert page.evaluate("window.planted") is None
    assert set(page.evaluate(TAGS)) <= set(benign.evaluate(TAGS))
    assert page.evaluate("document.scripts.length") == benign.evaluate("document.scripts.length")
    assert not page.evaluate(
        "[...document.querySelectorAll('*')].filter("
        "it => [...it.attributes].some(own => own.name.startsWith('on'))).length"
    )
    assert not page.locator("[href^='javascript:'], [src^='javascript:']").count()


def test_nothing_in_the_page_runs(open_page: Open) -> None:
    page, benign = open_page("hostile"), open_page("made")
    harmless(page, benign)
    assert "window.planted" in page.locator("body").inner_text()


def test_nothing_runs_where_the_script_makes_elements(open_page: Open) -> None:
    page, benign = open_page("hostile"), open_page("made")
    for own in (page, benign):
        for select in own.locator("#chooser select").all():
            for option in select.locator("option").all()[:8]:
                select.select_option(option.get_attribute("value"))
        square = own.locator("table.grid td > a:visible").first
        square.hover()
        own.get_by_label("Filter").fill("planted" if own is page else "tied")
        square = own.locator("table.grid td > a:visible").first
        square.click()
        expect(own.frame_locator("dialog[open] iframe").locator("h1")).to_be_visible()
        own.keyboard.press("Escape")
    harmless(page, benign)


def test_nothing_in_a_cells_page_runs(open_page: Open, report: Reports) -> None:
    pages = {name: sorted((report(name) / "cells").glob("*.html")) for name in ("hostile", "made")}
    benign = open_page("made", f"cells/{pages['made'][0].name}")
    for other in pages["made"][1:20]:
        benign.evaluate("it => document.body.append(...new DOMParser()"
                        ".parseFromString(it, 'text/html').body.children)", other.read_text())  # fmt: skip
    for file in pages["hostile"][:10]:
        harmless(open_page("hostile", f"cells/{file.name}"), benign)
