"""Pictures for an asset's textures whose every texel shows where it lies, and the check that a file shows it."""

import numpy as np
from latent_prior.meshes.asset import Asset
from latent_prior.meshes.files import linear_to_srgb

SIZE = 128


def painted(layout, color=lambda points: points / 1.6 + 0.5):
    """Pictures whose every texel has the colour of its place in the frame of training."""
    found = []
    for number in range(layout.textures):
        texels = layout.texels(number, SIZE)
        found.append((texels.picture(color(texels.points)).clip(0, 1) * 255).round().astype(np.uint8))
    return found


def assert_painted(asset: Asset, frame: Asset, tolerance: float) -> None:
    """Each face's middle has the colour of its place."""
    for part in asset.selected:
        thirds = np.full((len(part.faces), 3), 1 / 3)
        shown = linear_to_srgb(part.colour.at(part.faces, thirds))[:, :3]
        place = frame.world(part.vertices[part.faces].mean(axis=1)) / 1.6 + 0.5
        assert np.abs(shown - place).max() < tolerance, part.name
