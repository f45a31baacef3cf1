"""Texture look-ups as loops over pixels and texels; a texture is an array, rows by columns by channels."""

import math

import numpy as np


def mip_levels(texture):
    """The texture and its halvings, each texel the mean of those below it."""
    levels = [texture]
    while levels[-1].shape[:2] != (1, 1):
        last = levels[-1]
        height, width = (max(side // 2, 1) for side in last.shape[:2])
        down, right = last.shape[0] // height, last.shape[1] // width
        made = np.zeros((height, width, last.shape[2]))
        for i in range(height):
            for j in range(width):
                made[i, j] = last[down * i : down * (i + 1), right * j : right * (j + 1)].mean((0, 1))
        levels.append(made)
    return levels


def texel(texture, row, column, boundary):
    height, width = texture.shape[:2]
    if boundary == "wrap":
        return texture[row % height, column % width]
    if boundary == "zero" and not (0 <= row < height and 0 <= column < width):
        return np.zeros(texture.shape[2])
    return texture[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]


def nearest(texture, u, v, boundary):
    height, width = texture.shape[:2]
    if boundary == "wrap":
        u, v = u - math.floor(u), v - math.floor(v)
    return texel(texture, math.floor(v * height), math.floor(u * width), boundary)


def linear(texture, u, v, boundary):
    """The mean of all texels, weighted by tents of one texel's width."""
    height, width = texture.shape[:2]
    x, y = u * width - 0.5, v * height - 0.5
    total = np.zeros(texture.shape[2])
    for row in range(math.floor(y), math.floor(y) + 2):
        for column in range(math.floor(x), math.floor(x) + 2):
            total += (1 - abs(row - y)) * (1 - abs(column - x)) * texel(texture, row, column, boundary)
    return total


def mip_level(texture, uv_da, bias, last):
    """log2 of the largest singular value of the pixel's footprint in texels, plus bias."""
    level = 0.0
    if uv_da is not None:
        height, width = texture.shape[:2]
        jacobian = np.array(uv_da).reshape(2, 2) * [[width], [height]]
        level = math.log2(np.linalg.svd(jacobian, compute_uv=False)[0])
    return min(max(level + bias, 0.0), last)


def mip(levels, u, v, level, boundary, between):
    """At a level: `between` the two next to it, or the lower of them alone."""
    lower = math.floor(level)
    found = linear(levels[lower], u, v, boundary)
    if between and level > lower:
        found = found + (level - lower) * (linear(levels[lower + 1], u, v, boundary) - found)
    return found


# s and t of each face as rows of a matrix, from the table in OpenGL's specification
FACES = {
    0: ((1, 0, 0), (0, 0, -1), (0, -1, 0)),
    1: ((-1, 0, 0), (0, 0, 1), (0, -1, 0)),
    2: ((0, 1, 0), (1, 0, 0), (0, 0, 1)),
    3: ((0, -1, 0), (1, 0, 0), (0, 0, -1)),
    4: ((0, 0, 1), (1, 0, 0), (0, -1, 0)),
    5: ((0, 0, -1), (-1, 0, 0), (0, -1, 0)),
}


def cube_face(direction):
    """(face, s, t) of a direction."""
    face = max(FACES, key=lambda f: np.dot(FACES[f][0], direction))
    out, right, up = (np.dot(axis, direction) for axis in FACES[face])
    return face, (right / out + 1) / 2, (up / out + 1) / 2


def padded_cube(faces):
    """Each face with a border of one texel: those that share an edge of the cube; at corners the mean of three."""
    size = faces.shape[1]

    def border(face, side, k):
        """(row, column of the k-th texel at a side; the edge's two ends on the cube)."""
        at = {"left": (k, 0), "right": (k, size - 1), "low": (0, k), "high": (size - 1, k)}[side]
        ends = {
            "left": ((0, k), (0, k + 1)),
            "right": ((size, k), (size, k + 1)),
            "low": ((k, 0), (k + 1, 0)),
            "high": ((k, size), (k + 1, size)),
        }[side]
        out, right, up = (np.array(axis) for axis in FACES[face])
        points = frozenset(tuple(size * out + (2 * s - size) * right + (2 * t - size) * up) for s, t in ends)
        return at, points

    shared = {}
    for face in range(6):
        for side in ("left", "right", "low", "high"):
            for k in range(size):
                at, points = border(face, side, k)
                shared.setdefault(points, []).append((face, *at))
    padded = np.zeros((6, size + 2, size + 2, faces.shape[3]))
    padded[:, 1:-1, 1:-1] = faces
    for face in range(6):
        for side in ("left", "right", "low", "high"):
            for k in range(size):
                (row, column), points = border(face, side, k)
                ((other, i, j),) = (place for place in shared[points] if place[0] != face)
                down, over = {"left": (0, -1), "right": (0, 1), "low": (-1, 0), "high": (1, 0)}[side]
                padded[face, row + down + 1, column + over + 1] = faces[other, i, j]
        for row, inner_row in ((0, 1), (-1, -2)):
            for column, inner_column in ((0, 1), (-1, -2)):
                three = ((row, inner_column), (inner_row, column), (inner_row, inner_column))
                padded[face, row, column] = sum(padded[face, i, j] for i, j in three) / 3
    return padded


def cube_linear(padded, direction):
    """Bilinear on the padded face."""
    face, s, t = cube_face(direction)
    size = padded.shape[1]
    return linear(padded[face], *((np.array([s, t]) * (size - 2) + 1) / size), "clamp")
