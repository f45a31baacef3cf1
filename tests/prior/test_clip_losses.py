import math

import pytest
import torch
import torch.nn.functional as F
from latent_prior.prior import directional_loss, spherical_distance, structure_loss
from latent_prior.prior.clip_losses import SHORTEST_DIRECTION


@pytest.fixture
def unit(randn):
    """Random unit vectors of a given shape."""
    return lambda *shape: F.normalize(randn(*shape), dim=-1)


def gradient(loss, x):
    return torch.autograd.grad(loss, x)[0]


def at_angle(*angles):
    """Unit vectors of the plane."""
    angles = torch.tensor(angles, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], -1)


# The directional loss. -----------------------------------------------------------------------------------------------


def test_directional_loss_against_the_loop(unit):
    now, before, to, source = (unit(3, 5) for _ in range(4))
    expected = 0.0
    for a, b, c, d in zip(now.tolist(), before.tolist(), to.tolist(), source.tolist(), strict=True):
        way, wanted = [x - y for x, y in zip(a, b, strict=True)], [x - y for x, y in zip(c, d, strict=True)]
        dot = sum(x * y for x, y in zip(way, wanted, strict=True))
        expected += 1 - dot / (math.hypot(*way) * math.hypot(*wanted))
    assert float(directional_loss(now, before, to, source)) == pytest.approx(expected / 3, rel=1e-12)


def test_along_across_and_against():
    """The picture goes from (1, 0); the texts say: along y."""
    before, source = at_angle(0.0), torch.zeros(1, 2, dtype=torch.float64)
    to = torch.tensor([[0.0, 2.0]], dtype=torch.float64)
    for way, expected in [((0.0, 0.7), 0.0), ((0.7, 0.0), 1.0), ((0.0, -0.7), 2.0), ((0.5, 0.5), 1 - math.sqrt(0.5))]:
        now = before + torch.tensor([way], dtype=torch.float64)
        assert float(directional_loss(now, before, to, source)) == pytest.approx(expected, abs=1e-12)


def test_one_pair_of_texts_serves_all_pictures(unit):
    now, before, to, source = unit(4, 6), unit(4, 6), unit(1, 6), unit(1, 6)
    repeated = directional_loss(now, before, to.repeat(4, 1), source.repeat(4, 1))
    torch.testing.assert_close(directional_loss(now, before, to, source), repeated)


@pytest.mark.parametrize("length", [0.9, 0.01, 0.0])  # above and below the shortest, and no way at all
def test_directional_gradient_against_finite_differences(unit, length):
    before, to, source = unit(2, 4), unit(1, 4), unit(1, 4)
    now = (before + length * unit(2, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: directional_loss(x, before, to, source), now)


def test_at_its_source_the_picture_is_sent_along_the_texts(unit):
    before, to, source = unit(2, 4), unit(1, 4), unit(1, 4)
    now = before.clone().requires_grad_()
    loss = directional_loss(now, before, to, source)
    assert float(loss.detach()) == 1.0
    expected = -F.normalize(to - source, dim=-1).expand(2, -1) / SHORTEST_DIRECTION / 2
    torch.testing.assert_close(gradient(loss, now), expected)


def test_no_step_of_the_way_has_a_steeper_gradient_than_its_beginning(unit):
    before, to, source = unit(1, 4), unit(1, 4), unit(1, 4)
    across = unit(1, 4)
    for length in (0.0, 1e-12, 1e-3, 0.049, 0.051, 0.5):
        now = (before + length * across).requires_grad_()
        slope = gradient(directional_loss(now, before, to, source), now).norm()
        assert slope <= (1 + 1e-9) / SHORTEST_DIRECTION


def test_equal_texts_say_nothing(unit):
    now, before, text = unit(2, 4).requires_grad_(), unit(2, 4), unit(1, 4)
    loss = directional_loss(now, before, text, text)
    assert float(loss.detach()) == 1.0
    assert torch.equal(gradient(loss, now), torch.zeros_like(now))


# The spherical distance. ---------------------------------------------------------------------------------------------


def test_spherical_distance_is_half_the_squared_angle():
    angles = [0.0, 1e-6, 0.3, math.pi / 2, 3.0, math.pi]
    found = spherical_distance(at_angle(*angles), at_angle(*[0.0] * len(angles)))
    expected = torch.tensor([angle**2 / 2 for angle in angles], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_spherical_distance_is_the_printed_formula(unit):
    x, y = unit(5, 8), unit(5, 8)
    torch.testing.assert_close(spherical_distance(x, y), 2 * torch.arcsin((x - y).norm(dim=-1) / 2) ** 2)
    torch.testing.assert_close(spherical_distance(x, y[:1]), spherical_distance(x, y[:1].repeat(5, 1)))


def test_spherical_gradient_is_the_printed_formulas_on_the_sphere(unit):
    """The two forms differ off the sphere, where embeddings, which are normalised, never go."""
    x, y = unit(5, 8).requires_grad_(), unit(5, 8)
    ours = gradient(spherical_distance(F.normalize(x, dim=-1), y).sum(), x)
    printed = gradient((2 * torch.arcsin((F.normalize(x, dim=-1) - y).norm(dim=-1) / 2) ** 2).sum(), x)
    torch.testing.assert_close(ours, printed)
    assert torch.autograd.gradcheck(lambda x: spherical_distance(F.normalize(x, dim=-1), y), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_spherical_gradient_is_finite_for_equal_and_opposite_vectors(unit, dtype, sign):
    x = unit(20, 64).to(dtype).requires_grad_()
    distance = spherical_distance(x, sign * x.detach())
    wanted = 0.0 if sign == 1 else math.pi**2 / 2
    torch.testing.assert_close(distance.detach(), torch.full_like(distance, wanted))
    assert torch.isfinite(gradient(distance.sum(), x)).all()


# The structure loss. -------------------------------------------------------------------------------------------------


def test_structure_loss_against_the_loop(randn):
    a, b = randn(2, 3, 3), randn(2, 3, 3)
    squares = [(x - y) ** 2 for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)]
    assert float(structure_loss(a, b)) == pytest.approx(sum(squares) / 18, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: structure_loss(x, b), a.requires_grad_())
