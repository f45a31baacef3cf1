"""nvdiffrast's operations as loops over pixels, triangles, pairs and texels."""

import math

import numpy as np


def weights_over_w(corners, X, Y):
    """b with sum_i b_i (x_i, y_i, w_i) = (X, Y, 1): the barycentric coordinates over w. None for a singular triangle."""
    matrix = np.asarray(corners, dtype=np.float64)[:, [0, 1, 3]].T
    try:
        return np.linalg.solve(matrix, np.array([X, Y, 1.0]))
    except np.linalg.LinAlgError:
        return None


def centre(index, size):
    return (index + 0.5) / size * 2 - 1


def visible(pos, tri, height, width, tie=1e-9):
    """Per pixel (nearest triangle or -1, its b, all triangles that win if rounding moves edges and depths by `tie`)."""
    picture = []
    for row in range(height):
        for column in range(width):
            hits = []
            for f, face in enumerate(tri):
                b = weights_over_w(pos[face], centre(column, width), centre(row, height))
                if b is None or (b < -tie).any():
                    continue
                z = b @ pos[face][:, 2]
                if abs(z) <= 1 + tie:
                    hits.append((z, f, b, (b >= 0).all() and abs(z) <= 1))
            sure = min(((z, f) for z, f, _, inside in hits if inside), default=None)
            z, f = sure if sure else (math.inf, -1)
            allowed = {g for depth, g, *_ in hits if depth <= z + tie}
            if not any((b > tie).all() and abs(depth) < 1 - tie for depth, _, b, _ in hits):
                allowed.add(-1)
            b = next((b for _, g, b, _ in hits if g == f), None)
            picture.append((f, b, allowed | {f}))
    return picture


def antialiased(color, rast, pos, tri):
    """Pair by pair in pixel units, for corners in front of the camera."""
    views, height, width, _ = color.shape
    out = color.copy()
    for view in range(views):
        screen = (pos[view][:, :2] / pos[view][:, 3:] + 1) / 2 * [width, height] - 0.5  # pixel (i, j) has centre (i, j)
        for row in range(height):
            for column in range(width):
                for right, down in ((1, 0), (0, 1)):
                    if column + right < width and row + down < height:
                        pair = (column, row), (column + right, row + down)
                        _blend(out[view], color[view], rast[view], screen, tri, pair)
    return out


def _blend(out, color, rast, screen, tri, pair):
    pixels = [rast[y, x] for x, y in pair]
    if pixels[0][3] == pixels[1][3]:
        return
    depths = [pixel[2] if pixel[3] > 0 else math.inf for pixel in pixels]
    own, other = pair if depths[0] < depths[1] else pair[::-1]
    numbers = [int(rast[y, x][3]) - 1 for x, y in (own, other)]
    start, way = np.array(own, float), np.array(other, float) - own
    t, normal = silhouette(*numbers, screen, tri, start, way)
    if t > 1 or abs(normal @ way) < abs(normal @ way[::-1]):
        return
    (x, y), (x_other, y_other) = own, other
    if t < 0.5:
        out[y, x] += (0.5 - t) * (color[y_other, x_other] - color[y, x])
    else:
        out[y_other, x_other] += (t - 0.5) * (color[y, x] - color[y_other, x_other])


def silhouette(f, goal, screen, tri, start, way):
    """(t, normal along the way) of the silhouette on the way from `start` in triangle f; t is infinite without one."""
    inwards = screen[tri[f]].mean(0) - start
    start = start + 1e-9 * inwards / (np.linalg.norm(inwards) or 1)  # not through a vertex, nor along an edge
    leaving = []
    for i in range(3):
        t, normal, end = _crossed(screen, tri[f], i, start, way)
        if normal @ (screen[tri[f][i]] - end) < 0 < normal @ way:
            leaving.append((t, i, normal))
    t, i, normal = min(leaving, key=lambda entry: entry[0])
    for _ in range(64):
        if t > 1:
            break
        across = opposite(tri, f, i)
        if across is None:
            return t, normal
        if normal @ (screen[tri[across[0]][across[1]]] - screen[tri[f][i - 1]]) < -1e-12:  # it turns back
            return t, normal
        f, entered = across
        if f == goal:
            break
        # of the two other edges, the one with its ends on different sides of the way
        sides = [way[0] * (screen[v] - start)[1] - way[1] * (screen[v] - start)[0] < 0 for v in tri[f]]
        (i,) = (i for i in range(3) if i != entered and sides[i - 1] != sides[i - 2])
        t, normal, _ = _crossed(screen, tri[f], i, start, way)
    return math.inf, None


def _crossed(screen, face, i, start, way):
    """(t, normal along the way, an end) of the edge opposite to corner i."""
    a, b = screen[face[i - 2]], screen[face[i - 1]]
    normal = np.array([b[1] - a[1], a[0] - b[0]])
    normal = normal if normal @ way >= 0 else -normal
    return normal @ (a - start) / (normal @ way) if normal @ way else math.inf, normal, a


def opposite(tri, f, i):
    """(triangle, corner) across the edge opposite to corner i of triangle f, or None."""
    if len(set(tri[f])) < 3:
        return None
    ends = {tri[f][i - 2], tri[f][i - 1]}
    thirds = sorted(
        (corner, g, k)
        for g, face in enumerate(tri)
        for k, corner in enumerate(face)
        if len(set(face)) == 3 and ends == set(face) - {corner}
    )
    lowest, highest = thirds[0], thirds[-1]
    if lowest[0] == highest[0] or tri[f][i] not in (lowest[0], highest[0]):
        return None
    return (highest if tri[f][i] == lowest[0] else lowest)[1:]
