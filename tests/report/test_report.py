"""What a run's page and a gallery say, read without a browser."""

import base64
import io
import json
import re
import shutil
import struct
from html.parser import HTMLParser

import pytest
from latent_prior import OptionError, cli, report
from latent_prior.report import run_page, viewer
from PIL import Image
from run_folders import plain, write_evaluation, write_film, write_run


class Read(HTMLParser):
    """The elements of a page, as (tag, attributes), and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def picture(source):
    kind, data = source.removeprefix("data:").split(";base64,")
    assert kind == "image/webp"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_a_runs_page_says_what_came_out_and_how(run):
    path = report.write(run)
    page = Read(path.read_text())
    assert path == run / "report.html" and "a red <mug> & more" in page.text
    (frame,) = page.all("iframe")
    assert base64.b64encode((run / "save/it20-export/model.glb").read_bytes()).decode() in frame["srcdoc"]
    shown = {item["alt"]: picture(item["src"]) for item in page.all("img")}
    assert list(shown) == ["before", "after: a red <mug> & more", "step 2", "step 10"]
    assert shown["before"].getpixel((5, 5)) == (255, 255, 255) and shown["step 10"].getpixel((5, 5)) == (255, 0, 0)
    for words in ("150 s", "2.5 min"):
        assert (words in page.text) == (words == "2.5 min")  # of both launches together
    rows = re.findall(r"<td><code>(.*?)</code></td><td>(.*?)</td><td>(.*?)</td>", path.read_text())
    assert rows == [
        ("system.prompt_processor.prompt", "a mug", "a red &lt;mug&gt; &amp; more"),
        ("system.guidance.guidance_scale", "100.0", "7.5"),
    ]
    assert "latent-prior generate 'a red <mug> & more' system.guidance.guidance_scale=7.5" in page.text
    assert "loss_sds" in page.text and page.all("svg") and "2.13.0" in page.text
    links = [item["href"] for item in page.all("a")]
    assert all((run / link).is_file() for link in links) and links


def test_everything_is_in_the_file(run):
    write_film(run / "save" / "it20-test.mp4")
    page = Read(report.write(run).read_text())
    sources = [
        attributes[name]
        for _, attributes in page.elements
        for name in ("src", "srcset", "poster")
        if name in attributes
    ]
    assert len(sources) == 5 and all(source.startswith("data:") for source in sources)
    (film,) = page.all("video")
    assert base64.b64decode(film["src"].partition(",")[2]) == (run / "save" / "it20-test.mp4").read_bytes()
    assert not page.all("link") and "default-src 'none'" in page.all("meta")[2]["content"]


def test_what_is_missing_is_left_out(tmp_path):
    run = tmp_path / "run"
    (run / "configs").mkdir(parents=True)
    (run / "configs" / "parsed.yaml").write_text("name: ours\n")
    page = Read(report.write(run).read_text())
    assert not page.all("iframe") + page.all("img") + page.all("video") + page.all("table") + page.all("svg")
    assert "run" in page.text


@pytest.mark.parametrize("content", ["", "[]", '{"versions": 3, "command": {"a": 1}}', "[" * 100_000])
def test_broken_records_do_not_stop_the_page(run, content):
    for name in ("origin.json", "launches.json"):
        (run / "configs" / name).write_text(content)
    assert "a red <mug>" in Read(report.write(run).read_text()).text


def test_a_large_mesh_is_named_and_not_shown(run, monkeypatch):
    monkeypatch.setattr(viewer, "MOST_BYTES", 100)
    page = Read(report.write(run).read_text())
    assert not page.all("iframe") and "too large" in page.text
    assert "save/it20-export/model.glb" in [item["href"] for item in page.all("a")]


def test_many_pictures_on_the_way_are_thinned(run):
    for step in range(100, 200):
        plain(run / "save" / f"it{step}-0.png", (0, 0, 1))
    captions = [item["alt"] for item in Read(report.write(run).read_text()).all("img") if "step" in item["alt"]]
    assert len(captions) == run_page.MOST_STEPS and captions[0] == "step 2" and captions[-1] == "step 199"
    assert (run / "report.html").stat().st_size < 6_000_000


def test_the_page_of_an_editors_folder(tmp_path):
    plain(tmp_path / "before.png", (1, 1, 1))
    plain(tmp_path / "composite.png", (0, 1, 0))
    plain(tmp_path / "samples.png", (0, 0, 1))
    arguments = {"prompt": "a cat", "samples": 4}
    origin = {"versions": {"torch": "2.13.0"}, "command": ["latent-prior", "edit-masked"], "arguments": arguments}
    (tmp_path / "origin.json").write_text(json.dumps(origin))
    page = Read(report.write(tmp_path).read_text())
    assert "a cat" in page.text and "Samples" in page.text
    assert picture(page.all("img")[1]["src"]).getpixel((3, 3)) == (0, 255, 0)
    assert page.all("img")[2]["alt"] == "samples, best first"


def test_a_gallery_of_an_evaluation(tmp_path):
    out = write_evaluation(tmp_path / "out")
    report.write(out / "runs/ours-abc/a_red_mug-seed0")
    page = Read(report.write(out).read_text())
    cells = [item for item in page.all("li") if "data-prompt" in item]
    assert [(c["data-prompt"], c["data-variant"], c["data-seed"]) for c in cells] == [
        ("a red mug", "ours", "0"),
        ("a red mug", "LSD", "0"),
        ("a duck", "ours", "1"),
    ]
    assert [json.loads(c["data-numbers"]) for c in cells] == [{"PSNR": 20.0}, {"PSNR": 25.5}, {}]
    assert ["missed" in c["class"] for c in cells] == [False, False, True]
    assert "no checkpoint" in page.text and "25.5 dB" in page.text and "Ours against LSD" in page.text
    links = [item["href"] for item in page.all("a")]
    assert links == ["runs/ours-abc/a_red_mug-seed0/report.html", "runs/lsd-abc/a_red_mug-seed0"]
    alts = [item["alt"] for item in page.all("img")]
    truth = "The truth for a red mug"
    assert alts == [truth, "a red mug by ours, seed 0", truth, "a red mug by LSD, seed 0"]


def test_a_gallery_that_was_moved_still_leads_to_its_runs(tmp_path):
    shutil.move(write_evaluation(tmp_path / "out"), tmp_path / "elsewhere")
    page = Read(report.write(tmp_path / "elsewhere").read_text())
    assert all((tmp_path / "elsewhere" / item["href"]).exists() for item in page.all("a"))


def test_any_folder_of_runs_and_pages_for_those_without(tmp_path, capsys):
    for name in ("one", "two"):
        write_run(tmp_path / "many" / "ours" / name)
    assert cli.main(["report", str(tmp_path / "many")]) == 0
    page = Read((tmp_path / "many" / "report.html").read_text())
    links = [item["href"] for item in page.all("a")]
    assert links == ["ours/one/report.html", "ours/two/report.html"]
    assert all((tmp_path / "many" / link).is_file() for link in links)
    assert str(tmp_path / "many" / "report.html") in capsys.readouterr().out


def test_a_run_that_wrote_nothing_gets_no_page(tmp_path):
    out = write_evaluation(tmp_path / "out")
    (out / "runs/ours-abc/a_duck-seed1").mkdir(parents=True)
    assert cli.main(["report", str(out)]) == 0
    assert sorted(path.parent.name for path in out.glob("runs/*/*/report.html")) == ["a_red_mug-seed0"] * 2


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("no"), lambda path: None])
def test_what_holds_no_run_is_refused_in_one_line(tmp_path, make, capsys):
    make(tmp_path / "x")
    assert cli.main(["report", str(tmp_path / "x")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(tmp_path / "x") in line
    with pytest.raises(OptionError):
        report.write(tmp_path)


def test_the_viewer_embeds_the_file_as_it_is(run):
    glb = run / "save" / "it20-export" / "model.glb"
    text = viewer.page(glb)
    (data,) = re.findall(r'base64_data="([^"]*)"', text)
    assert base64.b64decode(data) == glb.read_bytes()
    assert struct.unpack("<4s", base64.b64decode(data)[:4]) == (b"glTF",)
    assert text.count("</body>") == 1 and text.index("init();") < text.index("loader.parse =")
