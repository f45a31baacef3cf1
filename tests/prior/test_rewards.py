import pytest
import torch
from latent_prior import OptionError
from latent_prior.prior import reward_weights

REWARDS = torch.tensor([[1.0, 3.0], [2.0, 1.0], [0.5, 2.0], [4.0, 0.0], [3.0, 5.0]])  # five noises, two pictures


def test_weights_by_hand():
    assert torch.equal(reward_weights(REWARDS, "none"), torch.full((5, 2), 0.2))
    best = torch.zeros(5, 2)
    best[3, 0] = best[4, 1] = 1
    assert torch.equal(reward_weights(REWARDS, "best"), best)
    weighted = REWARDS.exp() / REWARDS.exp().sum(dim=0)
    torch.testing.assert_close(reward_weights(REWARDS, "weighted"), weighted)
    ends = torch.tensor([[-0.05, 0.45], [0, -0.05], [-0.05, 0], [0.45, -0.05], [0.45, 0.45]])
    torch.testing.assert_close(reward_weights(REWARDS, "min-max"), ends)


def test_few_noises():
    torch.testing.assert_close(reward_weights(REWARDS[:2], "min-max"), torch.tensor([[-0.1, 0.9], [0.9, -0.1]]))
    with pytest.raises(OptionError, match="n_noises is 1; expected at least 2"):
        reward_weights(REWARDS[:1], "min-max")
    with pytest.raises(OptionError, match="reward_strategy is 'worst'"):
        reward_weights(REWARDS, "worst")
