"""The report in a real browser: Chromium, without a network, on addresses of files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Page,
    Request,
    sync_playwright,
)

from tests.browser.reports import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip
Open = Callable[..., Page]
Reports = Callable[[str], Path]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Yield the browser of this machine, with a profile that is thrown away."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.fail(f"none of {', '.join(BROWSERS)} is on the PATH: on Debian, "
                    "`apt-get install chromium` gets one")  # fmt: skip
    with sync_playwright() as playwright:
        # Its sandbox needs rights that a container does not have; what is opened is our own.
        yield playwright.chromium.launch(
            executable_path=program, args=FLAGS, chromium_sandbox=False
        )


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """Return a function from the name of a report to the folder into which it is written once."""

    @cache
    def written(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        write_report(name, folder)
        return folder

    return written


@pytest.fixture
def troubles() -> list[str]:
    """Return the list into which goes what must not happen while a page is open."""
    return []


@pytest.fixture
def open_page(browser: Browser, report: Reports, troubles: list[str]) -> Iterator[Open]:
    """Yield a function that opens a page of a report.

    The test fails where a page says an error on the console, such as one of its policy, raises
    one, opens a dialog of the browser, or wants anything that is no file.
    """
    contexts = []

    def opened(
        name: str, file: str = "index.html", hash_: str = "", width: int = 1500, **options: Any
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 1000 if width > 800 else 844}, offline=True,
            **options,
        )  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        watch(page, troubles)
        page.goto(f"{(report(name) / file).as_uri()}{hash_}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not troubles


def watch(page: Page, troubles: list[str]) -> None:
    """Write down what must not happen in a page."""

    def console(line: ConsoleMessage) -> None:
        if line.type == "error":  # such as what the page's policy refuses
            troubles.append(line.text)

    def request(wanted: Request) -> None:
        if not wanted.url.startswith("file:"):
            troubles.append(f"request: {wanted.url}")

    def dialog(opened: Dialog) -> None:
        troubles.append(f"dialog: {opened.message}")
        opened.dismiss()

    page.on("console", console)
    page.on("dialog", dialog)
    page.on("request", request)
    page.on("requestfailed", lambda wanted: troubles.append(f"failed: {wanted.url}"))
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
