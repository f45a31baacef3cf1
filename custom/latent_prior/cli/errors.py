"""Error handling of commands: user errors become one line, a bug keeps its traceback."""

import os
import sys
import traceback
from collections.abc import Callable

from latent_prior import OptionError
from latent_prior.files import denial
from latent_prior.runs import signals
from latent_prior.runs.folder import Interrupted, Stopped

LONGEST = 2000  # characters of a message; a value in it may be of any length


def guarded(action: Callable[[], None], verbose: bool = False) -> int:
    """Run `action()` and return the exit code.

    Bad input, and a disk that refuses to be written, give one line and exit code 2, or 1 if a run had begun (after the
    traceback with `verbose` or LATENT_PRIOR_DEBUG=1). Ctrl-C, SIGTERM and SIGHUP give 130 and the command to continue.
    Anything else is a bug and keeps its traceback.
    """
    try:
        with signals.as_interrupt():
            action()
    except OptionError as error:
        return _refused(error, verbose)
    except OSError as error:
        if denial(error) is None:
            raise
        return _refused(denial(error), verbose)
    except Interrupted as stop:
        run = stop.checkpoint.parent.parent
        print(f"Saved {stop.checkpoint}\nContinue with: latent-prior resume {run}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 130
    return 0


def _refused(error: OptionError, verbose: bool) -> int:
    if verbose or os.environ.get("LATENT_PRIOR_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    print(f"error: {one_line(str(error))}", file=sys.stderr)
    return 1 if isinstance(error, Stopped) else 2


def one_line(message: str) -> str:
    """A message on one line, with control characters escaped (they could rewrite the terminal)."""
    text = " ".join(message.split())
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
