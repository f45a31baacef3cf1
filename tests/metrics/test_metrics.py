"""Figures against closed forms and slow loops."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from latent_prior import metrics
from latent_prior.metrics import pictures
from torch.testing import assert_close


def discs(size, radius, shift=0.0):
    """A mask of a disc about the middle, moved to the right, as 1 1 H W."""
    x = torch.arange(size) - (size - 1) / 2
    return ((x[None] - shift) ** 2 + x[:, None] ** 2 < radius**2).float()[None, None]


def test_iou_of_concentric_discs_is_the_ratio_of_their_areas():
    (iou,) = metrics.iou(discs(200, 40), discs(200, 80)).tolist()
    assert iou == pytest.approx(0.25, abs=0.003)  # 40^2 / 80^2, up to pixels


def test_iou_comes_by_picture_and_empty_masks_agree():
    masks = torch.zeros(3, 1, 4, 4)
    masks[0, 0, :2] = 1
    opacity = torch.zeros_like(masks)
    opacity[0, 0, 1:3] = 0.6  # half of the truth, and as much beside it
    opacity[1, 0, 0, 0] = 0.4  # not over one half: as good as nothing
    opacity[2, 0, 0, 0] = 0.6
    assert metrics.iou(opacity, masks).tolist() == pytest.approx([1 / 3, 1, 0])


def test_iou_does_not_reward_swapped_views():
    masks = torch.cat([discs(64, 10, -15), discs(64, 10, 15)])
    assert metrics.iou(masks, masks).tolist() == [1, 1]
    assert metrics.iou(masks.flip(0), masks).tolist() == [0, 0]


def test_psnr_of_a_constant_error():
    truth = torch.full((2, 3, 8, 8), 0.5)
    off = truth.clone()
    off[0] += 0.1
    off[1] -= 0.01
    assert metrics.psnr(off, truth).tolist() == pytest.approx([20, 40], abs=1e-4)


def test_psnr_of_equal_pictures_is_infinite_or_the_cap():
    picture = torch.rand(2, 3, 8, 8)
    assert metrics.psnr(picture, picture.clone()).tolist() == [math.inf, math.inf]
    assert metrics.psnr(picture, picture.clone(), cap=100).tolist() == [100, 100]
    assert metrics.psnr(picture, picture * 0.9, cap=5).tolist() == [5, 5]


def test_psnr_where_a_mask_says():
    a, where = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 1, 4, 4)
    where[..., 0, 0] = 1
    b = a.clone()
    b[:, :, 1:, :] += 0.2
    assert metrics.psnr(a, b, where).item() == math.inf
    assert metrics.psnr(a, b).item() == pytest.approx(-10 * math.log10(0.04 * 12 / 16), abs=1e-4)
    b[:, 1, 0, 0] -= 0.3
    assert metrics.psnr(a, b, where).item() == pytest.approx(-10 * math.log10(0.09 / 3), abs=1e-4)
    assert metrics.psnr(a, b, where * 0).isnan().all()


def test_one_byte_of_difference_stays_below_a_cap_of_100():
    a = torch.zeros(1, 3, 226, 226)
    b = a.clone()
    b[0, 0, 0, 0] = 1 / 255
    assert 99.9 < metrics.psnr(a, b).item() < 100


@pytest.mark.parametrize("margin", [1, 2, 3])
def test_dilation_against_a_loop(margin):
    mask = (torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)) > 0.93).float()
    slow = torch.zeros_like(mask)
    for i, j in (mask[0, 0] > 0).nonzero().tolist():
        slow[0, 0, max(0, i - margin) : i + margin + 1, max(0, j - margin) : j + margin + 1] = 1
    assert_close(metrics.dilate(mask, margin), slow, rtol=0, atol=0)


def test_fog_is_only_looked_for_outside_the_margin():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 4] = 0.25  # barely touched counts
    picture = torch.ones(1, 3, 9, 9)
    picture[..., 2:7, 2:7] = 0  # the margin of 2 around it
    assert metrics.fog(picture, mask) == 0
    picture[:, 0, 0, 0] = 0.4
    assert metrics.fog(picture, mask) == pytest.approx(0.6 / 3 / (81 - 25))
    assert metrics.fog(torch.full((1, 3, 9, 9), 0.9), mask) == pytest.approx(0.1)


def test_fog_needs_a_free_pixel():
    with pytest.raises(ValueError, match="every pixel"):
        metrics.fog(torch.ones(1, 3, 4, 4), torch.ones(1, 1, 4, 4))


def test_chamfer_against_all_pairs():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(70, 3)), rng.normal(size=(50, 3)) + 0.3
    pairs = np.linalg.norm(a[:, None] - b[None], axis=-1)
    assert metrics.chamfer_distance(a, b) == pytest.approx((pairs.min(1).mean() + pairs.min(0).mean()) / 2)
    assert metrics.chamfer_distance(a, b) == pytest.approx(metrics.chamfer_distance(b, a))


def test_chamfer_of_concentric_spheres_is_their_gap():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2, 10_000, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    assert metrics.chamfer_distance(directions[0] * 0.5, directions[1] * 0.8) == pytest.approx(0.3, rel=0.01)


def test_chamfer_of_a_subset_counts_one_way_only():
    a = np.array([[0.0, 0, 0]])
    b = np.array([[0.0, 0, 0], [0, 0, 3.0]])
    assert metrics.chamfer_distance(a, b) == pytest.approx((0 + 1.5) / 2)


def test_chamfer_needs_points():
    with pytest.raises(ValueError, match="got 0 and 1"):
        metrics.chamfer_distance(np.zeros((0, 3)), np.zeros((1, 3)))


def test_ranks_against_sorting():
    similarities = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    meant = torch.randint(30, (20,), generator=torch.Generator().manual_seed(1))
    slow = [
        sorted(row.tolist(), reverse=True).index(row[m].item()) + 1 for row, m in zip(similarities, meant, strict=True)
    ]
    assert metrics.ranks(similarities, meant).tolist() == slow
    assert metrics.r_precision(similarities, meant) == pytest.approx(sum(r == 1 for r in slow) / 20)


def test_a_tie_is_no_hit():
    assert metrics.r_precision(torch.zeros(1, 5), torch.tensor([2])) == 0


def test_pictures_of_different_sizes_are_refused():
    refusal = pytest.raises((ValueError, TypeCheckError))  # the second is what the tests' checker says before we can
    with refusal:
        metrics.psnr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8))
    with refusal:
        metrics.iou(torch.zeros(1, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"must be of one shape, got \(1, 2\) and \(2, 2\)"):
        pictures._require_same_shape("a", torch.zeros(1, 2), "b", torch.zeros(2, 2))


def test_diversity_is_the_mean_over_pairs():
    features = torch.randn(7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5 + 2
    pairs = [(a, b) for i, a in enumerate(features) for b in features[i + 1 :]]
    slow = sum(1 - (a @ b / (a.norm() * b.norm())).item() for a, b in pairs) / len(pairs)
    assert metrics.mean_cosine_distance(features) == pytest.approx(slow, rel=1e-12)


def test_diversity_of_one_direction_and_of_opposite_ones():
    line = torch.tensor([[1.0, 2.0], [2.0, 4.0], [0.5, 1.0]])
    assert metrics.mean_cosine_distance(line) == pytest.approx(0, abs=1e-12)
    assert metrics.mean_cosine_distance(torch.stack([line[0], -line[0]])) == pytest.approx(2)
    with pytest.raises(ValueError, match="two pictures or more, got 1"):
        metrics.mean_cosine_distance(line[:1])
