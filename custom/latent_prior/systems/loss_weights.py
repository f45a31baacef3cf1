"""`system.loss`: the weights of a system's terms, checked before training and applied during it."""

from typing import Any

from torch import Tensor

from latent_prior import OptionError, host
from latent_prior.host.embedded.scalars import C_max, knot_values
from latent_prior.prior import require_finite

# The terms that our guidances return, each with its switch in the guidance's config, if any.
GUIDANCE_TERMS = {
    "latent-prior-guidance": {"sds": "use_sds", "fm": "use_fm", "kl": "use_kl", "directional": "use_directional"},
    "clip-guidance": {"clip_directional": "use_directional", "clip_text": "use_text"},
}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class LossWeights:
    """Mixin of a system: reads `self.cfg.loss`, `{lambda_<term>: number or schedule}`.

    loss_settings: keys of `system.loss` that are not weights but settings of a term: numbers above 0.
    """

    loss_settings: tuple[str, ...] = ()

    def check_loss_weights(self) -> None:
        """Raise OptionError for a weight that is not a number or schedule, or is negative at any step."""
        for key, value in host.config_to_primitive(self.cfg.loss).items():
            if key in self.loss_settings:
                if not is_number(value) or value <= 0:
                    raise OptionError.because(f"system.loss.{key} is {value!r}; expected a number above 0")
                continue
            if not key.startswith("lambda_"):
                expected = " or ".join(["lambda_<term>", *self.loss_settings])
                raise OptionError.because(f"system.loss.{key} is not a weight; expected {expected}")
            if not is_number(value) and not isinstance(value, list):
                raise OptionError(f"system.loss.{key}", value, "a number or a schedule of numbers")
            try:
                values = knot_values(value)
            except OptionError as error:
                raise OptionError(f"system.loss.{key}", value, f"a number or a schedule: {error}") from error
            if not all(0 <= v < float("inf") for v in values):
                raise OptionError(f"system.loss.{key}", value, "a weight >= 0 (a negative one would maximise)")

    def check_terms_known(self, names: tuple[str, ...]) -> None:
        """Raise OptionError for a weight of a term that is not among `names` and would be ignored."""
        known = {f"lambda_{name}" for name in names} | set(self.loss_settings)
        for key in self.cfg.loss:
            if key not in known:
                raise OptionError.because(
                    f"system.loss.{key} is not used by this system; expected one of {', '.join(sorted(known))}"
                )

    def check_guidance_terms(self, own: tuple[str, ...]) -> None:
        """`check_terms_known` for the terms of `cfg.guidance_type` and `own`; other guidances may return any term."""
        terms = GUIDANCE_TERMS.get(self.cfg.guidance_type)
        if terms is not None:
            self.check_terms_known((*terms, *own))

    def check_guidance_switches(self) -> None:
        """`check_switch` for every term of `self.guidance`, if it is one of ours."""
        for term, switch in GUIDANCE_TERMS.get(self.cfg.guidance_type, {}).items():
            if switch is not None:
                self.check_switch(term, switch, self.guidance.cfg[switch])

    def check_switch(self, term: str, switch: str, used: object) -> None:
        """Raise OptionError if a term has a weight, but its switch in the guidance's config is off."""
        if not used and self.highest_weight(term) > 0:
            raise OptionError.because(
                f"system.loss.lambda_{term} is above 0, but system.guidance.{switch} is {used}: set one of them"
            )

    def highest_weight(self, term: str) -> float:
        """The most that a term's weight is at any step."""
        return C_max(self.cfg.loss.get(f"lambda_{term}", 0))

    def weight(self, term: str, required: bool = False) -> float:
        """A term's weight at this step; 0 if there is none, unless it is `required`."""
        key = f"lambda_{term}"
        if required and key not in self.cfg.loss:
            raise OptionError.because(
                f"the guidance returns loss_{term}, but system.loss has no {key}: add it (0 leaves it out)"
            )
        return float(self.C(self.cfg.loss.get(key, 0.0)))

    def weighted_guidance(self, guidance_out: dict[str, Any], prefix: str = "") -> Tensor | float:
        """The weighted sum of a guidance's loss_<term> outputs; logs everything except pictures."""
        total: Tensor | float = 0.0
        for name, value in guidance_out.items():
            if name == "eval":
                continue
            self.log(f"train/{prefix}{name}", value)
            if name.startswith("loss_"):
                term = name.removeprefix("loss_")
                require_finite({name: value})
                total = total + value * self.weight(term, required=True)
        return total

    def weighted(self, term: str, compute) -> Tensor | float:
        """A term of the system's own, computed, checked and logged only while its weight is above 0."""
        weight = self.weight(term)
        if weight == 0:
            return 0.0
        value = compute()
        require_finite({f"loss_{term}": value})
        self.log(f"train/loss_{term}", value)
        return weight * value

    def log_weights(self) -> None:
        """Log the value of every weight at this step."""
        for name, value in self.cfg.loss.items():
            self.log(f"train_params/{name}", self.C(value))
