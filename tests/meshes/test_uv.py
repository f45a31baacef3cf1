"""Texels in faces against a slow loop, and what can and what cannot be painted."""

import numpy as np
import pytest
import trimesh
from latent_prior.meshes import atlas, uv
from latent_prior.meshes.atlas import box_atlas
from latent_prior.meshes.base_colour import BaseColour
from latent_prior.meshes.parts import Part


def part_of(vertices, faces, coordinates) -> Part:
    colour = BaseColour(np.ones(4), None, None, ("repeat", "repeat"), None, "OPAQUE")
    faces, vertices = np.asarray(faces, np.int64), np.asarray(vertices, float)
    return Part("a", ("a", ""), 0, 0, 0, None, vertices, faces, None, np.asarray(coordinates, float), 0, colour, False)


def fault(part: Part) -> str | None:
    found = uv.own_texels(part)
    return found if isinstance(found, str) else None


def grid(n: int, lifted=lambda x, y: 0 * x) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A square of n x n cells: vertices, faces, and coordinates in [0, 1]."""
    x, y = (axis.ravel() for axis in np.meshgrid(*2 * [np.linspace(0, 1, n + 1)]))
    corner = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    quads = np.stack([corner, corner + 1, corner + n + 2, corner + n + 1], axis=1)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return np.stack([x, y, lifted(x, y)], axis=1), faces, np.stack([x, y], axis=1)


def test_texels_are_those_whose_centres_lie_in_the_face(monkeypatch):
    rng = np.random.default_rng(0)
    corners, size = rng.uniform(-3, 19, (60, 3, 2)), 16
    monkeypatch.setattr(uv, "CHUNK", 50)  # so that there are many portions
    found = {tuple(texel) for portion in uv.rasterise(corners, size) for texel in zip(*portion, strict=True)}
    expected = set()
    for index, (a, b, c) in enumerate(corners):
        for row in range(size):
            for column in range(size):
                p = np.array([column + 0.5, row + 0.5])
                sides = [np.linalg.det([q - p, r - p]) for q, r in ((a, b), (b, c), (c, a))]
                if min(sides) > 0 or max(sides) < 0:
                    expected.add((index, row, column))
    assert found == expected and len(found) > 500


def test_faces_that_share_edges_cover_each_texel_once():
    """Also where edges go through centres of texels, and where the mesh is finer than they are."""
    for n in (1, 2, 3, 7, 16, 64, 97):
        vertices, faces, coordinates = grid(n)
        turned = faces[:, [1, 2, 0]]
        turned[::2] = turned[::2][:, [0, 2, 1]]
        for order in (faces, turned):
            assert (uv.coverage(coordinates, order, 64) == 1).all()
    angle = np.array([[0.8, 0.6], [-0.6, 0.8]]) / 2
    counts = uv.coverage((coordinates - 0.5) @ angle + 0.5, faces, 128)
    assert counts.max() == 1 and counts.mean() == pytest.approx(0.25, abs=0.002)


def test_weights_of_a_place_in_a_face():
    rng = np.random.default_rng(0)
    corners, weights = rng.normal(size=(50, 3, 2)), rng.dirichlet([1, 1, 1], 50)
    points = np.einsum("kc,kca->ka", weights, corners)
    np.testing.assert_allclose(uv.barycentric(points, corners), weights, atol=1e-9)


def test_what_can_be_painted():
    vertices, faces, coordinates = grid(8)
    assert fault(part_of(vertices, faces, coordinates)) is None
    mirrored = np.stack([np.abs(coordinates[:, 0] - 0.5), coordinates[:, 1]], axis=1)
    pinched = coordinates.copy()
    pinched[coordinates[:, 1] > 0.6] = [0.3, 0.7]  # three of eight rows of faces, and half of a fourth
    fine_pinch = coordinates.copy()
    fine_pinch[-1] = fine_pinch[-2] = fine_pinch[-10]  # one corner's two faces, 2 of 128
    for name, changed, why in (
        ("mirrored", mirrored, "faces overlap at 100% of their texels"),
        ("tiled", 3 * coordinates, "they leave the texture"),
        ("a little out", coordinates * 1.0005, None),
        ("nan", np.where(coordinates == 0, np.nan, coordinates), "they leave the texture"),
        ("a point", 0 * coordinates + 0.5, "they cover 0.00% of the texture"),
        ("a line", coordinates * [1, 0], "they cover 0.00% of the texture"),
        ("tiny", coordinates * 0.01, "they cover 0.01% of the texture"),
        ("small", coordinates * 0.05, None),
        ("squeezed", pinched, "44% of the surface has no texels"),
        ("a squeezed corner", fine_pinch, "2% of the surface has no texels"),
    ):
        found = fault(part_of(vertices, faces, changed))
        assert found == why, name
    twice = np.concatenate([faces, faces[:3]])  # 3 of 128 faces again: 2.3 % of the texels
    assert fault(part_of(vertices, twice, coordinates)) is None
    twice = np.concatenate([faces, faces[:6]])
    assert fault(part_of(vertices, twice, coordinates * 0.9)) == "faces overlap at 5% of their texels"
    assert fault(part_of(vertices, np.tile(faces, (9, 1)), coordinates)) == "faces overlap"


def bodies() -> dict[str, trimesh.Trimesh]:
    rng = np.random.default_rng(0)
    ball = trimesh.creation.icosphere(subdivisions=4)
    rough = ball.copy()
    rough.vertices *= 1 + 0.2 * np.sin(5 * ball.vertices[:, :1]) + rng.normal(0, 0.01, (len(ball.vertices), 1))
    soup = rough.copy()
    soup.unmerge_vertices()
    spiral, faces, _ = grid(60)  # three floors, one above another: connected, and all facing up
    turn = spiral[:, 0] * 6 * np.pi
    spiral = np.stack([(1 + spiral[:, 1]) * np.cos(turn), (1 + spiral[:, 1]) * np.sin(turn), 0.1 * turn], axis=1)
    return {
        "box": trimesh.creation.box(),
        "torus": trimesh.creation.torus(1, 0.3),
        "rough": rough,
        "soup": soup,
        "spiral": trimesh.Trimesh(spiral, faces, process=False),
    }


def test_a_projected_atlas_covers_nothing_twice_and_shortens_little():
    for name, body in bodies().items():
        vertices, faces = np.asarray(body.vertices), np.asarray(body.faces)
        found = box_atlas(vertices, faces, 256)
        np.testing.assert_array_equal(found.source[found.faces], faces)  # the same faces, in the same order
        assert found.uv.min() >= 0 and found.uv.max() <= 1, name
        counts = uv.coverage(found.uv, found.faces, 512)
        assert uv.shared(counts) < 0.005, name
        assert (counts > 0).mean() > 0.25, name  # measured: 0.42 to 0.65; the spiral's charts are rings, 0.28
        # areas: one scale for all, times the cosine of the projection, of at least STEEPEST
        flat = np.abs(uv.areas(found.uv[found.faces])) / body.area_faces
        assert flat.max() / flat.min() <= 1 / atlas.STEEPEST + 1e-6, name
        # few charts: smooth bodies come apart into a handful
        assert name != "rough" or len(found.uv) < 1.25 * len(vertices)


def test_charts_keep_their_distance():
    body = bodies()["torus"]
    found = box_atlas(np.asarray(body.vertices), np.asarray(body.faces), 256)
    charts = trimesh.graph.connected_component_labels(
        np.concatenate([found.faces[:, [0, 1]], found.faces[:, [1, 2]]]), node_count=len(found.uv)
    )
    low, high = (
        np.stack([choose(found.uv[charts == c], axis=0) for c in range(charts.max() + 1)])
        for choose in (np.min, np.max)
    )
    for a in range(len(low)):
        for b in range(a):
            gap = np.maximum(low[a] - high[b], low[b] - high[a]).max() * 256
            assert gap >= atlas.PADDING - 1e-6
