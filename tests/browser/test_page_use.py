"""What can be done with the page: by keys, by filters and by the chooser."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import Open

FOCUSED = "document.activeElement.getAttribute('href')"
SQUARES = "table.grid td > a"


def count(page: Page) -> str:
    """Return what the filter says of how many cells are shown."""
    return page.locator("form.filter output").inner_text()


def shown(page: Page) -> set[str]:
    """Return the cells that the tables show."""
    return set(page.locator(f"{SQUARES}:visible").evaluate_all("all => all.map(it => it.href)"))


def labels(page: Page) -> list[str]:
    """Return what is said of the squares that are shown."""
    squares = page.locator(f"{SQUARES}:visible")
    return list(squares.evaluate_all("all => all.map(it => it.getAttribute('aria-label'))"))


def test_each_table_is_one_tab_stop(open_page: Open) -> None:
    page = open_page("real")
    for table in page.locator("table.grid").all():
        stops = table.evaluate(
            "it => [...it.querySelectorAll('a, button, summary, input, [tabindex]')]"
            ".filter(own => own.tabIndex >= 0 && own.checkVisibility()).length"
        )
        assert stops == 1


def test_arrows_move_in_the_table(open_page: Open) -> None:
    page = open_page("made")
    row = page.locator("table.grid tr[data-quantizer]").first
    own = row.locator("td > a").evaluate_all("all => all.map(it => it.getAttribute('href'))")
    row.locator("td > a").first.focus()
    for expected in own[1:3]:
        page.keyboard.press("ArrowRight")
        assert page.evaluate(FOCUSED) == expected
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(FOCUSED) == own[1]
    page.keyboard.press("End")
    assert page.evaluate(FOCUSED) == own[-1]
    page.keyboard.press("Home")
    assert page.evaluate(FOCUSED) == own[0]
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('tr').rowIndex") > row.evaluate(
        "it => it.rowIndex"
    )
    page.keyboard.press("ArrowUp")
    assert page.evaluate(FOCUSED) == own[0]
    page.keyboard.press("Tab")
    assert not page.evaluate("!!document.activeElement.closest('table.grid tbody td')")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(FOCUSED) == own[0]  # back at the same square


def test_a_story_opens_and_gives_the_focus_back(open_page: Open) -> None:
    page = open_page("made")
    square = page.locator(SQUARES).nth(5)
    address = square.get_attribute("href")
    square.focus()
    page.keyboard.press("Enter")
    story = page.locator("dialog[open]")
    expect(story).to_be_visible()
    heading = story.frame_locator("iframe").locator("article:target h1")
    expect(heading).to_be_visible()
    page.keyboard.press("Escape")
    expect(story).to_have_count(0)
    assert page.evaluate(FOCUSED) == address
    page.keyboard.press("Enter")
    expect(heading).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(story).to_have_count(0)
    assert page.evaluate(FOCUSED) == address


def test_a_filter_hides_counts_and_lives_in_the_address(open_page: Open) -> None:
    page = open_page("real")
    whole = shown(page)
    page.get_by_label("Filter").fill("own-loader 4.51")
    some = shown(page)
    assert 0 < len(some) < len(whole)
    assert all("own-loader" in label for label in labels(page))
    number, _, total = count(page).partition(" of ")
    assert 0 < int(number) < int(total.split()[0])
    again = open_page("real", hash_=page.evaluate("location.hash"))
    assert shown(again) == some
    assert count(again) == count(page)
    assert again.get_by_label("Filter").input_value() == "own-loader 4.51"


def test_a_filter_by_verdict_shows_no_other(open_page: Open) -> None:
    page = open_page("real")
    verdicts = page.locator("input[name=verdict]")
    for box in verdicts.all():
        box.set_checked(box.get_attribute("value") == "garbage")
    assert {label.partition(":")[0] for label in labels(page)} == {"garbage"}
    again = open_page("real", hash_=page.evaluate("location.hash"))
    assert shown(again) == shown(page)


def test_a_filter_that_nothing_matches_says_so(open_page: Open) -> None:
    page = open_page("made")
    page.get_by_label("Filter").fill("nothing-is-called-so")
    assert not shown(page)
    assert count(page).startswith("0 of ")
    assert "No cell matches" in count(page)
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("form.filter output")).not_to_contain_text("No cell matches")
    assert shown(page)


def test_a_cause_leads_to_its_cells(open_page: Open) -> None:
    page = open_page("real")
    link = page.locator("#main-causes a").first
    cells = int(link.inner_text().split()[0])
    link.click()
    expect(page.locator("form.filter output")).to_contain_text(f"{cells} of ")


def test_the_chooser_says_who_reads_it_why_not_and_what_to_do(open_page: Open) -> None:
    page = open_page("real")
    release = "autoawq-0.2.7+transformers-4.46.3"
    page.locator("#chooser select[name=of]").select_option("twin-tied")
    page.locator("#chooser select[name=by]").select_option(release)
    says_garbage_in_vllm(page)
    again = open_page("real", hash_=page.evaluate("location.hash"))
    assert again.locator("#chooser select[name=by]").input_value() == release
    says_garbage_in_vllm(again)


def says_garbage_in_vllm(page: Page) -> None:
    """Fail unless the chooser's answer has garbage in vLLM, a reason, and what to do."""
    case = page.locator("#chooser .answer .case").filter(has_text="garbage").first
    words = case.inner_text()
    assert "vllm" in words
    assert "Why:" in words
    assert "Fix:" in words
    works = page.locator("#chooser .answer .case").filter(has_text="works in").first
    assert "transformers" in works.inner_text()
