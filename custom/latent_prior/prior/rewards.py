"""Rewarded noise: of several noises for a picture, those count more that lead to clean estimates a judge likes.

Source: Chachy et al. 2025, "RewardSDS: Aligning Score Distillation via Reward-Weighted Sampling" (arXiv 2503.09601),
under the names of its released code.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from latent_prior import OptionError
from latent_prior.prior._checks import require_one_of

REWARD_STRATEGIES = ("none", "best", "weighted", "min-max")
TOWARDS, AWAY = 0.9, 0.1  # of min-max: the weights of the best noises and, negative, of the worst
MOST_CHOSEN = 2  # of min-max: how many noises are best, and how many are worst; fewer if there are not twice as many


def reward_weights(rewards: Float[Tensor, "n B"], strategy: str) -> Float[Tensor, "n B"]:
    """The weight of each of n noises in the sum over a picture's residuals.

    none: all 1/n. best: 1 for the best, 0 for the others. weighted: the softmax of the rewards. min-max: 0.9 for the mean
    of the two best and -0.1 for that of the two worst. Raises OptionError for an unknown strategy, and for min-max with
    less than two noises.
    """
    require_one_of(strategy, REWARD_STRATEGIES, "reward_strategy")
    count = len(rewards)
    if strategy == "none":
        return torch.full_like(rewards, 1 / count)
    if strategy == "weighted":
        return rewards.softmax(dim=0)
    order = rewards.argsort(dim=0, descending=True)
    by_rank = torch.zeros_like(rewards)
    if strategy == "best":
        by_rank[0] = 1
    else:
        chosen = min(MOST_CHOSEN, count // 2)
        if chosen == 0:
            raise OptionError("n_noises", count, "at least 2 with reward_strategy: min-max")
        by_rank[:chosen], by_rank[-chosen:] = TOWARDS / chosen, -AWAY / chosen
    return torch.zeros_like(rewards).scatter(0, order, by_rank)
