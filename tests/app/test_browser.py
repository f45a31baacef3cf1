"""The whole app in a browser: from upload to download in each tab, Stop, closed tabs, one queue, what is refused."""

import io
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import trimesh
from app.bombs import bomb
from app.driven import serving
from PIL import Image

pytestmark = pytest.mark.slow
LONG = 100_000  # steps that no test waits for
LARGE = 200_000_000  # bytes


def test_text_to_3d(opened, tmp_path):
    page = opened()
    page.panel.get_by_text("a striped blue mug").click()  # an example
    page.expect(page.panel.get_by_label("Prompt", exact=True)).to_have_value("a striped blue mug")
    page.start("a striped blue mug", steps=6)
    page.shows(re.compile("Loading|Training"))
    page.expect(page.page.locator("#preview img")).to_be_visible()
    page.finished()
    page.expect(page.page.locator("#preview")).not_to_be_visible()
    page.expect(page.page.locator("#run canvas")).to_be_visible()
    page.expect(page.page.locator("#run video")).to_be_visible()
    mesh = trimesh.load_scene(page.download("model.glb", tmp_path))
    assert sum(len(part.faces) for part in mesh.geometry.values()) > 100
    page.page.get_by_role("button", name="Command and log").click()
    command = page.page.locator("#run .cm-content").inner_text()
    assert command.startswith("latent-prior generate") and "'a striped blue mug'" in command
    assert _is_drawn(page)
    page.tab("History")
    row = (
        page.page.locator("#history").get_by_role("row", name=re.compile("a striped blue mug")).locator("visible=true")
    )
    page.expect(row.first).to_contain_text("done")


