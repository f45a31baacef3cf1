"""The generator that ships with the package paints what its card says."""

import torch
from latent_prior.pocket.training.stylegan import SHAPE, unseen_psnr
from latent_prior.stylegan2.pretrained import POCKET_FILE, load_pretrained


def test_shipped_generator_paints_the_truth_of_unseen_codes():
    generator = load_pretrained("pocket")
    assert generator.cfg == SHAPE
    assert POCKET_FILE.stat().st_size <= 8e6
    assert unseen_psnr(generator, count=32) > 35.0
    strengths = [value for name, value in generator.named_parameters() if name.endswith("noise_strength")]
    assert not torch.stack(strengths).any()  # so that constant noise and none are the same
