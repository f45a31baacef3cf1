"""Ray bounds against brute force along the ray."""

import pytest
import torch
from latent_prior.rendering.rays import ray_box, ray_sphere, sample_bins


def _rays(count=300):
    generator = torch.Generator().manual_seed(0)
    origins = 3 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    targets = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return origins, targets - origins


@pytest.mark.parametrize("shape", ["box", "sphere"])
def test_bounds_are_where_brute_force_finds_the_ray_inside(shape):
    origins, directions = _rays()
    box = torch.tensor([[-0.8, -0.5, -0.9], [0.4, 0.7, 0.6]], dtype=torch.float64)
    t = torch.linspace(-2, 4, 6001, dtype=torch.float64)
    points = origins[:, None] + directions[:, None] * t[:, None]
    if shape == "box":
        near, far = ray_box(origins, directions, box)
        inside = ((points > box[0]) & (points < box[1])).all(-1)
    else:
        near, far = ray_sphere(origins, directions, 0.9)
        inside = points.norm(dim=-1) < 0.9
    between = (t > near[:, None]) & (t < far[:, None])
    assert (inside != between).sum(dim=1).max() <= 2  # the sample at either end may fall on the other side
    assert 30 < (far > near).sum() < 270


def test_a_ray_along_an_axis_is_no_division_by_zero():
    origins = torch.tensor([[3.0, 0.2, 0.0], [3.0, 1.2, 0.0], [3.0, 1.0, -1.0]])
    near, far = ray_box(origins, torch.tensor([[-1.0, 0.0, 0.0]]).expand(3, 3), torch.tensor([[-1.0] * 3, [1.0] * 3]))
    assert (near[0], far[0]) == (2, 4)
    assert far[1] <= near[1]
    assert torch.isfinite(near[2]) and torch.isfinite(far[2])


def test_bins_cover_the_chord_and_hold_one_sample_each():
    near, far = torch.tensor([0.5, 2.0]), torch.tensor([1.0, 5.0])
    starts, ends, middle = sample_bins(near, far, 8, jitter=False)
    torch.testing.assert_close(starts[:, 0], near)
    torch.testing.assert_close(ends[:, -1], far)
    torch.testing.assert_close(starts[:, 1:], ends[:, :-1])
    torch.testing.assert_close(middle, (starts + ends) / 2)
    torch.manual_seed(0)
    _, _, jittered = sample_bins(near.expand(500, 2).reshape(-1), far.expand(500, 2).reshape(-1), 8, jitter=True)
    low, high = starts.repeat(500, 1), ends.repeat(500, 1)
    assert (jittered >= low).all() and (jittered <= high).all()
    torch.testing.assert_close(((jittered - low) / (high - low)).mean(), torch.tensor(0.5), atol=0.02, rtol=0)