def _is_drawn(page) -> bool:
    """Whether the mesh appears in the middle of its canvas, around which labels lie."""
    for _ in range(120):
        picture = Image.open(io.BytesIO(page.page.locator("#run canvas").screenshot())).convert("L")
        width, height = picture.size
        low, high = picture.crop((width // 4, height // 4, 3 * width // 4, 3 * height // 4)).getextrema()
        if high - low > 60:
            return True
        page.page.wait_for_timeout(500)
    return False


def test_texture(opened, tiny, tmp_path):
    page = opened()
    page.tab("Texture")
    page.upload(tiny / "ball.glb")
    page.expect(page.panel).to_contain_text("Ready: 1 part, 80 faces")
    page.start("a red mug", steps=4)
    page.finished()
    page.expect(page.page.get_by_text("Before | after")).to_be_visible()
    page.expect(page.page.locator("#run canvas")).to_be_visible()
    textured = trimesh.load_scene(page.download("model.glb", tmp_path))
    (mesh,) = textured.geometry.values()
    assert len(mesh.faces) == 80 and mesh.visual.kind == "texture"


@pytest.mark.parametrize("mode", ["Only inside the mask", "A layer over the picture"])
def test_edit_with_a_painted_mask(opened, tiny, tmp_path, mode):
    page = opened()
    page.tab("Edit")
    Image.open(tiny / "photo.png").resize((96, 80)).save(tmp_path / "photo.png")
    page.upload(tmp_path / "photo.png")
    page.expect(page.panel).to_contain_text("Ready: 96 x 80 pixels")
    _paint(page)
    page.panel.get_by_label(mode).check()
    if mode.startswith("Only"):
        page.panel.get_by_role("button", name="All settings").click()
        page.panel.get_by_label("Checkpoint").fill(json.loads((tiny / "prior.json").read_text()))
    page.start("a golden mug", steps=4)
    page.finished()
    page.expect(page.page.get_by_text("Before | after")).to_be_visible()
    after = np.asarray(Image.open(page.download("composite.png", tmp_path)).convert("RGB"), dtype=int)
    before = np.asarray(Image.open(tmp_path / "photo.png"), dtype=int)
    assert after.shape == before.shape
    masks = sorted((page.app.out / "app" / "uploads").glob("*/mask.png"), key=lambda path: path.stat().st_mtime)
    mask = np.asarray(Image.open(masks[-1]))
    assert mask.shape == before.shape[:2] and 0.01 < (mask > 128).mean() < 0.5
    if mode.startswith("Only"):
        changed = np.abs(after - before).max(-1) > 0
        assert changed[mask > 250].mean() > 0.9 and not changed[mask == 0].any()


def _paint(page) -> None:
    """A stroke over the middle of the picture."""
    canvas = page.page.locator("#canvas canvas").locator("visible=true").first
    page.expect(canvas).to_be_visible()
    page.expect(page.page.locator("#canvas").get_by_role("button", name="Brush", exact=True)).to_be_visible()
    canvas.scroll_into_view_if_needed()
    page.page.wait_for_timeout(2000)  # the canvas fits the picture into itself, and says nothing when it has
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.page.mouse.move(x - 40, y)
    page.page.mouse.down()
    page.page.mouse.move(x + 40, y + 10, steps=12)
    page.page.mouse.up()
    page.expect(page.page.locator("#canvas").get_by_role("button", name="Undo", exact=True)).to_be_enabled()


def test_stylegan(opened, tiny, tmp_path):
    from latent_prior.stylegan2.files import load_generator

    page = opened()
    page.tab("StyleGAN")
    page.upload(tiny / "generator.pt")
    page.expect(page.panel).to_contain_text("Ready: 16 x 16 pixels, z of 512")
    page.start("a golden mug", steps=4)
    page.finished()
    page.expect(page.page.locator("#run video")).to_be_visible()
    page.expect(page.page.get_by_text("Before | after")).to_be_visible()
    adapted = load_generator(page.download("generator.safetensors", tmp_path))
    source = load_generator(tiny / "generator.pt")
    weights = [net.state_dict()["synthesis.b16.conv1.weight"] for net in (adapted, source)]
    assert weights[0].shape == weights[1].shape and not (weights[0] == weights[1]).all()


def test_stop_and_resume(opened, app):
    page = opened()
    page.start("a red duck", steps=LONG)
    page.shows(re.compile(r"Training, [1-9]"))
    page.page.get_by_role("button", name="Stop").click()
    page.shows("saved; Resume continues it")
    reached = int(re.search(r"stopped at step (\d+) of", page.status.inner_text())[1])
    assert reached > 0
    page.page.get_by_role("button", name="Resume").click()
    page.expect(page.status.locator(".lp-running")).to_be_visible()
    page.shows(re.compile(rf"Training, (?!{reached} )\d+ of {LONG}"))
    assert int(re.search(r"Training, (\d+) of", page.status.inner_text())[1]) > reached
    page.page.get_by_role("button", name="Stop").click()
    page.shows("saved; Resume continues it")
    run = page.run()
    again = int(re.search(r"stopped at step (\d+) of", page.status.inner_text())[1])
    command = [sys.executable, "-m", "latent_prior", "resume", str(run), f"trainer.max_steps={again + 2}"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert list(run.glob(f"save/it{again + 2}-export/model.glb"))


def test_a_closed_tab_loses_nothing(opened, app):
    page = opened()
    page.start("a red boat", steps=40)
    page.shows(re.compile(r"Training, [1-9]"))
    page.page.close()
    other = opened()
    other.shows("a red boat")
    other.shows(re.compile("Training|Rendering|Writing|finished"))
    other.finished()
    other.expect(other.page.locator("#files").get_by_role("link", name="model.glb")).to_be_visible()


def test_two_browsers_wait_in_one_queue(opened, app):
    first, second = opened(), opened()
    first.start("a red chair", steps=LONG)
    first.shows(re.compile(r"Training, [1-9]"))
    second.start("a red table", steps=4)
    second.shows("waits for 1 run before it")
    second.expect(second.page.locator("#queue")).to_contain_text("1 waiting")
    first.shows("a red chair")  # each looks at its own
    assert not list(app.out.glob("latent_prior/a_red_table@*"))
    first.page.get_by_role("button", name="Stop").click()
    first.shows("saved")
    second.finished()


def test_an_error_is_the_commands_line(opened, app):
    page = opened()
    page.panel.get_by_role("button", name="All settings").click()
    page.panel.get_by_label("Checkpoint").fill("/not/there")
    page.start("a red bird", steps=4)
    page.expect(page.status.get_by_role("alert")).to_contain_text("/not/there")
    page.start("  ")
    page.expect(page.page.get_by_text("the prompt is empty")).to_be_visible()


def test_uploads_that_are_refused(opened, app, tmp_path):
    page = opened()
    page.tab("Edit")
    before = {*(app.out / "app" / "uploads").glob("*")}
    with io.BytesIO() as file:
        Image.new("RGB", (40, 40)).save(file, "PNG")
        picture = file.getvalue()
    for name, data, message in (
        ("photo.png", bomb(), "400 megapixels"),
        ("../../evil.png", picture, "without folders"),
        ("photo.png", b"no picture", "cannot be read as a picture"),
    ):
        page.upload({"name": name, "mimeType": "image/png", "buffer": data})
        page.expect(page.panel).to_contain_text(message)
        page.expect(page.panel).to_contain_text("Refused:")
        page.panel.get_by_label("Clear").first.click()
        page.expect(page.panel).not_to_contain_text("Refused:")
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(LARGE)
    page.upload(large)
    page.expect(page.page.get_by_text(re.compile("too large|maximum", re.I)).first).to_be_visible()
    assert {*(app.out / "app" / "uploads").glob("*")} == before
    assert not list(app.out.rglob("evil*")) or all(
        path.is_relative_to(app.out / "app" / "cache") for path in app.out.rglob("evil*")
    )
    assert not list(app.out.parent.glob("evil*"))


def test_a_large_upload_without_a_browser(app, tmp_path):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="large.png"\r\n\r\n'
        + bytes(LARGE)
        + b"\r\n--x--\r\n"
    )
    request = urllib.request.Request(f"{app.url}/gradio_api/upload", body, method="POST")
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as refused:
        urllib.request.urlopen(request, timeout=120)
    assert getattr(refused.value, "code", 413) == 413
    assert not [path for path in app.out.rglob("*") if path.is_file() and path.stat().st_size >= LARGE // 4]


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_no_path_outside_the_outputs_folder_is_served(app, tmp_path):
    inside = app.out / "note.txt"
    inside.write_text("inside")
    (app.out / "link.txt").symlink_to("/etc/passwd")
    assert status_of(f"{app.url}/gradio_api/file={inside}") == 200  # so that the others fail for their path
    outside = tmp_path / "outside.txt"
    outside.write_text("outside")
    for path in (
        "/etc/passwd",
        "etc/passwd",
        outside,
        app.out / "link.txt",
        f"{app.out}/../../../../../../etc/passwd",
        f"{app.out}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        f"{app.out}%00",
        app.out,
        Path(__file__),
        Path.cwd() / "pyproject.toml",
        "http://127.0.0.1:1/",
    ):
        assert status_of(f"{app.url}/gradio_api/file={path}") in (400, 403, 404), path
        assert status_of(f"{app.url}/file={path}") in (400, 403, 404), path
    for path in ("gradio_api/proxy=http://127.0.0.1:1/", "docs", "redoc", "openapi.json"):
        assert status_of(f"{app.url}/{path}") in (403, 404), path


def test_a_path_in_place_of_an_upload_is_refused(app, tiny):
    """What a browser would send for an uploaded file, with a path of the server's instead."""
    with urllib.request.urlopen(f"{app.url}/config", timeout=60) as answer:
        config = json.load(answer)
    files = {part["id"] for part in config["components"] if part["type"] == "file"}
    uploads = [d["id"] for d in config["dependencies"] if d["inputs"] and set(d["inputs"]) <= files]
    assert len(uploads) == 3
    for event in uploads:
        for path in (tiny / "photo.png", "/etc/passwd", f"{app.out}/app/cache/../../../../etc/passwd"):
            data = {"path": str(path), "orig_name": "photo.png", "meta": {"_type": "gradio.FileData"}}
            body = json.dumps({"fn_index": event, "data": [data], "session_hash": "abc"}).encode()
            request = urllib.request.Request(f"{app.url}/gradio_api/run/predict", body, method="POST")
            request.add_header("Content-Type", "application/json")
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(request, timeout=60)
    assert not list((app.out / "app" / "uploads").glob("*/passwd"))


def test_ctrl_c_saves_and_a_new_server_goes_on(opened, tiny, tmp_path):
    out = tmp_path / "outputs"
    with serving(tiny, out) as first:
        page = opened(first)
        page.start("a red cube", steps=LONG)
        page.shows(re.compile(r"Training, [1-9]"))
        run = page.run()
        page.page.close()
        said = first.interrupt()
    assert f"Continue with: latent-prior resume {run}" in said and first.process.returncode == 130
    assert (run / "ckpts" / "last.ckpt").is_file()
    with serving(tiny, out) as second:
        page = opened(second)
        page.tab("History")
        page.page.locator("#history").get_by_text("a red cube").locator("visible=true").first.click()
        page.shows("saved; Resume continues it")
        page.page.get_by_role("button", name="Resume").click()
        page.shows(re.compile(r"Training, [1-9]"))
        page.page.get_by_role("button", name="Stop").click()
        page.shows("saved")
