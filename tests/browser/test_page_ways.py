"""Ways through the page: back from a story, from a head to its cells, from a choice to a line."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.test_page_use import SQUARES, labels


def test_a_story_leads_back_to_the_table(open_page: Open) -> None:
    page = open_page("made")
    page.locator(SQUARES).first.click()
    page.locator("dialog iframe").content_frame.get_by_role("link", name="The matrix").click()
    expect(page.locator("dialog[open]")).to_have_count(0)
    assert page.url.endswith("#table")


def test_a_click_on_a_head_shows_its_cells_alone(open_page: Open) -> None:
    page = open_page("made")
    head = page.locator("table.grid th[data-engine='vllm-0.32.0']").first
    head.click()
    assert {label.partition(" in ")[2].partition(",")[0] for label in labels(page)} == {
        "vllm-0.32.0"
    }
    assert "engine=vllm-0.32.0" in page.url
    head.click()
    expect(page.locator("form.filter output")).to_have_text("208 of 208 cells.")


def test_heads_are_reached_and_used_by_keys(open_page: Open) -> None:
    page = open_page("made")
    row = page.locator("table.grid tr[data-quantizer]").first
    row.locator("td > a").first.focus()
    focused = "document.activeElement.dataset.engine || document.activeElement.scope"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focused) == "row"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    engine = page.evaluate(focused)
    assert labels(page)[0].startswith(("works", "garbage", "degraded"))
    for key, chosen in (("Enter", engine), (" ", "")):
        page.keyboard.press(key)
        assert page.locator("form.filter select[name=engine]").input_value() == chosen
        assert page.evaluate(focused) == engine
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) not in (engine, "row")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('href')") == row.locator(
        "td > a"
    ).first.get_attribute("href")


def test_what_works_is_told_since_when_and_with_the_line_that_installs_it(open_page: Open) -> None:
    page = open_page("made")
    page.locator("#chooser select[name=of]").select_option("tied")
    page.locator("#chooser select[name=by]").select_option("autoawq-0.2.9+transformers-4.51.3")
    (line,) = page.locator("#chooser .since", has_text="vllm").all()
    expect(line).to_contain_text("vllm-0.32.0, as each that was tried since vllm-0.19.1: uv venv")
    expect(line.get_by_role("link", name="lock")).to_have_attribute("href", "locks/vllm-0.32.0.txt")


def test_what_fails_is_told_with_the_command_that_repairs_what_can_be(open_page: Open) -> None:
    page = open_page("made")
    page.locator("#chooser select[name=of]").select_option("tied")
    page.locator("#chooser select[name=by]").select_option("autoawq-0.2.7+transformers-4.47.1")
    expect(page.locator("#chooser", has_text="This file: ").first).to_contain_text(
        "This file: write it matrix repair FOLDER --out COPY makes the repairs that it knows"
    )


def test_squares_of_one_story_are_counted_once(open_page: Open) -> None:
    page = open_page("real")
    addresses = page.locator("table.grid a").evaluate_all("all => all.map(it => it.href)")
    assert len(set(addresses)) < len(addresses)  # in several tables
    expect(page.locator("form.filter output")).to_contain_text(f"of {len(set(addresses))} cells")
