"""The guide against balls, boxes and rough sketches, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from latent_prior import OptionError
from latent_prior.meshes import guide as guides
from latent_prior.meshes.guide import Guide, GuideConfig

CPU = torch.device("cpu")
CELLS = 32
STEP = 2 * 0.875 / CELLS  # of the grid of a mesh of radius 0.7
SKETCH = Path(__file__).parents[2] / "configs" / "sketches" / "swan.obj"


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """A guide that is quicker to make."""
    monkeypatch.setattr(guides, "SAMPLES", 20_000)
    monkeypatch.setattr(guides, "CELLS", CELLS)


def points_in(half_edge: float, count: int = 3000) -> torch.Tensor:
    return (torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1) * half_edge


def ball(radius=0.7, centre=(0, 0, 0)) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=2, radius=radius).apply_translation(centre)


def box(extents, centre=(0, 0, 0)) -> trimesh.Trimesh:
    return trimesh.creation.box(extents).apply_translation(centre)


def to_box(points: torch.Tensor, extents, centre=(0, 0, 0)) -> torch.Tensor:
    """Signed distance to a box."""
    beyond = (points - torch.tensor(centre)).abs() - torch.tensor(extents) / 2
    return beyond.clamp(min=0).norm(dim=1) + beyond.amax(dim=1).clamp(max=0)


def test_a_ball():
    """Distances also beyond the grid, where they are at most too large by the way from it."""
    guide, points = Guide.of(ball(), 0.875, CPU), points_in(1.0)
    inside, distance = guide.at(points)
    signed = points.norm(dim=1) - 0.7
    clear = signed.abs() > STEP
    assert torch.equal(inside[clear], signed[clear] < 0) and 0 < inside.float().mean() < 1
    within = (points.abs() < 0.875).all(dim=1)
    torch.testing.assert_close(distance[within], signed[within].abs(), atol=0.8 * STEP, rtol=0)
    beyond = (points - points.clamp(-0.875, 0.875)).norm(dim=1)
    assert (distance >= signed - STEP).all() and (distance <= signed.abs() + 2 * beyond + STEP).all()


def test_axes_of_the_grid():
    extents, centre = (0.3, 0.6, 0.9), (0.2, -0.1, 0.05)
    inside, distance = Guide.of(box(extents, centre), 0.875, CPU).at(points := points_in(0.875))
    signed = to_box(points, extents, centre)
    clear = signed.abs() > STEP
    assert torch.equal(inside[clear], signed[clear] < 0)
    torch.testing.assert_close(distance, signed.abs(), atol=0.8 * STEP, rtol=0)


def test_rough_sketches():
    """Parts that overlap, are wound inwards, in part or whole, or have no lid, are the union of what they mean."""
    ball_part, box_part = ball(0.35, (0, 0, -0.2)), box((0.3, 0.5, 0.9), (0, 0, 0.2))
    points = points_in(0.875)
    signed = torch.minimum(
        (points - torch.tensor([0, 0, -0.2])).norm(dim=1) - 0.35, to_box(points, (0.3, 0.5, 0.9), (0, 0, 0.2))
    )
    inverted = box_part.copy()
    inverted.invert()
    patchy = ball_part.copy()
    patchy.faces[::3] = patchy.faces[::3, ::-1]
    soup = trimesh.Trimesh(box_part.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    for first, second in ((ball_part, box_part), (ball_part, inverted), (patchy, box_part), (patchy, soup)):
        inside, distance = Guide.of(trimesh.util.concatenate([first, second]), 0.875, CPU).at(points)
        clear = signed.abs() > STEP
        assert torch.equal(inside[clear], signed[clear] < 0)
        outside = signed > 0  # where the union's distance is the least of both
        torch.testing.assert_close(distance[outside], signed[outside], atol=0.9 * STEP, rtol=0)


def test_faces_within_another_part_are_no_surface():
    small, large = ball(0.2), ball(0.6)
    inside, distance = Guide.of(trimesh.util.concatenate([small, large]), 0.875, CPU).at(torch.tensor([[0.0, 0, 0.2]]))
    assert inside.item() and distance.item() == pytest.approx(0.4, abs=0.8 * STEP)


@pytest.mark.parametrize("flip", [False, True])
def test_a_ball_without_a_lid(flip):
    """Away from its hole it is a ball."""
    lidless = ball()
    lidless.update_faces(lidless.triangles_center[:, 2] < 0.6)
    if flip:
        lidless.invert()
    inside, _ = Guide.of(lidless, 0.875, CPU).at(points := points_in(0.875))
    signed = points.norm(dim=1) - 0.7
    clear = (signed.abs() > STEP) & (points[:, 2] < 0.4)
    assert torch.equal(inside[clear], signed[clear] < 0)


def test_a_sketch_of_many_pieces_keeps_them(monkeypatch, caplog):
    """Fewer faces than twelve for each of its boxes would take some of them away."""
    monkeypatch.setattr(guides, "FEW_FACES", 100)
    centres = np.stack(np.meshgrid(*[(-0.45, -0.15, 0.15, 0.45)] * 3), axis=-1).reshape(-1, 3)[:50]
    sketch = trimesh.util.concatenate([box((0.2, 0.2, 0.2), centre) for centre in centres])
    inside, _ = Guide.of(sketch.copy(), 0.875, CPU).at(points := points_in(0.875))
    signed = torch.stack([to_box(points, (0.2, 0.2, 0.2), centre) for centre in centres.tolist()]).amin(dim=0)
    clear = signed.abs() > STEP
    assert torch.equal(inside[clear], signed[clear] < 0) and "simplified" not in caplog.text
    monkeypatch.setattr(guides, "MOST_FACES", 300)  # for half of them
    Guide.of(sketch, 0.875, CPU)
    assert re.search(r"simplified to \d+ faces, which changes its volume by \d+%", caplog.text)


def test_a_mesh_without_faces_that_are_left_is_none():
    corners = [[0, 0, 0], [1, 0, 0], [1, 3e-7, 0], [0, 3e-7, 0]]
    assert Guide.of(trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False), 0.875, CPU) is None


def test_a_fine_mesh_is_simplified(monkeypatch):
    monkeypatch.setattr(guides, "FEW_FACES", 200)
    counted = []
    winding_number = guides.winding_number
    monkeypatch.setattr(guides, "winding_number", lambda p, v, f: counted.append(len(f)) or winding_number(p, v, f))
    inside, _ = Guide.of(trimesh.creation.icosphere(5, 0.7), 0.875, CPU).at(points := points_in(0.875))
    assert 0 < max(counted) <= 200
    clear = (points.norm(dim=1) - 0.7).abs() > 2 * STEP
    assert torch.equal(inside[clear], (points.norm(dim=1) < 0.7)[clear])


def test_the_file_is_placed_whatever_its_units(tmp_path):
    """Upright by its format's axes, its middle at the origin, its farthest vertex at `radius`."""
    mesh = box((300, 900, 100), (5000, 0, 70))  # y is up in an .obj, z in an .stl
    points, farthest = points_in(0.6), np.linalg.norm([300, 900, 100]) / 2
    wide, high, deep = (0.5 * edge / farthest for edge in (300, 900, 100))
    for name, settings, extents in (
        ("a.obj", {}, (deep, wide, high)),
        ("a.stl", {}, (high, wide, deep)),
        ("a.stl", {"up": "y", "front": "z"}, (deep, wide, high)),
        ("a.obj", {"up": "x", "front": "z"}, (deep, high, wide)),
    ):
        mesh.export(tmp_path / name)
        guide = Guide.read(GuideConfig(str(tmp_path / name), radius=0.5, **settings), CPU)
        inside, _ = guide.at(points)
        signed = to_box(points, extents)
        clear = signed.abs() > STEP
        assert torch.equal(inside[clear], signed[clear] < 0), (name, settings)


