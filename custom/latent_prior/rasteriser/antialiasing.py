"""Antialiasing of silhouettes, which carries the gradients of visibility (Laine et al. 2020, "Modular primitives for
high-performance differentiable rendering", section 3.4).

Between the centres of two neighbouring pixels, of which "own" sees the nearer surface, a silhouette of that surface
crosses the way at the fraction t. It is taken as the surface's border: for t < 1/2 it crosses the own pixel, of which the
share 1/2 - t gets the other's colour; for t > 1/2 the other pixel, of which t - 1/2 gets the own colour. Only edges
within 45 degrees of perpendicular to the way count; pairs along the other axis take care of the rest.

The paper, and nvdiffrast, look for the silhouette among the edges of the one triangle that the own pixel sees, which
finds none where triangles are smaller than a pixel. Here the search goes beyond that triangle, over up to 64 others
(silhouettes.py), so that outlines of fine meshes are blended too and their vertices have gradients.
"""

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from latent_prior.rasteriser.edges import corners, cross, pixel_centres, value
from latent_prior.rasteriser.silhouettes import silhouettes


def antialias(
    color: Float[Tensor, "B H W C"],
    rast: Float[Tensor, "B H W 4"],
    pos: Float[Tensor, "B V 4"] | Float[Tensor, "V 4"],
    tri: Int32[Tensor, "F 3"],
    topology_hash: Int[Tensor, "F 3"] | None = None,
    pos_gradient_boost: float = 1.0,
) -> Float[Tensor, "B H W C"]:
    """The picture with its silhouettes blended. Gradients reach `color` and `pos`.

    rast: from `rasterize` of the same `pos` and `tri`.
    topology_hash: `opposite_half_edges(tri)`; None works it out anew.
    pos_gradient_boost: factor of the gradient that reaches `pos`.
    """
    _, height, width, channels = color.shape
    pairs = silhouettes(rast.detach(), pos.detach(), tri, topology_hash)
    x, y, _, w = corners(pos, pairs.ends, pairs.own // (height * width))
    edge = cross(*((x[i], y[i], w[i]) for i in (0, 1)))
    here, there = (
        value(edge, pixel_centres(pixel % width, width), pixel_centres(pixel // width % height, height))
        for pixel in (pairs.own, pairs.other)
    )
    t = here / (here - there)
    t = torch.where((t > 0) & (t < 1), t, t.detach())  # saturated: without gradient
    if t.requires_grad and pos_gradient_boost != 1:
        t.register_hook(lambda gradient: gradient * pos_gradient_boost)

    flat = color.reshape(-1, channels)
    difference = flat.index_select(0, pairs.own) - flat.index_select(0, pairs.other)
    blended = torch.where(t > 0.5, pairs.other, pairs.own)
    return flat.index_add(0, blended, (t - 0.5).to(color.dtype)[:, None] * difference).reshape(color.shape)
