"""Every file that a user keeps is written through `atomic_write`: no other line of the package writes in place."""

import re
from pathlib import Path

import latent_prior

PACKAGE = Path(latent_prior.__file__).parent
WRITES = re.compile(
    r"""\.save\(|\bsave_file\(|save_pretrained\(|savefig\(|mimsave\(|\.savez?\(|write_text\(|write_bytes\(|copyfile\(|"""
    r"""copytree\(|shutil\.copy2?\(|open\([^)]*["'][wax]b?\+?["']"""
)
ATOMIC = re.compile(r"\b(beside|atomic_write|atomic_folder)\b|(?<!\.)\bwrite_text\(|def |SaverMixin|self\.save\(")
# {file: how many lines of it write in place}, and why they may
ALLOWED = {
    "files/refusals.py": 1,  # whether a byte more can be written
    "files/pictures.py": 1,  # to memory
    "files/lock.py": 1,  # who holds the lock
    "runs/streams.py": 1,  # to nowhere
    "runs/sweep/work.py": 1,  # the output of a run, as it comes
    "meshes/texture.py": 2,  # in a temporary folder
    "runs/checkpoint.py": 1,  # to the open file of an `atomic_write`
    "pocket/training/assemble.py": 7,  # in the folder that replaces the checkpoint as a whole
    "pocket/training/everything.py": 1,  # the same
    "pocket/training/clip.py": 3,  # a tokenizer, there or written anew by every start
    "pocket/training/loop.py": 1,  # a log to which lines are appended
    "runs/curves.py": 1,  # to memory
    "report/embedding.py": 1,  # to memory
    "app/queue.py": 1,  # the output of a run, as it comes
    "app/uploads.py": 5,  # in a folder of a file's own, which nothing knows of before it is whole
}


def test_nothing_is_written_in_place():
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for line in path.read_text().splitlines():
            if WRITES.search(line) and not ATOMIC.search(line) and not line.strip().startswith(("#", '"')):
                found.setdefault(path.relative_to(PACKAGE).as_posix(), []).append(line.strip())
    assert {name: len(lines) for name, lines in found.items()} == ALLOWED, found
