"""The app of tests/app/driven.py, and pages of it."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import browser
import pytest
from app.driven import App, Page, serving


@pytest.fixture(scope="session")
def tiny(tiny_prior, tmp_path_factory) -> Path:
    """The folder of tiny configs, and of files to upload."""
    pytest.importorskip("gradio", reason="there is no gradio: pip install 'latent_prior[app]'")
    from app import tiny_app

    folder = tmp_path_factory.mktemp("tiny_app")
    tiny_app.write(folder, tiny_prior)
    return folder


@pytest.fixture(scope="module")
def app(tiny, tmp_path_factory) -> Iterator[App]:
    """A server for all tests of a module."""
    with serving(tiny, tmp_path_factory.mktemp("outputs")) as app:
        yield app


@pytest.fixture
def opened(chromium, app):
    """Opens pages, each in a session of its own; checks that they asked nothing of other hosts."""
    with ExitStack() as stack:
        pages = []

        def open_page(of: App = app, **options) -> Page:
            pages.append(stack.enter_context(browser.page(chromium, **options)))
            return Page(pages[-1], of)

        yield open_page
        for lock in app.out.glob("*/*/.lock"):  # a test that failed leaves nothing for the next one to wait for
            with suppress(OSError, ValueError):
                os.kill(json.loads(lock.read_text())["process"], signal.SIGTERM)
        assert [url for page in pages for url in page.outside] == []
