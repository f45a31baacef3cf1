"""The training of the pocket StyleGAN: what each stage minimises, and that killed stages go on as they would have."""

import pytest
import torch
import torch.nn.functional as F
from latent_prior.pocket.mug_scenes import truth
from latent_prior.pocket.training import adversarial, loop, stylegan
from latent_prior.pocket.training.discriminator import Discriminator, detail, group_spread
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from torch import nn

TINY = StyleGAN2Config.of_size(16, z_dim=16, w_dim=16, mapping_layers=2, base=128, most=8)


def tiny() -> StyleGAN2:
    torch.manual_seed(0)
    return StyleGAN2(TINY)


def test_scene_features_are_harmonics_of_the_scene():
    z = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    features = stylegan.scene_features(z)
    direction = torch.complex(z[:, 1], z[:, 0])
    direction = direction / direction.abs()
    for k in range(1, stylegan.AZIMUTH_HARMONICS + 1):  # sin and cos of k times the azimuth are powers of its direction
        torch.testing.assert_close(features[:, 2 * k - 2], (direction**k).imag, rtol=0, atol=2e-5)
        torch.testing.assert_close(features[:, 2 * k - 1], (direction**k).real, rtol=0, atol=2e-5)
    assert features.abs().max() < 2.01


def test_the_mapping_says_the_scene_linearly(tmp_path):
    generator = tiny()
    z = stylegan.codes(1, 2000, TINY.z_dim)
    features = stylegan.scene_features(z)

    def unexplained() -> torch.Tensor:
        w = torch.cat([generator.mapping(z).detach(), torch.ones(len(z), 1)], 1)
        fit = torch.linalg.lstsq(w[:1000], features[:1000]).solution
        return (w[1000:] @ fit - features[1000:]).var(0) / features[1000:].var(0)

    before = unexplained().mean()
    stylegan.train_mapping(tmp_path, generator.mapping, steps=150)
    assert unexplained().mean() < 0.75 * before  # w is too narrow here for all of the features
    assert generator.mapping(z).std().item() == pytest.approx(stylegan.W_SPREAD, rel=0.05)


def test_regression_loss_against_a_loop():
    a, b = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    e = (a - b).tolist()
    at = [(n, c, y, x) for n in range(2) for c in range(3) for y in range(4) for x in range(4)]
    right = [e[n][c][y][x + 1] - e[n][c][y][x] for n, c, y, x in at if x < 3]
    down = [e[n][c][y + 1][x] - e[n][c][y][x] for n, c, y, x in at if y < 3]

    def size(errors):
        return sum((error**2 + stylegan.SMOOTH**2) ** 0.5 for error in errors) / len(errors)

    expected = size([e[n][c][y][x] for n, c, y, x in at]) + stylegan.EDGES * (size(right) + size(down))
    assert stylegan.regression_loss(a, b).item() == pytest.approx(expected, rel=1e-5)


class Killed(Exception):
    """Stands for a SIGKILL between two steps."""


def kill_after(monkeypatch, steps: int):
    """Make the loop die once it has taken so many steps."""
    taken = []

    def learning_rate(*args):
        taken.append(1)
        if len(taken) > steps:
            raise Killed
        return original(*args)

    original = loop.learning_rate
    monkeypatch.setattr(loop, "learning_rate", learning_rate)


def regress(folder):
    z = stylegan.codes(3, 12, TINY.z_dim)
    images = (truth(z, size=16) * 255).byte()
    return stylegan.fit(folder, tiny(), z, images, torch.device("cpu"), steps=6, batch=4)


def compete(folder):
    z = stylegan.codes(3, 12, TINY.z_dim)
    images = (truth(z, size=16) * 255).byte()
    return adversarial.train_adversarially(
        folder, tiny(), z, images, torch.device("cpu"), steps=6, batch=4, path_weight=1.0
    )


def map_scenes(folder):
    generator = tiny()
    stylegan.train_mapping(folder, generator.mapping, steps=6)
    return generator


@pytest.mark.parametrize("stage", [map_scenes, regress, compete])
def test_a_killed_stage_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch, stage):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    whole = stage(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 3)
        stage(tmp_path / "killed")
    resumed = stage(tmp_path / "killed")
    moved = False
    start = tiny().state_dict()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=1e-6)
        moved |= not torch.equal(value, start[name])
    assert moved


