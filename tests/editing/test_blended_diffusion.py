"""Blended latent diffusion against a slow loop of its own, and masks against sets of pixels."""

import pytest
import torch
from latent_prior import OptionError
from latent_prior.editing import blended_diffusion
from latent_prior.editing.blended_diffusion import (
    BlendedDiffusion,
    SamplerOptions,
    dilated,
    is_thin,
    latent_mask,
    shrinking,
    steps_run,
)
from tiny_checkpoints import write_xl_checkpoint


def pixels_of(mask: torch.Tensor) -> set[tuple[int, int]]:
    return {tuple(place) for place in torch.nonzero(mask[0, 0]).tolist()}


def mask_of(side: int, *pixels: tuple[int, int]) -> torch.Tensor:
    mask = torch.zeros(1, 1, side, side)
    for i, j in pixels:
        mask[0, 0, i, j] = 1
    return mask


def test_a_latent_pixel_belongs_to_the_mask_if_any_of_its_pixels_does():
    mask = mask_of(16, (0, 0), (7, 9), (8, 8))
    assert pixels_of(latent_mask(mask, 4)) == {(0, 0), (1, 2), (2, 2)}


def test_dilation_is_by_squares():
    mask = mask_of(9, (0, 4), (5, 5))
    near = {(i, j) for i in range(9) for j in range(9) for a, b in ((0, 4), (5, 5)) if max(abs(i - a), abs(j - b)) <= 2}
    assert pixels_of(dilated(mask, 2)) == near
    assert dilated(mask, 0) is mask


def test_shrinking_takes_the_published_squares_at_the_published_size():
    for side, radii in ((64, (3, 2, 1, 0)), (32, (1, 1, 0, 0)), (16, (0, 0, 0, 0)), (128, (6, 4, 2, 0))):
        mask = mask_of(side, (side // 2, side // 2))
        assert [stage.sum().item() for stage in shrinking(mask)] == [(2 * radius + 1) ** 2 for radius in radii]


def test_what_is_thin():
    line = mask_of(12, *((i, 5) for i in range(12)))
    block = mask_of(12, *((i, j) for i in range(3, 9) for j in range(3, 9)))
    assert is_thin(line) and not is_thin(block)
    assert not is_thin(torch.ones(1, 1, 12, 12))  # the picture's edge is no edge of the mask's
    assert not is_thin((line + block).clamp(max=1))


@pytest.fixture(scope="module")
def editor(folders):
    from tiny_checkpoints import GEOMETRIES

    return BlendedDiffusion.from_pretrained(str(folders[GEOMETRIES["pocket"]]))


def reference(editor, picture, masks, prompt, seed, options) -> torch.Tensor:
    """DDIM without noise, written out; after every step the outside is the source, noised to the step that comes next."""
    unet, vae = editor.pipeline.unet, editor.pipeline.vae
    alphas = editor.pipeline.scheduler.alphas_cumprod
    g = torch.Generator().manual_seed(seed)
    source = vae.encode(picture * 2 - 1).latent_dist.sample(g) * vae.config.scaling_factor
    noise = torch.randn(source.shape, generator=g)
    stride = 1000 // options.steps
    times = [i * stride + 1 for i in reversed(range(options.steps))][options.steps - steps_run(options) :]
    alpha = [alphas[t] for t in times] + [alphas[0]]
    z = alpha[0].sqrt() * source + (1 - alpha[0]).sqrt() * noise
    text = editor.text_encoder([prompt, ""])
    for i, t in enumerate(times):
        v = [unet(z, t, encoder_hidden_states=text[k : k + 1]).sample for k in (1, 0)]
        v = v[0] + options.guidance_scale * (v[1] - v[0])
        clean = alpha[i].sqrt() * z - (1 - alpha[i]).sqrt() * v
        eps = alpha[i].sqrt() * v + (1 - alpha[i]).sqrt() * z
        z = alpha[i + 1].sqrt() * clean + (1 - alpha[i + 1]).sqrt() * eps
        outside = source
        if i + 1 < len(times):
            outside = alpha[i + 1].sqrt() * source + (1 - alpha[i + 1]).sqrt() * noise
        z = masks[i] * z + (1 - masks[i]) * outside
    return z


@pytest.mark.parametrize("thin", [False, True])
@torch.no_grad()
def test_edits_are_ddim_with_the_outside_put_back(editor, thin, monkeypatch):
    monkeypatch.setattr(blended_diffusion, "REFERENCE_SIDE", 12)  # so that these latents of 16 x 12 are large
    picture = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 1, 64, 48)
    if thin:
        mask[..., 20:24] = 1
    else:
        mask[..., 16:48, 12:40] = 1
    options = SamplerOptions(steps=10, strength=0.8, guidance_scale=3.0)
    small = latent_mask(mask, 4)
    stages = [small] * 8
    if thin:
        stages = [dilated(small, radius) for radius in (3, 3, 2, 2, 1, 1, 0, 0)]
    steps = []
    found = editor.edit(picture, mask, "a cat", seed=5, options=options, on_step=lambda: steps.append(1))
    expected = reference(editor, picture, stages, "a cat", 5, options)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert len(steps) == 8
    if thin:
        unshrunk = editor.edit(picture, mask, "a cat", seed=5, options=SamplerOptions(10, 0.8, 3.0, shrink=False))
        torch.testing.assert_close(
            unshrunk, reference(editor, picture, [small] * 8, "a cat", 5, options), rtol=1e-4, atol=1e-4
        )
        assert not torch.allclose(found, unshrunk, atol=1e-3)


@torch.no_grad()
def test_pale_pictures_are_pictures_like_others(editor):
    """No pixel below 0.5, as in a product photo: in [-1, 1] that looks like [0, 1]."""
    picture = 0.5 + 0.5 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 12:40] = 1
    options = SamplerOptions(steps=4, strength=0.8, guidance_scale=3.0)
    expected = reference(editor, picture, [latent_mask(mask, 4)] * 3, "a cat", 5, options)
    torch.testing.assert_close(
        editor.edit(picture, mask, "a cat", seed=5, options=options), expected, rtol=1e-4, atol=1e-4
    )


