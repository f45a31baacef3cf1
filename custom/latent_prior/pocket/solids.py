"""The solids of the pocket world, as signed distance functions.

Conventions: z is up, a solid's front faces +x (azimuth 0), +y is to the right of a viewer in front of it, and every
solid fits in a ball of radius `RADIUS` around the origin. A point set is a tuple of three tensors (x, y, z) of the same
shape, because separate coordinates are faster than interleaved ones. Distances are exact or a lower bound near the
surface, so that sphere tracing does not step through thin parts. Formulas of the primitives: I. Quilez, "Distance
functions" (https://iquilezles.org/articles/distfunctions).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from latent_prior import OptionError

RADIUS = 0.8
Points = tuple[Tensor, Tensor, Tensor]


def move(p: Points, dx: float = 0.0, dy: float = 0.0, dz: float = 0.0) -> Points:
    """Points in the frame of a primitive located at (dx, dy, dz)."""
    return p[0] - dx, p[1] - dy, p[2] - dz


def along_x(p: Points) -> Points:
    """Points in the frame of a primitive whose z axis is rotated to +x."""
    return p[1], p[2], p[0]


def along_y(p: Points) -> Points:
    """Points in the frame of a primitive whose z axis is rotated to +y."""
    return p[2], p[0], p[1]


def mirror_y(p: Points) -> Points:
    """Fold space at the plane y = 0, so that a primitive appears on both sides."""
    return p[0], p[1].abs(), p[2]


def union(*distances: Tensor) -> Tensor:
    out = distances[0]
    for d in distances[1:]:
        out = torch.minimum(out, d)
    return out


def blend(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Polynomial smooth union over a length k."""
    h = (k - (a - b).abs()).clamp(min=0) / k
    return torch.minimum(a, b) - h * h * (k / 4)


def sphere(p: Points, r: float) -> Tensor:
    x, y, z = p
    return torch.sqrt(x * x + y * y + z * z) - r


def ellipsoid(p: Points, a: float, b: float, c: float) -> Tensor:
    x, y, z = p
    k0 = torch.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    # exact to first order at the surface; too large far from a flat ellipsoid, which `march` allows for
    k1 = torch.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2)
    return k0 * (k0 - 1) / k1.clamp(min=1e-6)


def box(p: Points, a: float, b: float, c: float, rounding: float = 0.015) -> Tensor:
    """Box of half sizes a, b, c with rounded edges."""
    qx, qy, qz = p[0].abs() - (a - rounding), p[1].abs() - (b - rounding), p[2].abs() - (c - rounding)
    outside = torch.sqrt(qx.clamp(min=0) ** 2 + qy.clamp(min=0) ** 2 + qz.clamp(min=0) ** 2)
    return outside + torch.maximum(qx, torch.maximum(qy, qz)).clamp(max=0) - rounding


def cylinder(p: Points, r: float, half: float, rounding: float = 0.015) -> Tensor:
    """Cylinder about z, half height `half`."""
    radial = torch.sqrt(p[0] ** 2 + p[1] ** 2) - (r - rounding)
    axial = p[2].abs() - (half - rounding)
    outside = torch.sqrt(radial.clamp(min=0) ** 2 + axial.clamp(min=0) ** 2)
    return outside + torch.maximum(radial, axial).clamp(max=0) - rounding


def torus(p: Points, R: float, r: float) -> Tensor:
    ring = torch.sqrt(p[0] ** 2 + p[1] ** 2) - R
    return torch.sqrt(ring**2 + p[2] ** 2) - r


def capsule(p: Points, start: tuple[float, float, float], end: tuple[float, float, float], r: float) -> Tensor:
    ax, ay, az = (e - s for e, s in zip(end, start, strict=True))
    x, y, z = move(p, *start)
    h = ((x * ax + y * ay + z * az) / (ax * ax + ay * ay + az * az)).clamp(0, 1)
    return torch.sqrt((x - ax * h) ** 2 + (y - ay * h) ** 2 + (z - az * h) ** 2) - r


