"""KL regulariser: pulls each channel of a latent, taken as a sample of a Gaussian, towards the standard normal.

mu and sigma^2 are the moments of `v` over its spatial axes, per sample and channel. The variance is the biased one
(divided by h w): the formula is then the exact divergence of the maximum-likelihood Gaussian from N(0, 1).
Source: Liao et al. 2023 (arXiv 2302.08510), the method figure, which exists in two versions. That of February 2023 has
1/2 (mu^2 + sigma - log sigma + 1), which with sigma read as the variance is the divergence but for a constant; that of
April 2023 has 1/2 (mu^2 + sigma^2 - log sigma + 1), our form `paper`, and beside it feature matching summed over levels
with the L1 norm, and score distillation without w(t).
"""

from jaxtyping import Float
from torch import Tensor

from latent_prior.prior._checks import require_one_of

KL_FORMS = ("standard", "paper")
_VARIANCE_FLOOR = 1e-8


def kl_loss(v: Float[Tensor, "B C h w"], form: str = "standard") -> Float[Tensor, ""]:
    """Divergence of v's spatial moments from N(0, 1).

    standard   1/2 (mu^2 + sigma^2 - log sigma^2 - 1): KL(N(mu, sigma^2) || N(0, 1)), minimum 0 at mu = 0, sigma = 1.
    paper      1/2 (mu^2 + sigma^2 - log sigma + 1), as the figure prints it; minimum at sigma = 1/sqrt(2), about 0.707.
    Inside the logarithm the variance is clamped to at least 1e-8, so a constant channel has a large but finite loss.
    Raises OptionError for any other form.

    Reduction: mean over B and C of a function of moments, which are means themselves, so the value does not depend on
    the latent's size. The gradient on one entry of v falls as 1 / (B C h w), as for feature matching.
    """
    require_one_of(form, KL_FORMS, "kl_form")
    mean = v.mean(dim=(2, 3))
    variance = v.var(dim=(2, 3), correction=0)
    log_variance = variance.clamp_min(_VARIANCE_FLOOR).log()
    if form == "standard":
        divergence = 0.5 * (mean**2 + variance - log_variance - 1.0)
    else:
        divergence = 0.5 * (mean**2 + variance - 0.5 * log_variance + 1.0)
    return divergence.mean()
