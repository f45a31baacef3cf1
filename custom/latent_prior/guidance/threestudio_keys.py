"""Keys of threestudio's own guidances that a copied `guidance:` block may hold, and what they are called here.

Values that change nothing are accepted; others are refused, with the key of ours.
"""

from dataclasses import dataclass
from typing import Any

from latent_prior import OptionError


@dataclass
class ThreestudioKeys:
    """Accepted at the values that mean nothing here; see MEANT for the others."""

    # threestudio's; here timestep_annealing: sqrt.
    sqrt_anneal: bool = False
    # threestudio's SDI; here timestep_annealing: linear.
    t_anneal: bool = False
    # threestudio's image loss of HiFA; here fm_target: pixels.
    use_img_loss: bool = False
    # threestudio's Score Jacobian Chaining, not offered.
    use_sjc: bool = False
    # threestudio's variance reduction of use_sjc; without that it does nothing, there or here.
    var_red: bool = True
    # threestudio's, not offered: half_precision_weights and enable_gradient_checkpointing save memory.
    enable_sequential_cpu_offload: bool = False
    # threestudio's; torch's own attention, which is always used, is memory efficient.
    enable_memory_efficient_attention: bool = False


MEANT = {
    "sqrt_anneal": "false: that is timestep_annealing: sqrt here",
    "t_anneal": "false: that is timestep_annealing: linear here",
    "use_img_loss": "false: that is fm_target: pixels here, with its weight system.loss.lambda_fm",
    "use_sjc": "false: Score Jacobian Chaining is not offered; score: sds is nearest",
    "enable_sequential_cpu_offload": (
        "false: it is not offered; half_precision_weights: true and enable_gradient_checkpointing: true save memory"
    ),
}


def check_threestudio_keys(cfg: Any) -> None:
    """Raise OptionError, with the name of ours, for a key that is set to something that would change the result."""
    for key, expected in MEANT.items():
        if cfg[key]:
            raise OptionError(key, cfg[key], expected)
