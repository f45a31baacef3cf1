"""A real browser for tests: Debian's Chromium, driven by Playwright. Skips with the reason where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# WebGL without a GPU
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE = 120_000  # milliseconds, of a machine that is busy with other things


def missing() -> str:
    """Why there is no browser; empty if there is one."""
    if shutil.which("chromium") is None:
        return "there is no chromium: apt-get install chromium"
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "there is no playwright: pip install playwright"
    return ""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser, headless, for all tests of a module; each takes its own pages. Skips where there is none.

    It ends with its module: as long as Playwright runs, no other event loop may.
    """
    if reason := missing():
        pytest.skip(reason)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page(browser: Any, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Any]:
    """A page in a session of its own.

    Its attribute `outside` lists what it asked of other hosts than this machine, `errors` those of its scripts.
    """
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    opened.outside, opened.errors = [], []
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.on("console", lambda message: opened.errors.append(message.text) if message.type == "error" else None)
    opened.on("request", lambda request: opened.outside.append(request.url) if _is_outside(request.url) else None)
    try:
        yield opened
    finally:
        context.close()


def _is_outside(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "http://localhost:", "file:", "data:", "blob:", "about:"))
