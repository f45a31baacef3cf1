"""The pages opened from disk in a real browser."""

import contextlib
import io

import browser
import numpy as np
import pytest
from latent_prior import report
from PIL import Image
from run_folders import write_evaluation, write_film, write_run

pytestmark = pytest.mark.slow
SIZES = (1600, 400)  # pixels wide

OVERLAPPING = """() => {
  const kinds = "h1, h2, h3, p, dt, dd, figcaption, th, td, pre, li > a, label, figure > img, figure > iframe, video";
  const shown = [...document.querySelectorAll(kinds)]
    .filter((e) => e.checkVisibility() && !e.closest("svg, .compare, .strip"))
    .map((e) => [e, e.getBoundingClientRect()]);
  const meet = (p, q) => p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1;
  const found = [];
  for (const [a, p] of shown)
    for (const [b, q] of shown)
      if (!a.contains(b) && !b.contains(a) && meet(p, q))
        found.push(`${a.outerHTML.slice(0, 60)} / ${b.outerHTML.slice(0, 60)}`);
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) found.push(`${width} wide`);
  return found;
}"""


@contextlib.contextmanager
def opened(chromium, folder, width=SIZES[0], dark=False):
    """The page of a folder, which loads nothing and whose scripts have no errors."""
    with browser.page(chromium, width, 900, dark) as page:
        page.goto((folder / "report.html").as_uri())
        page.wait_for_load_state()
        yield page
        assert page.errors == [] and page.outside == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("run") / "run")
    write_film(run / "save" / "it20-test.mp4")
    report.write(run)
    return run


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    out = write_evaluation(tmp_path_factory.mktemp("gallery") / "out")
    report.write(out)
    return out


def pixels(element):
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def overlapping(page):
    """Pairs of texts and pictures that lie over one another, and what is wider than the window."""
    return page.evaluate(OVERLAPPING)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overlaps_and_nothing_is_loaded(chromium, run, gallery, size, scheme):
    for folder in (run, gallery):
        with opened(chromium, folder, size, scheme == "dark") as page:
            assert overlapping(page) == []
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 28)")


def test_an_overlap_is_noticed(chromium, run):
    with opened(chromium, run, SIZES[1]) as page:
        page.add_style_tag(content="h2 { margin-top: -60px }")
        assert overlapping(page)


def test_the_mesh_is_drawn_in_its_colour_and_turns(chromium, run):
    with opened(chromium, run) as page:
        frame = page.frame_locator("iframe")
        frame.locator("body[data-loaded=true]").wait_for(timeout=60_000)
        page.wait_for_timeout(500)  # the frame after that is drawn
        view = page.locator("iframe")
        before = pixels(view)
        middle = before[before.shape[0] // 2, before.shape[1] // 2]
        assert middle[0] > 120 and middle[1] < 90 and middle[2] < 90, middle  # red, which linear light would darken
        assert tuple(before[5, 5]) == (0xF3, 0xF4, 0xF6)
        box = view.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 80, y + 30, steps=5)
        page.mouse.up()
        page.wait_for_timeout(500)
        dragged = pixels(view)
        assert np.abs(dragged - before).max() > 8  # the facets of the ball lie elsewhere
        frame.locator("canvas").press("ArrowRight")
        page.wait_for_timeout(500)
        assert np.abs(pixels(view) - dragged).max() > 8


def test_the_slider_shows_more_of_one_or_the_other(chromium, run):
    with opened(chromium, run) as page:
        both = page.locator(".compare")

        def red():
            seen = pixels(both)
            return (np.abs(seen - (204, 26, 26)).max(-1) < 12).mean()

        assert 0.45 < red() < 0.55
        slider = page.get_by_label("How much of before is shown")
        slider.focus()
        slider.press("Home")
        assert red() > 0.95
        slider.press("End")
        assert red() < 0.05
        box = both.bounding_box()
        page.mouse.click(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        assert 0.7 < red() < 0.8


def test_the_film_plays(chromium, run):
    with opened(chromium, run) as page:
        page.wait_for_function("() => document.querySelector('video').currentTime > 0", timeout=30_000)


def test_the_gallery_filters_and_sorts(chromium, gallery):
    with opened(chromium, gallery) as page:

        def shown():
            cells = page.locator(".cell:visible").all()
            return [" ".join(cell.locator(part).inner_text() for part in ("h3", ".faint")) for cell in cells]

        ours, lsd, duck = "a red mug ours, seed 0", "a red mug LSD, seed 0", "a duck ours, seed 1"
        assert shown() == [ours, lsd, duck] and page.locator("#count").inner_text() == "3 runs"
        page.locator("#prompt").fill("MUG")
        assert shown() == [ours, lsd] and page.locator("#count").inner_text() == "2 of 3 runs"
        page.locator("#variant").select_option("LSD")
        assert shown() == [lsd]
        page.locator("#prompt").fill("")
        page.locator("#variant").select_option("all")
        page.locator("#seed").select_option("1")
        assert shown() == [duck]
        page.locator("#seed").select_option("all")
        page.locator("#result").select_option("good")
        assert shown() == [ours, lsd]
        page.locator("#result").select_option("all")
        page.locator("#sort").select_option("PSNR")
        page.locator("#direction").select_option("down")
        assert shown() == [lsd, ours, duck]
        page.locator("#direction").select_option("up")
        assert shown() == [ours, lsd, duck]  # without a figure: last
        page.locator("#sort").select_option("prompt")
        assert shown() == [duck, ours, lsd]
        page.locator("#variant").focus()
        page.keyboard.press("L")  # by the keyboard alone
        assert shown() == [lsd]
        address = page.url
        page.goto("about:blank")
        page.goto(address)
        assert shown() == [lsd]  # the choice is in the address
        page.get_by_role("link", name="a red mug").click()
        assert "lsd-abc" in page.url
