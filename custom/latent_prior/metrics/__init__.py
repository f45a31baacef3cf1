"""Metrics as plain functions of pictures, masks, features and points; they need only torch, numpy and scipy.

Conventions:

* pictures are B 3 H W in [0, 1]; masks and opacities B 1 H W, "inside" above 0.5;
* a metric of pictures returns one value per picture, in float64; the caller takes the mean;
* PSNR is in dB; lengths are in the units of the points.
"""

from latent_prior.metrics.features import frechet_distance, mean_cosine_distance, r_precision, ranks
from latent_prior.metrics.pictures import dilate, fog, iou, psnr
from latent_prior.metrics.points import chamfer_distance

__all__ = [
    "chamfer_distance",
    "dilate",
    "fog",
    "frechet_distance",
    "iou",
    "mean_cosine_distance",
    "psnr",
    "r_precision",
    "ranks",
]
