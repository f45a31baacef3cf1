"""Error handling of commands: user errors become one line, a bug keeps its traceback."""

import errno
import os
import sys
import traceback
from collections.abc import Callable

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.files.refusals import denial
from latent_prior.runs import signals, streams
from latent_prior.runs.folder import Interrupted, Stopped

NOBODY_READS = 141  # exit code: what a shell makes of SIGPIPE
LONGEST = 2000  # characters of a message; a value in it may be of any length, and what was expected stands behind it


def guarded(action: Callable[[], None], verbose: bool = False) -> int:
    """Run `action()` and return the exit code.

    Bad input, and a disk that refuses to be written, give one line and exit code 2, or 1 if a run had begun (after the
    traceback with `verbose` or LATENT_PRIOR_DEBUG=1). Ctrl-C, SIGTERM and SIGHUP give 130 and the command to continue.
    A reader of our output that has gone (`| head -1`) gives 141. Anything else is a bug and keeps its traceback.
    """
    streams.let_go()
    with signals.as_interrupt():
        return _exit_code(action, verbose)


def _exit_code(action: Callable[[], None], verbose: bool) -> int:
    try:
        action()
        sys.stdout.flush()
    except OptionError as error:
        return _refused(error, verbose)
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.EIO) and streams.let_go():
            return NOBODY_READS
        if denial(error) is None:
            raise
        return _refused(denial(error), verbose)
    except Interrupted as stop:
        run = stop.checkpoint.parent.parent
        print(f"Saved {stop.checkpoint}\nContinue with: latent-prior {stop.command} {run}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 130
    return 0


def _refused(error: OptionError, verbose: bool) -> int:
    if verbose or os.environ.get("LATENT_PRIOR_DEBUG", "0") not in ("", "0"):
        traceback.print_exc()
    line = " ".join(str(error).split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    # without control characters, which could rewrite the terminal
    print(f"error: {shown(line, len(line))}", file=sys.stderr)
    return 1 if isinstance(error, Stopped) else 2
