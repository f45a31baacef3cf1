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
    face = tri[int(rast[own[1], own[0]][3]) - 1]
    start, way = np.array(own, float), np.array(other, float) - own
    leaving = []
    for i in range(3):
        a, b = screen[face[(i + 1) % 3]], screen[face[(i + 2) % 3]]
        normal = np.array([b[1] - a[1], a[0] - b[0]])
        if normal @ (screen[face[i]] - a) > 0:
            normal = -normal  # outwards
        if normal @ way > 0:
            leaving.append((normal @ (a - start) / (normal @ way), i, normal))
    t, i, normal = min(leaving, key=lambda entry: entry[0])
    if t > 1 or abs(normal @ way) < abs(normal @ way[::-1]) or not is_silhouette(face, i, screen, tri):
        return
    (x, y), (x_other, y_other) = own, other
    if t < 0.5:
        out[y, x] += (0.5 - t) * (color[y_other, x_other] - color[y, x])
    else:
        out[y_other, x_other] += (t - 0.5) * (color[y, x] - color[y_other, x_other])


def is_silhouette(face, i, screen, tri):
    """Whether no neighbour across the edge opposite to corner i lies on the edge's other side."""
    across = opposite(tri, face, i)
    if across < 0:
        return True
    a, b = screen[face[(i + 1) % 3]], screen[face[(i + 2) % 3]]

    def side(p):
        return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])

    return side(screen[face[i]]) * side(screen[across]) >= 0


def opposite(tri, face, i):
    """The third corner across the edge opposite to corner i of a face, or -1."""
    if len(set(face)) < 3:
        return -1
    ends = {face[(i + 1) % 3], face[(i + 2) % 3]}
    thirds = sorted({c for f in tri for c in f if len(set(f)) == 3 and ends < set(f) and c not in ends})
    if len(thirds) > 1 and face[i] in (thirds[0], thirds[-1]):
        return thirds[-1] if face[i] == thirds[0] else thirds[0]
    return -1