def test_outside_the_mask_the_latent_is_the_sources_for_every_seed(editor):
    picture = torch.rand(1, 3, 64, 64)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    options = SamplerOptions(steps=4)
    made = [editor.edit(picture, mask, "a cat", seed=seed, options=options) for seed in (1, 1, 2)]
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=0)
    inside = latent_mask(mask, 4).expand_as(made[0]) == 1
    assert (made[0] - made[2])[inside].abs().mean() > 1e-2


def test_what_it_cannot_take_is_refused(editor, tmp_path):
    with pytest.raises(ValueError, match="is a model of Stable Diffusion XL; blended diffusion takes"):
        BlendedDiffusion.from_pretrained(str(write_xl_checkpoint(tmp_path / "xl")))
    with pytest.raises(OptionError, match="prompt is '  '; expected what to make"):
        editor.edit(torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64), "  ")
    for options in (SamplerOptions(steps=501), SamplerOptions(steps=0), SamplerOptions(steps=4, strength=0.1)):
        with pytest.raises(OptionError, match="steps is .*expected 1 to 500"):
            editor.edit(torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64), "a cat", options=options)
    with pytest.raises(ValueError, match="takes multiples of 4"):
        editor.edit(torch.rand(1, 3, 64, 62), torch.ones(1, 1, 64, 62), "a cat")


def test_inpainting_checkpoints_are_refused_in_words(tmp_path):
    from tiny_checkpoints import GEOMETRIES, write_checkpoint

    folder = write_checkpoint(tmp_path / "nine", GEOMETRIES["pocket"], in_channels=9)
    with pytest.raises(ValueError, match="is an inpainting model: its UNet takes 9 channels"):
        BlendedDiffusion.from_pretrained(str(folder))
