"""Metrics that compare points on two surfaces, given as arrays."""

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree


def chamfer_distance(a: Float[np.ndarray, "N 3"], b: Float[np.ndarray, "M 3"]) -> float:
    """1/2 (mean over a of the distance to the nearest of b + mean over b of the distance to the nearest of a).

    Distances are Euclidean and not squared. Between two samples of the same surface it is not zero but about half the
    spacing of the points. Raises ValueError for an empty set.
    """
    if len(a) == 0 or len(b) == 0:
        raise ValueError(f"the Chamfer distance needs points on both sides, got {len(a)} and {len(b)}")
    to_b, _ = cKDTree(b).query(a)
    to_a, _ = cKDTree(a).query(b)
    return float(to_b.mean() + to_a.mean()) / 2
