"""Whatever packages, models and logs say, a browser runs none of it and adds no element for it."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Reports

TAGS = "[...document.querySelectorAll('*')].map(it => it.localName)"


def tags_of(*files: Path) -> set[str]:
    """Return which elements the pages of good records have."""
    return {tag for file in files for tag in re.findall(r"<([a-z]\w*)", file.read_text())}


def harmless(page: Page, tags: set[str], scripts: int) -> None:
    """Fail where a page has elements that those of good records have not, or something ran."""
    assert page.evaluate("window.planted") is None
    assert set(page.evaluate(TAGS)) <= tags
    assert page.evaluate("document.scripts.length") == scripts
    assert not page.evaluate(
        "[...document.querySelectorAll('*')].filter("
        "it => [...it.attributes].some(own => own.name.startsWith('on'))).length"
    )
    assert not page.locator("[href^='javascript:'], [src^='javascript:']").count()


def test_nothing_in_the_page_runs(open_page: Open, report: Reports) -> None:
    page = open_page("hostile")
    assert "window.planted" in page.locator("body").inner_text()
    harmless(page, tags_of(report("made") / "index.html"), scripts=1)


def test_nothing_runs_where_the_script_makes_elements(open_page: Open, report: Reports) -> None:
    page = open_page("hostile")
    for select in page.locator("#chooser select").all():
        for option in select.locator("option").all()[:8]:
            select.select_option(option.get_attribute("value"))
    square = page.locator("table.grid td > a:visible").first
    square.hover()
    page.get_by_label("Filter").fill("planted")
    square.click()
    expect(page.frame_locator("dialog[open] iframe").locator("article:target h1")).to_be_visible()
    harmless(page, {*tags_of(report("made") / "index.html"), "iframe"}, scripts=1)


def test_nothing_in_a_cells_page_runs(open_page: Open, report: Reports) -> None:
    tags = tags_of(*(report("made") / "cells").glob("*.html"))
    for file in sorted((report("hostile") / "cells").glob("*.html"))[:10]:
        harmless(open_page("hostile", f"cells/{file.name}"), tags, scripts=0)
