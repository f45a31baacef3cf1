"""A latent diffusion model as a prior for threestudio: score distillation, feature matching and a KL regulariser.

Importing this package is cheap: it pulls in neither torch nor diffusers nor a host framework. Two things load more:

* `latent_prior.LatentPrior` (first use) loads the models layer;
* `register()` adds our guidance, systems, renderer and exporter to the host's registry. threestudio imports custom
  extensions after itself, so under threestudio registration happens here; `launch.py` and the console script call
  `register()` themselves.
"""

import reprlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__version__ = "0.2.0"
__all__ = ["LatentPrior", "OptionError", "__version__", "options_under", "register"]

# Values in messages: bounded in depth and length, since a file may hold anything.
_SHOWN = reprlib.Repr()
_SHOWN.maxlist = _SHOWN.maxtuple = _SHOWN.maxdict = _SHOWN.maxset = 12
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 160
_SHOWN.maxlevel = 3


class OptionError(ValueError):
    """Bad input that the user can fix: the only error that commands print as one line, with exit code 2.

    `OptionError("views", 0, "at least 1")` reads "views is 0; expected at least 1". The core only names the field; each
    boundary adds its own prefix (`options_under`): a config key's path, or the dashes of a flag. Any other exception is
    a bug and keeps its traceback.
    """

    def __init__(self, field: str, value: object, expected: str):
        super().__init__(f"{field} is {_SHOWN.repr(value)}; expected {expected}")
        self.field = field

    @classmethod
    def because(cls, problem: str, field: str = "") -> "OptionError":
        """For problems that a value and an expectation cannot describe: "field: problem", or only the problem."""
        error = cls.__new__(cls)
        ValueError.__init__(error, f"{field}: {problem}" if field else problem)
        error.field = field
        return error

    def under(self, prefix: str) -> "OptionError":
        """The same error with `prefix` before its field; unchanged if it has no field."""
        error = type(self).because(f"{prefix if self.field else ''}{self}")
        error.field = f"{prefix}{self.field}" if self.field else ""
        return error


@contextmanager
def options_under(prefix: str) -> Iterator[None]:
    """Add `prefix`, such as "system.guidance." or "--", to the field of any OptionError raised inside."""
    try:
        yield
    except OptionError as error:
        raise error.under(prefix) from error


def register() -> None:
    """Register every type of the plugin with the host; further calls have no effect."""
    import latent_prior.registration  # noqa: F401


def __getattr__(name: str):
    if name == "LatentPrior":
        from latent_prior.models.latent_prior import LatentPrior

        return LatentPrior
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if "threestudio" in sys.modules:
    register()
