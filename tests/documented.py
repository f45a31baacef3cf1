"""The commands of the documentation: those in its blocks of bash, and fragments of commands in running text."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", ROOT / "configs" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
IN_TEXT = re.compile(r"`((?:latent-prior(?=\s)|python launch\.py|bash launch_scripts/)[^`]*)`")


@dataclass(frozen=True)
class Command:
    """A command line, without its comment; variables that are set before it are left out."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(word if re.fullmatch(r"[^\s\"'\[\]]+", word) else f'"{word}"' for word in self.words)


def in_blocks(text: str) -> list[Command]:
    """The command lines of a page's blocks of bash."""
    code = "\n".join(found[2] for found in FENCE.finditer(text) if found[1] in ("bash", "sh"))
    return [line for line in map(parsed, code.replace("\\\n", " ").splitlines()) if line.words]


def in_text(text: str) -> list[Command]:
    """Commands, and parts of commands, in a page's running text."""
    return [parsed(" ".join(found[1].split())) for found in IN_TEXT.finditer(FENCE.sub("", text))]


def parsed(line: str) -> Command:
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return Command(tuple(words))


def everywhere(find) -> list[Command]:
    """What `find` sees in all files, each once."""
    return list(dict.fromkeys(command for file in FILES for command in find(file.read_text(encoding="utf-8"))))