def frustum(p: Points, low: float, high: float, r_low: float, r_high: float) -> Tensor:
    """Truncated cone about z between heights low and high."""
    radial, z = torch.sqrt(p[0] ** 2 + p[1] ** 2), p[2]
    slope = (r_low - r_high) / (high - low)
    side = (radial - (r_low - slope * (z - low))) / math.sqrt(1 + slope * slope)
    return torch.maximum(side, torch.maximum(low - z, z - high))


def _mug(p: Points) -> Tensor:
    body = torch.maximum(cylinder(p, 0.40, 0.48), -cylinder(move(p, dz=0.14), 0.32, 0.5))
    handle = torch.maximum(torus(along_x(move(p, dy=0.42)), 0.22, 0.065), 0.36 - p[1])
    return union(body, handle)


def _snowman(p: Points) -> Tensor:
    body = union(sphere(move(p, dz=-0.38), 0.40), sphere(move(p, dz=0.14), 0.30), sphere(move(p, dz=0.54), 0.21))
    return union(body, capsule(p, (0.15, 0, 0.54), (0.36, 0, 0.52), 0.05))


def _mushroom(p: Points) -> Tensor:
    cap = torch.maximum(ellipsoid(move(p, dz=0.06), 0.6, 0.6, 0.5), 0.06 - p[2])
    return union(cap, frustum(p, -0.62, 0.1, 0.2, 0.13))


def _table(p: Points) -> Tensor:
    leg = box((p[0].abs() - 0.44, p[1].abs() - 0.31, p[2] + 0.115), 0.065, 0.065, 0.385)
    return union(box(move(p, dz=0.30), 0.55, 0.43, 0.06), leg)


def _chair(p: Points) -> Tensor:
    leg = box((p[0].abs() - 0.28, p[1].abs() - 0.28, p[2] + 0.34), 0.06, 0.06, 0.30)
    seat, back = box(move(p, dz=-0.04), 0.35, 0.35, 0.06), box(move(p, -0.29, 0, 0.28), 0.06, 0.34, 0.32)
    return union(leg, seat, back)


def _rocket(p: Points) -> Tensor:
    fins = torch.minimum(box(move(p, dz=-0.42), 0.44, 0.035, 0.16), box(move(p, dz=-0.42), 0.035, 0.44, 0.16))
    return union(frustum(p, -0.52, 0.30, 0.22, 0.22), frustum(p, 0.29, 0.77, 0.22, 0.01), fins)


def _tree(p: Points) -> Tensor:
    crown = union(
        frustum(p, -0.40, 0.10, 0.52, 0.12), frustum(p, -0.05, 0.42, 0.42, 0.08), frustum(p, 0.28, 0.76, 0.30, 0.01)
    )
    return union(crown, cylinder(move(p, dz=-0.54), 0.11, 0.20))


def _house(p: Points) -> Tensor:
    walls = box(move(p, dz=-0.27), 0.37, 0.43, 0.29)
    x, z = p[0].abs(), p[2] - 0.02
    gable = torch.maximum((x + z * 0.85 - 0.46) / math.hypot(1, 0.85), torch.maximum(-z, p[1].abs() - 0.49))
    return union(walls, gable, box(move(p, -0.2, 0.24, 0.42), 0.075, 0.075, 0.2))


def _duck(p: Points) -> Tensor:
    body = ellipsoid(move(p, -0.06, 0, -0.26), 0.50, 0.33, 0.28)
    tail = capsule(p, (-0.40, 0, -0.16), (-0.60, 0, 0.06), 0.09)
    head = sphere(move(p, 0.28, 0, 0.26), 0.23)
    neck = capsule(p, (0.22, 0, -0.14), (0.28, 0, 0.2), 0.14)
    beak = ellipsoid(move(p, 0.55, 0, 0.22), 0.17, 0.12, 0.06)
    return union(blend(blend(body, tail, 0.15), blend(neck, head, 0.08), 0.15), beak)


def _boat(p: Points) -> Tensor:
    hull = torch.maximum(ellipsoid(move(p, dz=-0.2), 0.74, 0.34, 0.36), p[2] + 0.2)
    x, y, z = move(p, 0.08, 0, -0.10)
    # a triangular sail: leading edge along the mast, foot along the deck, leech between them
    leech = (-x * 0.78 + z * 0.52 - 0.416) / math.hypot(0.78, 0.52)
    sail = torch.maximum(torch.maximum(leech, torch.maximum(x, -z)), y.abs() - 0.045)
    return union(hull, sail, cylinder(move(p, 0.11, 0, 0.2), 0.05, 0.52))


