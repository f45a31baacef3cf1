"""Fields: density or distance, and features, at points in space."""

from latent_prior.host.embedded.geometry.base import BaseImplicitGeometry
from latent_prior.host.embedded.geometry.implicit_sdf import ImplicitSDF
from latent_prior.host.embedded.geometry.implicit_volume import ImplicitVolume
from latent_prior.host.embedded.geometry.volume_grid import VolumeGrid

__all__ = ["BaseImplicitGeometry", "ImplicitSDF", "ImplicitVolume", "VolumeGrid"]
