"""How much each sample of a ray shows, for fields of densities and of signed distances.

With optical depths tau_i between the camera and sample i, T_i = exp(-tau_i) is the light that gets there, and what the
stretch from i to i + 1 takes of it is its weight. Densities sigma give tau by quadrature over bins (Max 1995, eq. 20;
Mildenhall et al. 2020, eq. 3). Distances f give it in closed form: light goes out as the ray goes in,
    tau_{i+1} - tau_i = max(0, log Phi(f_i) - log Phi(f_{i+1})),   Phi(f) = 1 / (1 + exp(-inv_std f))
(NeuS, Wang et al. 2021, eq. 13, whose section points are our samples, so that no normals are needed; the logarithm is of
its 1 - alpha). 1 / inv_std is the thickness of the surface in world units.
"""

import nerfacc
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def density_weights(
    starts: Float[Tensor, "R S"], ends: Float[Tensor, "R S"], density: Float[Tensor, "R S"]
) -> tuple[Float[Tensor, "R S"], Float[Tensor, "R S"]]:
    """Weights of samples that stand for bins, and the light that gets to each."""
    return nerfacc.render_weight_from_density(starts, ends, density)[:2]


def distance_weights(
    distance: Float[Tensor, "R S"], inv_std: float
) -> tuple[Float[Tensor, "R S"], Float[Tensor, "R S"]]:
    """Weights of samples along rays, and the light that gets to each. A stretch's weight is shared by its two ends."""
    log_phi = F.logsigmoid(inv_std * distance)
    taken = (log_phi[:, :-1] - log_phi[:, 1:]).clamp(min=0)
    light = torch.exp(-F.pad(taken.cumsum(dim=1), (1, 0)))
    stretch = F.pad(light[:, :-1] - light[:, 1:], (1, 1))
    return (stretch[:, :-1] + stretch[:, 1:]) / 2, light


def density_of_distance(distance: Float[Tensor, "*N"], inv_std: float) -> Float[Tensor, "*N"]:
    """The density that takes as much light, per world length, from a ray that goes straight in: -d/df log Phi."""
    return inv_std * torch.sigmoid(-inv_std * distance)
