"""docs/app.png: the app's first tab with a finished run of the pocket prior. Needs the extra `dev`, and chromium."""

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
# WebGL without a GPU
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE = 1_800_000  # milliseconds for the run


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--prompt", default="a red mug")
    p.add_argument("--steps", type=int, default=120)
    p.add_argument("--port", type=int, default=7869)
    p.add_argument("--out", default="outputs/screenshots", help="folder of the run; one that is there already is shown")
    args = p.parse_args()
    command = [sys.executable, "-m", "latent_prior", "app", "--port", str(args.port), "--out", args.out]
    app = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if "The app runs at" not in app.stdout.readline():
            sys.exit("the app did not start")
        take(args)
    finally:
        app.terminate()
        app.wait()


def take(args: argparse.Namespace) -> None:
    """Make the run, and take the picture."""
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.goto(f"http://127.0.0.1:{args.port}")
        prompt = page.get_by_label("Prompt", exact=True).first
        prompt.fill(args.prompt)
        page.get_by_label("Steps").first.fill(str(args.steps))
        earlier = list(Path(args.out).glob("latent_prior/*/save/*-export/model.glb"))
        if earlier:
            page.get_by_role("tab", name="History").click()
            page.locator("#history").get_by_text(args.prompt).locator("visible=true").first.click()
            page.get_by_role("tab", name="Text to 3D").click()
        else:
            page.get_by_role("button", name="Start").first.click()
        expect(page.locator("#status .lp-done")).to_be_visible(timeout=PATIENCE)
        expect(page.locator("#run canvas")).to_be_visible(timeout=60_000)
        canvas = page.locator("#run canvas")
        while _is_blank(canvas.screenshot()):  # the mesh is drawn some time after its canvas is there
            page.wait_for_timeout(1000)
        page.wait_for_function("document.querySelector('#run video').readyState >= 2")
        page.wait_for_timeout(1000)
        page.screenshot(path=ROOT / "docs" / "app.png")
        browser.close()


def _is_blank(png: bytes) -> bool:
    picture = Image.open(io.BytesIO(png)).convert("L")
    width, height = picture.size
    low, high = picture.crop((width // 4, height // 4, 3 * width // 4, 3 * height // 4)).getextrema()
    return high - low < 60  # labels lie around the middle


if __name__ == "__main__":
    main()