def _bird(p: Points) -> Tensor:
    body = ellipsoid(p, 0.42, 0.2, 0.2)
    head = sphere(move(p, 0.38, 0, 0.17), 0.18)
    wings = ellipsoid(move(mirror_y(p), -0.02, 0.38, 0.1), 0.22, 0.40, 0.06)
    tail = ellipsoid(move(p, -0.52, 0, 0.04), 0.26, 0.17, 0.06)
    beak = frustum(along_x(move(p, 0, 0, 0.17)), 0.50, 0.72, 0.08, 0.01)
    return union(blend(body, head, 0.12), wings, tail, beak)


def _ice_cream(p: Points) -> Tensor:
    return union(frustum(p, -0.77, 0.10, 0.02, 0.29), sphere(move(p, dz=0.22), 0.35), sphere(move(p, dz=0.55), 0.22))


def _fire_hydrant(p: Points) -> Tensor:
    body = union(cylinder(move(p, dz=-0.16), 0.25, 0.46), sphere(move(p, dz=0.32), 0.25))
    flanges = union(cylinder(move(p, dz=-0.62), 0.36, 0.07), cylinder(move(p, dz=0.30), 0.31, 0.05))
    knob = cylinder(move(p, dz=0.62), 0.09, 0.10)
    nozzles = union(
        cylinder(along_y(move(mirror_y(p), dy=0.3, dz=0.03)), 0.12, 0.14),
        cylinder(along_x(move(p, dx=0.3, dz=0.03)), 0.15, 0.12),
    )
    return union(body, flanges, knob, nozzles)


def _wine_glass(p: Points) -> Tensor:
    bowl = torch.maximum(ellipsoid(move(p, dz=0.30), 0.37, 0.37, 0.42), -ellipsoid(move(p, dz=0.36), 0.30, 0.30, 0.40))
    bowl = torch.maximum(bowl, p[2] - 0.58)
    return union(bowl, cylinder(move(p, dz=-0.36), 0.06, 0.34), frustum(p, -0.72, -0.62, 0.34, 0.10))


def _jug(p: Points) -> Tensor:
    body = blend(ellipsoid(move(p, dz=-0.26), 0.42, 0.42, 0.44), frustum(p, -0.1, 0.62, 0.20, 0.26), 0.12)
    body = torch.maximum(torch.maximum(body, -frustum(p, 0.15, 0.7, 0.13, 0.20)), -0.66 - p[2])
    handle = torch.maximum(torus(along_x(move(p, dy=0.28, dz=0.16)), 0.27, 0.06), 0.18 - p[1])
    spout = ellipsoid(move(p, 0, -0.24, 0.56), 0.09, 0.16, 0.07)
    return union(body, handle, spout)


# every kind by its name in captions
SOLIDS: dict[str, Callable[[Points], Tensor]] = {
    "sphere": lambda p: sphere(p, 0.6),
    "cube": lambda p: box(p, 0.45, 0.45, 0.45, 0.03),
    "cylinder": lambda p: cylinder(p, 0.42, 0.58),
    "cone": lambda p: frustum(p, -0.52, 0.72, 0.58, 0.01),
    "torus": lambda p: torus(p, 0.52, 0.2),
    "mug": _mug,
    "snowman": _snowman,
    "mushroom": _mushroom,
    "table": _table,
    "chair": _chair,
    "rocket": _rocket,
    "tree": _tree,
    "house": _house,
    "duck": _duck,
    "boat": _boat,
    "bird": _bird,
    "ice cream": _ice_cream,
    "fire hydrant": _fire_hydrant,
    "wine glass": _wine_glass,
    "jug": _jug,
}
KINDS = tuple(SOLIDS)


def signed_distance(kind: str, points: Tensor) -> Tensor:
    """Signed distance (negative inside) of `kind` at points (..., 3), shape (...)."""
    if kind not in SOLIDS:
        raise OptionError.because(f"unknown solid {kind!r}: expected one of {', '.join(KINDS)}")
    return SOLIDS[kind](tuple(points.unbind(-1)))