def test_the_sketch_that_is_shipped_stands_upright():
    """The swan's neck rises at +x, in front, and there is air above its back."""
    guide = Guide.read(GuideConfig(str(SKETCH)), CPU)
    points = torch.tensor([[0.2, 0, 0.3], [-0.2, 0, 0.3], [0.0, 0, -0.35], [0.5, 0, -0.35]])
    assert guide.at(points)[0].tolist() == [True, False, True, False]


def test_what_is_refused(tmp_path):
    flat = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], [[0, 1, 2], [1, 3, 2]])
    flat.export(tmp_path / "flat.obj")
    box((1, 1, 1)).export(tmp_path / "box.obj")
    (tmp_path / "words.obj").write_text("no mesh\n")
    for settings, message in (
        ({"mesh": "none.obj"}, r"system\.guide\.mesh: there is no file none\.obj"),
        ({"mesh": str(tmp_path)}, r"system\.guide\.mesh is .* expected a mesh file or the folder of a run"),
        ({"mesh": str(tmp_path / "words.obj")}, r"system\.guide\.mesh: .*words\.obj"),
        ({"mesh": str(tmp_path / "flat.obj")}, r"system\.guide\.mesh: .*flat\.obj encloses nothing"),
        ({"mesh": str(tmp_path / "box.obj"), "up": "w"}, r"system\.guide\.up is 'w'; expected one of"),
        ({"mesh": str(tmp_path / "box.obj"), "front": "y"}, r"system\.guide\.front is 'y'; expected another axis"),
        ({"radius": 0.0}, "radius is 0.0; expected a positive length"),
        ({"sigma": float("inf")}, "sigma is inf; expected a positive length"),
    ):
        with pytest.raises(OptionError, match=message) as caught:
            Guide.read(GuideConfig(**settings), CPU)
        assert "\n" not in str(caught.value)
