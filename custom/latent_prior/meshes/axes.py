"""Axes of mesh files: which way is up and which is the front, and the map to the frame of training.

Conventions. Asset: glTF's, y up. Training frame: z up, front towards +x, the bounding box's centre at the origin.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from latent_prior import OptionError

AXES = ("x", "-x", "y", "-y", "z", "-z")
FRONTS = {"x": "y", "y": "z", "z": "-y"}  # of an up axis, where nothing else is known
Y_UP = np.eye(3)
Z_UP = np.array(
    [[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]
)  # (x, y, z) of a file that is z up becomes (x, z, -y), as in Blender


@dataclass(frozen=True)
class Axes:
    """Up and front of a file, in its own coordinates, and the rotation that brings these into the asset's."""

    up: str
    front: str
    to_asset: Float[np.ndarray, "3 3"]

    def overridden(self, up: str | None, front: str | None) -> "Axes":
        """With what a user says. OptionError (field "up" or "front") for unknown axes, or two along the same."""
        for key, axis in (("up", up), ("front", front)):
            if axis is not None and axis not in AXES:
                raise OptionError(key, axis, f"one of {', '.join(AXES)}")
        new_up = self.up if up is None else up
        if front is None:
            front = self.front if self.front[-1] != new_up[-1] else FRONTS[new_up[-1]]
        elif front[-1] == new_up[-1]:
            raise OptionError("front", front, f"another axis than up, which is {new_up}")
        return Axes(new_up, front, self.to_asset)

    def rotation(self) -> Float[np.ndarray, "3 3"]:
        """From the asset's frame to that of training."""
        up, front = (self.to_asset @ _vector(axis) for axis in (self.up, self.front))
        return np.stack([front, np.cross(up, front), up])


def _vector(axis: str) -> Float[np.ndarray, "3"]:
    vector = np.zeros(3)
    vector["xyz".index(axis[-1])] = -1.0 if axis[0] == "-" else 1.0
    return vector


def of_format(fmt: str, marked: str | None) -> Axes:
    """The axes of a file of a format. marked: the up axis in a file of ours, whose mark names it (see files.UP_MARK).

    Whatever the axes, the file's numbers come into the asset in the one way in which its place in Blender stays.
    """
    usual = Axes("y", "z", Y_UP) if fmt in ("glb", "gltf", "obj") else Axes("z", "-y", Z_UP)
    if marked is None:
        return usual
    return Axes(marked, {"y": "z", "z": "x"}[marked], usual.to_asset)


def to_training(
    points: Float[np.ndarray, "N 3"], rotation: Float[np.ndarray, "3 3"], radius: float
) -> Float[np.ndarray, "4 4"]:
    """The matrix that rotates, brings the centre of the points' box to the origin, and the farthest of them to `radius`.

    OptionError if all points lie in one place.
    """
    turned = points @ rotation.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    centre = low / 2 + high / 2
    farthest = float(np.linalg.norm(turned - centre, axis=1).max())
    if not farthest > 1e-12 * max(1.0, float(abs(centre).max())) or not np.isfinite(farthest):
        raise OptionError.because(
            f"its vertices lie within {farthest:.1e} of one another, around {centre.round(6).tolist()}"
        )
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * (radius / farthest)
    matrix[:3, 3] = -centre * (radius / farthest)
    return matrix
