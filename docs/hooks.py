"""Hooks of the docs' build: the options page, pages that are files elsewhere in the repository, and links to the rest.

In the pages, links are relative paths of the repository, so that they also work where the files are read as they are.
"""

import logging
import posixpath
import re
from pathlib import Path

import config_options
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OPTIONS = "<!-- options -->"  # where the tables go
# Pages of the site that are files elsewhere.
ELSEWHERE = {
    "configs.md": "configs/README.md",
    "pocket-prior.md": "custom/latent_prior/pocket/weights/README.md",
    "pocket-stylegan.md": "custom/latent_prior/pocket/stylegan/README.md",
}
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")

log = logging.getLogger("mkdocs.hooks.docs")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert the tables of options, and make links to the repository those of the site."""
    source = ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(lambda found: _link(found[1], found[2], source), part) for part in parts[::2]]
    return "".join(parts).replace(OPTIONS, config_options.markdown() if OPTIONS in markdown else "")


def _link(text: str, target: str, source: str) -> str:
    """A link in the file `source`: to a page of the site, or, where it leads elsewhere, the path as code."""
    if re.match(r"#|[a-z]+:", target):
        return f"[{text}]({target})"
    path, hash_sign, place = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    page = next((page for page, file in ELSEWHERE.items() if file == path), path.removeprefix("docs/"))
    if page != path:
        return f"[{text}]({page}{hash_sign}{place})"
    if not (ROOT / path).exists():
        log.warning("%s has a link to %s, and there is no %s", source, target, path)
    return f"`{path}`" if text.startswith("`") else f"{text} (`{path}`)"
