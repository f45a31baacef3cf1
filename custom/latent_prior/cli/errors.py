"""Error handling of commands: user errors become one line, a bug keeps its traceback."""

import os
import sys
import traceback
from collections.abc import Callable

from latent_prior import OptionError
from latent_prior.runs.folder import Interrupted


def guarded(action: Callable[[], None], verbose: bool = False) -> int:
    """Run `action()` and return the exit code.

    Bad input gives one line and exit code 2 (after its traceback with `verbose` or LATENT_PRIOR_DEBUG=1), Ctrl-C or
    SIGTERM gives 130 and the command to continue. Anything else is a bug and keeps its traceback.
    """
    try:
        action()
    except OptionError as error:
        if verbose or os.environ.get("LATENT_PRIOR_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        run = stop.checkpoint.parent.parent
        print(f"Saved {stop.checkpoint}\nContinue with: latent-prior resume {run}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 130
    return 0
