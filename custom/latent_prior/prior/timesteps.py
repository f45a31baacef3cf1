"""Which timesteps are drawn, and how their range narrows during an optimisation.

Bounds are inclusive integers. `progress` is the completed fraction of the optimisation, in [0, 1].
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latent_prior import OptionError
from latent_prior.prior._checks import require_one_of
from latent_prior.prior.schedule import NoiseSchedule

TIMESTEP_SAMPLINGS = ("uniform", "logit_normal")
ANNEALINGS = ("none", "linear", "sqrt", "dreamtime")


def timestep_range(num_timesteps: int, min_percent: float, max_percent: float) -> tuple[int, int]:
    """(t_min, t_max) from fractions of T, rounded down as threestudio does; t_max is at most T - 1.

    Raises OptionError unless 0 <= min_percent <= max_percent <= 1.
    """
    if not 0.0 <= min_percent <= max_percent <= 1.0:
        raise OptionError(
            "max_step_percent", max_percent, f"0 <= min_step_percent ({min_percent}) <= max_step_percent <= 1"
        )
    last = num_timesteps - 1
    return min(int(num_timesteps * min_percent), last), min(int(num_timesteps * max_percent), last)


def sample_timesteps(
    batch: int,
    t_min: int,
    t_max: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    sampling: str = "uniform",
) -> Int[Tensor, " B"]:
    """`batch` timesteps of the integers t_min..t_max: uniform, or logit_normal, which prefers the middle of the range.

    logit_normal: the logistic function of a standard normal number, of the range (Esser et al. 2024,
    arXiv 2403.03206, eq. 19, at location 0 and scale 1).
    Drawn on the generator's own device and then moved, so a CPU generator gives the same timesteps on every machine.
    Raises ValueError for an empty range, OptionError for an unknown name.
    """
    require_one_of(sampling, TIMESTEP_SAMPLINGS, "timestep_sampling")
    if not 0 <= t_min <= t_max:
        raise ValueError(f"timesteps {t_min}..{t_max} are an empty range; expected 0 <= t_min <= t_max")
    drawn_on = device if generator is None else generator.device
    if sampling == "uniform":
        t = torch.randint(t_min, t_max + 1, (batch,), generator=generator, dtype=torch.long, device=drawn_on)
    else:
        share = torch.randn(batch, generator=generator, dtype=torch.float64, device=drawn_on).sigmoid()
        t = t_min + (share * (t_max + 1 - t_min)).long().clamp(max=t_max - t_min)
    return t.to(device)


def annealed_bounds(
    annealing: str,
    progress: float,
    t_min: int,
    t_max: int,
    *,
    t_end: int | None = None,
    schedule: NoiseSchedule | None = None,
) -> tuple[int, int]:
    """Bounds (lowest, highest) to draw from once `progress` of the optimisation is done.

    none       (t_min, t_max) throughout.
    linear     the upper bound falls linearly from t_max to `t_end` (None: down to t_min); draws stay uniform below it.
    sqrt       one timestep, t_max - (t_max - t_min) sqrt(progress): the timestep annealing of Zhu et al. 2023, "HiFA".
    dreamtime  one timestep, see `dreamtime_timestep`; needs the model's `schedule`.
    For the last two both bounds are equal, so nothing is random.
    Raises OptionError for an unknown name, a progress outside [0, 1] or a t_end outside t_min..t_max.
    """
    require_one_of(annealing, ANNEALINGS, "timestep_annealing")
    if not 0.0 <= progress <= 1.0:
        raise OptionError("progress", progress, "a number in [0, 1]")
    if annealing == "none":
        return t_min, t_max
    if annealing == "linear":
        end = t_min if t_end is None else t_end
        if not t_min <= end <= t_max:
            raise OptionError.because(f"timestep {end}; expected one in {t_min}..{t_max}", "anneal_end_percent")
        return t_min, round(t_max - (t_max - end) * progress)
    if annealing == "sqrt":
        t = round(t_max - (t_max - t_min) * progress**0.5)
    else:
        if schedule is None:
            raise ValueError("timestep_annealing 'dreamtime' needs the model's noise schedule; none was given")
        t = dreamtime_timestep(progress, t_min, t_max, schedule)
    return t, t


def dreamtime_weight(
    schedule: NoiseSchedule, centre: float | None = None, width: float | None = None
) -> Float[Tensor, " T"]:
    """DreamTime's W(t), not normalised: how much of the optimisation to spend at each timestep.

    W = W_d W_p with W_d = sqrt((1 - alpha_bar) / alpha_bar) from the model and W_p = exp(-(t - centre)^2 / 2 width^2)
    from perception: mid timesteps shape the content. None: centre T/2 and width T/8, that is 500 and 125 for T = 1000.
    In float64. Where alpha_bar is 0 (zero terminal SNR) W_d would be infinite and leave no share to the others, so the
    smallest alpha_bar above 0 is used there. Source: Huang et al. 2024, "DreamTime" (arXiv 2306.12422).
    """
    num = schedule.num_timesteps
    centre = num / 2 if centre is None else centre
    width = num / 8 if width is None else width
    alpha_bar = schedule.every_alpha_bar.double()
    alpha_bar = alpha_bar.clamp_min(alpha_bar[alpha_bar > 0].min())
    t = torch.arange(num, dtype=torch.float64, device=alpha_bar.device)
    return ((1.0 - alpha_bar) / alpha_bar).sqrt() * torch.exp(-((t - centre) ** 2) / (2.0 * width**2))


def dreamtime_timestep(
    progress: float,
    t_min: int,
    t_max: int,
    schedule: NoiseSchedule,
    centre: float | None = None,
    width: float | None = None,
) -> int:
    """The timestep above which a fraction `progress` of DreamTime's weight lies; it falls from t_max to t_min.

    argmin over t' of |sum of W(t) over t >= t' - progress|, W restricted to t_min..t_max and normalised to sum to one.
    Source: Huang et al. 2024, "DreamTime" (time-prioritised score distillation).
    """
    weight = dreamtime_weight(schedule, centre, width)[t_min : t_max + 1]
    spent = weight.flip(0).cumsum(0)
    return t_max - int((spent / spent[-1] - progress).abs().argmin())