def test_pictures_are_rendered_once_and_belong_to_their_codes(tmp_path, monkeypatch):
    monkeypatch.setattr(stylegan, "SHARD", 3)
    z, images = stylegan.true_pictures(tmp_path, 5, seed=9)
    assert images.shape == (6, 3, 64, 64)
    torch.testing.assert_close(images.float() / 255, truth(z), rtol=0, atol=0.5 / 255 + 1e-6)
    monkeypatch.setattr(stylegan, "truth", None)  # rendering again would fail
    again, same = stylegan.true_pictures(tmp_path, 5, seed=9)
    assert torch.equal(z, again) and torch.equal(images, same)


class Quadratic(nn.Module):
    """D(x) = a |x|^2 / 2, whose gradient is a x."""

    def __init__(self, a: float):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x):
        return self.a * x.square().sum((1, 2, 3)) / 2


def test_r1_penalty_of_a_quadratic():
    x = torch.rand(5, 3, 2, 2)
    d = Quadratic(3.0)
    penalty = adversarial.r1_penalty(d, x)
    energy = x.square().sum((1, 2, 3)).mean()
    torch.testing.assert_close(penalty, 0.5 * 9 * energy)
    penalty.backward()
    torch.testing.assert_close(d.a.grad, 3 * energy)


def test_path_length_is_the_jacobians_in_the_direction_drawn():
    generator = tiny().double()
    w_plus = generator.styles(torch.randn(1, 16, dtype=torch.float64)).detach()
    length = adversarial.path_lengths(generator, w_plus, torch.Generator().manual_seed(4))
    y = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(4)).double() / 16
    step, total = 1e-5, 0.0
    base = w_plus.flatten()
    for i in range(base.numel()):  # central differences, entry by entry
        moved = [base.clone(), base.clone()]
        moved[0][i] += step
        moved[1][i] -= step
        high, low = ((generator.synthesis(m.view_as(w_plus), "none") * y).sum() for m in moved)
        total += ((high - low).item() / (2 * step)) ** 2
    assert length.item() == pytest.approx((total / w_plus.shape[1]) ** 0.5, rel=1e-5)


def test_each_network_learns_from_its_own_loss():
    gan = adversarial.GAN(tiny(), Discriminator(16, (8, 8, 8)))
    z, real = torch.randn(4, 16), torch.rand(4, 3, 16, 16) * 2 - 1
    d, g, _ = adversarial.losses(gan, z, real)
    with torch.no_grad():
        logits = gan.discriminator(real), gan.discriminator(gan.generator(z, noise_mode="none"))
        r1 = adversarial.R1_EVERY * adversarial.R1_WEIGHT
    penalty = adversarial.r1_penalty(gan.discriminator, real).detach()
    expected = F.softplus(-logits[0]).mean() + F.softplus(logits[1]).mean() + r1 * penalty
    torch.testing.assert_close(d.detach(), expected)
    torch.testing.assert_close(g.detach(), F.softplus(-logits[1]).mean())
    d.backward(retain_graph=True)
    assert all(p.grad is None for p in gan.generator.parameters())
    assert all(p.grad is not None for p in gan.discriminator.parameters())
    gan.zero_grad()
    g.backward()
    assert all(p.grad is None for p in gan.discriminator.parameters())
    assert any(p.grad is not None and p.grad.any() for p in gan.generator.parameters())


def test_detail_is_blind_to_what_is_coarse():
    flat = torch.rand(2, 3, 1, 1).expand(-1, -1, 16, 16)
    torch.testing.assert_close(detail(flat), torch.zeros_like(flat), rtol=0, atol=1e-6)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    checks = board.expand(1, 3, 16, 16)
    torch.testing.assert_close(detail(checks), 2 * checks)  # its mean over a cell of four is zero


def test_group_spread_of_two_groups():
    x = torch.randn(6, 2, 3, 3)  # groups of gcd(6, 4) = 2: rows 0 and 3, 1 and 4, 2 and 5
    spread = group_spread(x)
    for row in range(6):
        pair = torch.stack([x[row % 3], x[row % 3 + 3]])
        expected = (pair.var(0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(spread[row, 0], expected.expand(3, 3))


def test_discriminator_learns_to_tell_sharp_from_blurred():
    torch.manual_seed(3)
    sharp = (torch.rand(64, 3, 16, 16) > 0.5).float() * 2 - 1
    blurred = F.avg_pool2d(F.pad(sharp, (1, 1, 1, 1), mode="reflect"), 3, 1)
    d = Discriminator(16, (8, 8, 8))
    optimizer = torch.optim.Adam(d.parameters(), 0.02)
    for _ in range(25):
        loss = F.softplus(-d(sharp[:48])).mean() + F.softplus(d(blurred[:48])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = torch.cat([d(sharp[48:]) > 0, d(blurred[48:]) < 0]).float().mean()
    assert right > 0.9
