import pytest
from latent_prior.models.options import PriorOptions


def test_defaults_are_threestudios():
    options = PriorOptions()
    assert (options.guidance_scale, options.min_step_percent, options.max_step_percent) == (None, 0.02, 0.98)
    assert (options.weighting_strategy, options.grad_clip) == ("sds", None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": "vsds"},
        {"inversion_n_steps": 0},
        {"inversion_eta": 1.5},
        {"inversion_guidance_scale": float("inf")},
        {"ism_step_s": 0},
        {"ism_step_t": 0},
        {"guidance_scale_lora": -1.0},
        {"reward_strategy": "worst"},
        {"pixel_grad_clip": 0.0},
        {"fm_step": "alpha"},
        {"fm_step": 0.0},
        {"fm_max_step_percent": 0.0},
        {"fm_guidance_scale": -1.0},
        {"fm_loss": "l2"},
        {"fm_normalise": "batch"},
        {"fm_level_weights": []},
        {"fm_level_weights": [-1.0]},
        {"weighting_strategy": "sdss"},
        {"fm_target": "literal"},
        {"kl_form": "standart"},
        {"timestep_annealing": "cosine"},
        {"guidance_scale": -1.0},
        {"guidance_scale": float("nan")},
        {"guidance_rescale": 1.5},
        {"grad_clip": -0.1},
        {"min_step_percent": -0.1},
        {"max_step_percent": 1.2},
        {"max_step_percent": 0.01},
        {"anneal_end_percent": 0.99},
        {"n_noises": 0},
        {"n_noises": 65},
    ],
)
def test_wrong_values_name_their_key(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name} is .*expected") as error:
        PriorOptions(**wrong)
    assert "\n" not in str(error.value)
    assert str(value) in str(error.value)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError):
        PriorOptions(guidance=3)
