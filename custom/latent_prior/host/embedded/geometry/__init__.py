"""Fields: density and features at points in space."""

from latent_prior.host.embedded.geometry.base import BaseGeometry
from latent_prior.host.embedded.geometry.implicit_volume import ImplicitVolume
from latent_prior.host.embedded.geometry.volume_grid import VolumeGrid

__all__ = ["BaseGeometry", "ImplicitVolume", "VolumeGrid"]
