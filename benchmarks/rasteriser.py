"""Milliseconds of our rasteriser's operations on one core, and of embree's visibility where embreex is installed.

    OMP_NUM_THREADS=1 python benchmarks/rasteriser.py
    python benchmarks/rasteriser.py --sides 64 512 --faces 20000 --views 2 --device cuda

A wavy sphere is seen by cameras around it. The step is the forward and backward pass of rasterize, interpolate and
antialias, for a mesh whose triangles stay (`antialias_construct_topology_hash` is called once). embree needs a tree of
the triangles in device coordinates, hence a new one for each view; its figure holds one view's tree and one ray for each
pixel, to be compared with `visibility`, also of one view. On a CPU it is processor time, all threads together, that is
counted, so that other work on the machine matters little; every figure is the median of the repeats.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from latent_prior import rasteriser
from latent_prior.rasteriser.visibility import visible_triangles
from torch import Tensor


def wavy_sphere(faces: int) -> tuple[Tensor, Tensor]:
    """(vertices, triangles) of about so many triangles: a grid of latitudes and longitudes, with bumps."""
    rows = max(round(math.sqrt(faces / 4)), 2)
    latitude = torch.linspace(0, math.pi, rows + 1)[:, None]
    longitude = torch.arange(2 * rows)[None] * (math.pi / rows)
    radius = 1 + 0.1 * torch.sin(5 * latitude) * torch.cos(7 * longitude)
    x, y, z = latitude.sin() * longitude.cos(), latitude.cos() + 0 * longitude, latitude.sin() * longitude.sin()
    number = torch.arange((rows + 1) * 2 * rows).reshape(rows + 1, -1)
    a, b, c, d = number[:-1], number[:-1].roll(-1, 1), number[1:].roll(-1, 1), number[1:]
    tri = torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])
    return (radius[..., None] * torch.stack([x, y, z], -1)).reshape(-1, 3), tri.int()


def seen(vertices: Tensor, views: int, near: float = 0.1, far: float = 10.0) -> Tensor:
    """Clip coordinates B V 4 from cameras at a distance of 3, all around; the sphere covers two thirds of a picture."""
    clip = []
    for view in range(views):
        angle = 2 * math.pi * view / views
        x = math.cos(angle) * vertices[:, 0] + math.sin(angle) * vertices[:, 2]
        w = 3 - (math.cos(angle) * vertices[:, 2] - math.sin(angle) * vertices[:, 0])
        z = (w * (far + near) - 2 * far * near) / (far - near)
        clip.append(torch.stack([2.6 * x, -2.6 * vertices[:, 1], z, w], 1))
    return torch.stack(clip)


def milliseconds(action: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The median, after an uncounted call."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    taken = []
    for _ in range(repeats + 1):
        begun = clock()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(clock() - begun)
    return 1000 * statistics.median(taken[1:])


def embree(pos: Tensor, tri: Tensor, side: int) -> Callable[[], object] | None:
    """One view's visibility by embree, if embreex is installed."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        return None
    centre = (torch.arange(side) * 2 + 1) / side - 1
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    origins = torch.stack([x, y, torch.full_like(x, -2)], -1).reshape(-1, 3).numpy()
    directions = torch.tensor([0.0, 0, 1]).expand(side * side, 3).contiguous().numpy()
    device_coordinates = (pos[:, :3] / pos[:, 3:]).detach().cpu().contiguous().numpy()
    triangles = tri.cpu().numpy()

    def look() -> object:
        scene = EmbreeScene()
        TriangleMesh(scene, device_coordinates, triangles)
        return scene.run(origins, directions, query="INTERSECT")

    return look


def row(faces: int, side: int, views: int, repeats: int, device: torch.device) -> list[str]:
    """The figures of one mesh and one size of picture."""
    vertices, tri = (part.to(device) for part in wavy_sphere(faces))
    pos = seen(vertices, views).requires_grad_()
    colour = torch.rand(1, len(vertices), 3, device=device, requires_grad=True)
    target = torch.rand(views, side, side, 3, device=device)
    context, size = rasteriser.RasterizeCudaContext(), (side, side)
    topology = rasteriser.antialias_construct_topology_hash(tri)
    rast, _ = rasteriser.rasterize(context, pos, tri, size)
    out, _ = rasteriser.interpolate(colour, rast, tri)

    def step() -> None:
        rast, _ = rasteriser.rasterize(context, pos, tri, size)
        out, _ = rasteriser.interpolate(colour, rast, tri)
        (rasteriser.antialias(out, rast, pos, tri, topology) - target).square().mean().backward()

    actions: list[Callable[[], object] | None] = [
        embree(pos[0], tri, side),
        lambda: visible_triangles(pos[:1].detach(), tri, side, side),
        lambda: rasteriser.rasterize(context, pos, tri, size),
        lambda: rasteriser.interpolate(colour, rast, tri),
        lambda: rasteriser.antialias(out, rast, pos, tri, topology),
        lambda: rasteriser.antialias_construct_topology_hash(tri),
        step,
    ]
    figures = ["-" if action is None else f"{milliseconds(action, repeats, device):.1f}" for action in actions]
    return [f"{len(tri):,}", f"{views} x {side} x {side}", *figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, nargs="+", default=[20_000, 40_000, 1_000_000])
    parser.add_argument("--sides", type=int, nargs="+", default=[64], help="of the square pictures, in pixels")
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    args = parser.parse_args()
    columns = ("faces", "pictures", "embree", "visibility", "rasterize", "interpolate", "antialias", "topology", "step")
    torch.zeros(2**23)  # freed again: then glibc keeps what is freed, as in any training process
    print(f"milliseconds, {args.device}, {torch.get_num_threads()} threads\n")
    print("| " + " | ".join(columns) + " |\n|" + " --: |" * len(columns))
    for side in args.sides:
        for faces in args.faces:
            print("| " + " | ".join(row(faces, side, args.views, args.repeats, args.device)) + " |", flush=True)


if __name__ == "__main__":
    main()
