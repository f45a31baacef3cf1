"""Meshes in clip space for the tests: random ones of every kind, and an octahedron seen by cameras."""

import math

import torch

KINDS = ("soup", "orthographic", "behind", "tiny", "huge", "degenerate")


def random_mesh(seed: int):
    """(pos V 4 in float64, tri F 3, height, width), of a kind that varies with the seed."""
    g = torch.Generator().manual_seed(seed)
    kind = KINDS[seed % len(KINDS)]
    num_vertices = int(torch.randint(3, 12, (), generator=g))
    num_faces = int(torch.randint(1, 12, (), generator=g))
    height, width = torch.randint(1, 12, (2,), generator=g).tolist()
    faces = [torch.randperm(num_vertices, generator=g)[:3].tolist() for _ in range(num_faces)]
    tri = torch.tensor(list({frozenset(face): face for face in faces}.values()), dtype=torch.int32)
    pos = torch.rand(num_vertices, 4, generator=g, dtype=torch.float64) * 3 - 1.5
    pos[:, 3] = 0.5 + torch.rand(num_vertices, generator=g)
    pos[:, :3] *= pos[:, 3:]  # some of it beyond the sides
    if kind == "orthographic":
        pos[:, 3] = 1
    elif kind == "behind":
        pos[:, 3] -= 0.8
        pos[:, 2] *= 0.2
    elif kind == "tiny":
        pos[:, :2] = 0.5 * pos[:1, :2] / pos[:1, 3:] * pos[:, 3:] + 0.2 * pos[:, :2]
    elif kind == "huge":
        pos[:, :2] *= 100
    elif kind == "degenerate":
        pos[-1] = pos[0]
        tri[0, 1] = tri[0, 0]
    return pos, tri, height, width


def octahedron():
    """(vertices 6 3, triangles 8 3)."""
    vertices = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    tri = [[x, y, z] if (x + y + z) % 2 == 0 else [y, x, z] for x in (0, 1) for y in (2, 3) for z in (4, 5)]
    return vertices, torch.tensor(tri, dtype=torch.int32)


def seen(vertices, angles, distance=3.0, tilt=0.4, near=0.5, far=10.0, focal=2.0):
    """Clip coordinates B V 4 of vertices V 3, seen by perspective cameras that look at the origin."""
    views = []
    for angle in angles:
        c, s, ct, st = math.cos(angle), math.sin(angle), math.cos(tilt), math.sin(tilt)
        turn = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=vertices.dtype)
        nod = torch.tensor([[1, 0, 0], [0, ct, -st], [0, st, ct]], dtype=vertices.dtype)
        x, y, z = (vertices @ (nod @ turn).T - torch.tensor([0, 0, distance], dtype=vertices.dtype)).unbind(1)
        depth = (-z * (far + near) - 2 * far * near) / (far - near)
        views.append(torch.stack([focal * x, focal * y, depth, -z], 1))
    return torch.stack(views)
