"""A run in a line: as a module it executes its argument, so that engines can run what takes milliseconds."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent  # to be in PYTHONPATH


def command(code: str) -> tuple[str, ...]:
    """The command, as a sweep has them, that executes Python code."""
    return (Path(__file__).stem, code)


ENDLESS = """
import time
from latent_prior.runs import signals
with signals.as_interrupt():
    print("on", flush=True)
    time.sleep(600)
"""  # code that runs until it is stopped

if __name__ == "__main__":
    exec(sys.argv[1])
