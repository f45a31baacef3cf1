"""The site: it builds without a warning, its links and those of the files beside it lead somewhere, it loads nothing."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from documented import FENCE, FILES, ROOT

# What a browser loads by itself, by tag and attribute; links that a reader follows are not among it.
LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src")}
LINK = re.compile(r"\]\(([^()\s]+)\)")


def build(source: Path, out: Path) -> subprocess.CompletedProcess:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e .[docs]")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install -e .[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)


class Page(HTMLParser):
    """What a page of HTML loads, what it links to, and its anchors."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if (tag, name) in LOADED:
                self.loaded.append(value)
            elif name == "href":
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def faults(site: Path) -> list[str]:
    """Links of a built site that lead nowhere, and what it loads from other hosts."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    found = []
    for path, page in pages.items():
        for target in [*page.loaded, *page.links]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                found += [f"{path.name} loads {target}"] if target in page.loaded else []
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not there.is_file():
                found.append(f"{path.name} links to {target}")
            elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].anchors:
                found.append(f"{path.name} links to {target}, which has no such place")
    for path in site.rglob("*.css"):
        imports = re.findall(r"(?:url\(|@import )['\"]?((?:https?:)?//[^'\")]+)", path.read_text(encoding="utf-8"))
        found += [f"{path.name} loads {target}" for target in imports]
    return found


def warnings(done: subprocess.CompletedProcess) -> list[str]:
    return [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("INFO ")]


@pytest.mark.slow
def test_it_builds_without_a_warning_and_its_links_lead_somewhere(tmp_path):
    done = build(ROOT, tmp_path / "site")
    assert (done.returncode, warnings(done)) == (0, [])
    assert len([*(tmp_path / "site").glob("*.html")]) > 12
    assert faults(tmp_path / "site") == []


@pytest.mark.slow
def test_dead_links_are_errors(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "mkdocs.yml", tmp_path / "mkdocs.yml")
    for name in ("configs", "custom", "tests", "README.md", "CONTRIBUTING.md"):
        (tmp_path / name).symlink_to(ROOT / name)
    dead = ["no_page.md", "scale.md#no-place", "../custom/latent_prior/no_source.py", "/no_root"]
    with (tmp_path / "docs" / "faq.md").open("a") as file:
        file.write("".join(f"\n[a link]({target})\n" for target in dead))
    (tmp_path / "docs" / "not_in_nav.md").write_text("# A page\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    for target in (*dead, "not_in_nav.md"):
        assert any(target in line for line in warnings(done)), f"{target}:\n{done.stderr}"


def test_faults_are_seen(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="here"><a href="#here"></a><a href="#gone"></a><a href="b.html"></a><a href="https://x.org"></a>'
        '<script src="https://x.org/a.js"></script><img src="//x.org/a.png">'
    )
    (tmp_path / "a.css").write_text("@import 'https://x.org/a.css'; b { background: url(b.png) }")
    assert sorted(faults(tmp_path)) == [
        "a.css loads https://x.org/a.css",
        "a.html links to #gone, which has no such place",
        "a.html links to b.html",
        "a.html loads //x.org/a.png",
        "a.html loads https://x.org/a.js",
    ]


def dead_links(file: Path, text: str) -> list[str]:
    """Relative links of a Markdown file that lead to no file, or to no heading of one."""
    found = []
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, place = target.partition("#")
        there = file.parent / path if path else file
        if not there.exists():
            found.append(target)
        elif place and there.suffix == ".md" and place not in anchors(text if not path else there.read_text()):
            found.append(target)
    return found


def anchors(text: str) -> set[str]:
    """Those that a viewer of Markdown gives to headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", [*FILES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda file: file.name)
def test_links_between_files_lead_somewhere(file):
    assert dead_links(file, file.read_text(encoding="utf-8")) == []


def test_a_dead_link_between_files_is_seen():
    text = "# A b!\n[a](README.md) [b](docs/nowhere.md) [c](#a-b) [d](#nowhere) [e](docs/scale.md#what-it-costs)"
    text += " [f](mailto:a)"
    assert dead_links(ROOT / "README.md", text) == ["docs/nowhere.md", "#nowhere"]
