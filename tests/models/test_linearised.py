import torch
from latent_prior.models.linearised import linearised
from torch.testing import assert_close


def curved(v):
    return (v**3).sum() + v.abs().mean()


def test_value_and_gradient_are_those_of_the_loss():
    v = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    found = linearised(curved, v)
    assert_close(found, curved(v), rtol=0, atol=0)
    (expected,) = torch.autograd.grad(curved(v), v)
    assert_close(torch.autograd.grad(found, v)[0], expected, rtol=1e-14, atol=1e-14)


def test_upstream_weights_and_the_graph_above():
    x = torch.randn(5, dtype=torch.float64, requires_grad=True)
    v = torch.sin(x)
    (expected,) = torch.autograd.grad(0.3 * curved(v) ** 2 + v.sum(), x, retain_graph=True)
    (found,) = torch.autograd.grad(0.3 * linearised(curved, v) ** 2 + v.sum(), x)
    assert_close(found, expected)


def test_the_loss_is_walked_back_once_however_often_its_gradient_is_asked_for():
    walks = []

    def watched(v):
        v = v * 1
        v.register_hook(lambda gradient: walks.append(1) or gradient)
        return v.square().sum()

    v = torch.randn(3, requires_grad=True)
    loss = linearised(watched, v)
    for _ in range(3):
        torch.autograd.grad(loss, v, retain_graph=True)
    assert len(walks) == 1


def test_no_gradient_where_none_can_be_wanted():
    def watched(v):
        assert not torch.is_grad_enabled()
        return v.square().sum()

    assert not linearised(watched, torch.ones(3)).requires_grad
    with torch.no_grad():
        assert not linearised(watched, torch.ones(3, requires_grad=True)).requires_grad
