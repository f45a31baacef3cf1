import math

import pytest
import torch
from latent_prior.guidance.augmented_views import AFFINE, CROP, PERSPECTIVE, draw_views, seen_from
from torch.testing import assert_close


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(2, 3, 8, 12, generator=seeded(1), dtype=torch.float64)


def matrix(*rows):
    return torch.tensor([rows, rows], dtype=torch.float64)


def test_the_identity_shows_the_picture(images):
    assert_close(seen_from(images, matrix((1, 0, 0), (0, 1, 0), (0, 0, 1))), images)


def test_a_mirror_flips(images):
    assert_close(seen_from(images, matrix((-1, 0, 0), (0, 1, 0), (0, 0, 1))), images.flip(-1))


def test_a_shift_by_whole_pixels(images):
    """Two of twelve columns are a third of a half side; what comes in repeats the border."""
    found = seen_from(images, matrix((1, 0, 2 * 2 / 12), (0, 1, 0), (0, 0, 1)))
    assert_close(found[..., :-2], images[..., 2:])
    assert_close(found[..., -2:], images[..., -1:].expand(-1, -1, -1, 2))


def test_a_homography_point_by_point():
    """On a picture that is linear in x, bilinear sampling is exact: every pixel reads off the x that it was sent to."""
    size = 32
    centres = (2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1
    ramp = centres.expand(1, 1, size, size)
    view = torch.tensor([[0.6, 0.1, 0.05], [-0.08, 0.7, 0.02], [0.05, -0.04, 1.0]], dtype=torch.float64)
    found = seen_from(ramp, view[None])
    for row, column in [(0, 0), (3, 29), (17, 8), (31, 31)]:
        x, _, w = (view @ torch.tensor([centres[column], centres[row], 1.0], dtype=torch.float64)).tolist()
        assert float(found[0, 0, row, column]) == pytest.approx(x / w, abs=1e-12)


def test_gradient_against_finite_differences():
    images = torch.rand(1, 1, 4, 5, generator=seeded(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: seen_from(x, draw_views(1, seeded(3))), images)


def test_what_is_drawn_lies_in_the_ranges():
    views = draw_views(4000, seeded())
    assert views.shape == (4000, 3, 3)
    assert (views[:, 2, :2].abs() <= PERSPECTIVE).all()
    assert (views[:, 2, 2] == 1).all()
    # a diagonal entry is side times 1 + stretch, but for the tilt's share of the shift
    slack = PERSPECTIVE * (1 - CROP[0])
    sides = views[:, 1, 1]
    assert CROP[0] * (1 - AFFINE) - slack <= sides.min() < sides.max() <= CROP[1] * (1 + AFFINE) + slack
    # half of them mirrored: four standard deviations of a fair coin
    share = (views[:, 0, 0] < 0).double().mean()
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(4000)
    # the part that is shown lies within the picture, but for turn, stretch and tilt
    reach = (views[:, :2, 2].abs() + views[:, [0, 1], [0, 1]].abs()).max()
    assert reach <= 1 + AFFINE + PERSPECTIVE


def test_draws_come_from_the_generator_or_else_torchs():
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first = draw_views(3, seeded(7))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(draw_views(3), first)
    assert not torch.equal(draw_views(3), first)
