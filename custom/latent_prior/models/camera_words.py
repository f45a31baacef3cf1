"""Words by which a checkpoint knows the camera of a picture: "a red mug, front view, <azimuth+030> <elevation+20>".

Stable Diffusion knows side, front, back and overhead views at best; what it thinks of the camera's height is its mean,
and a solid made under it is blurred over that. A checkpoint that was trained with such words says so in the
`latent_prior.json` of its folder, under `camera_words`:

    {"azimuth": {"first": -180, "last": 165, "step": 15}, "elevation": {"first": -20, "last": 90, "step": 10}}

A word stands for the angles (degrees) nearer to its own than to any other's; azimuths are taken modulo 360.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError
from latent_prior.models.checkpoint import Checkpoint

FILE, KEY = "latent_prior.json", "camera_words"
NAMES = {"azimuth": "<azimuth{:+04d}>", "elevation": "<elevation{:+03d}>"}
MOST = 1000  # words of one angle


@dataclass(frozen=True)
class Angles:
    """The angles that have words, in degrees."""

    first: int
    last: int
    step: int

    @property
    def values(self) -> range:
        return range(self.first, self.last + 1, self.step)


@dataclass(frozen=True)
class CameraWords:
    """The words of a checkpoint; see the module's docstring."""

    azimuth: Angles
    elevation: Angles

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "CameraWords | None":
        """Those that the checkpoint's folder states, if any. Raises OptionError for a statement that is not as above."""
        stated = checkpoint.beside_parts(FILE).get(KEY)
        if stated is None:
            return None
        try:
            return cls(**{name: _angles(stated[name]) for name in NAMES})
        except (KeyError, TypeError, ValueError) as error:
            expected = "first, last and step, whole numbers of degrees, for azimuth and elevation"
            raise OptionError(f"{KEY} in the {FILE} of {checkpoint.source!r}", stated, expected) from error

    @property
    def every(self) -> list[str]:
        """All words, of azimuths and then of elevations."""
        return [form.format(angle) for name, form in NAMES.items() for angle in getattr(self, name).values]

    def cameras(self) -> Iterator[tuple[int, int]]:
        """Azimuth and elevation of every pair of words, in the order of `index`."""
        for azimuth in self.azimuth.values:
            for elevation in self.elevation.values:
                yield azimuth, elevation

    def words(self, azimuth: int, elevation: int) -> str:
        """The words of one of `cameras`."""
        return f"{NAMES['azimuth'].format(azimuth)} {NAMES['elevation'].format(elevation)}"

    def index(self, azimuth: Float[Tensor, "B"], elevation: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Which of `cameras` is nearest to each camera."""
        a, e = self.azimuth, self.elevation
        column = ((azimuth - a.first) / a.step).round() % round(360 / a.step)
        column = column.clamp(max=len(a.values) - 1)
        row = ((elevation - e.first) / e.step).round().clamp(0, len(e.values) - 1)
        return (column * len(e.values) + row).long()


def _angles(given: dict[str, int]) -> Angles:
    found = Angles(**given)
    if not all(type(angle) is int for angle in vars(found).values()) or found.step < 1:
        raise ValueError
    if not 1 <= len(found.values) <= MOST or max(map(abs, found.values)) > 360:
        raise ValueError
    return found
