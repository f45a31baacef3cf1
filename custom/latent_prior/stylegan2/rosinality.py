"""rosinality's StyleGAN2 checkpoints (`.pt`): conversion between their tensor names and ours.

Their file holds a state dict `g_ema` and, if it was converted from NVIDIA's, the mean style `latent_avg`. Training
files also hold g, d, the optimisers and `args`. z and w have the same size. Tensors differ from ours in axes of length
1 and in the resampling filters, whose gain of 4 is included in their buffers.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from latent_prior import OptionError
from latent_prior.files.pickles import first_few
from latent_prior.files.torch_file import read_torch
from latent_prior.stylegan2.generator import StyleGAN2Config


@dataclass(frozen=True)
class Change:
    """The conversion of one of our tensors to theirs, and back."""

    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]


SAME = Change(lambda t: t, lambda t: t)
BATCHED = Change(lambda t: t[None], lambda t: t.squeeze(0))
SCALAR = Change(lambda t: t[None], lambda t: t.squeeze())
COLOUR = Change(lambda t: t[None, :, None, None], lambda t: t.flatten())
NOISE = Change(lambda t: t[None, None], lambda t: t.squeeze(0).squeeze(0))
FILTER = Change(lambda t: t * 4, lambda t: t / 4)

MODULATED = (
    ("weight", "conv.weight", BATCHED),
    ("affine.weight", "conv.modulation.weight", SAME),
    ("affine.bias", "conv.modulation.bias", SAME),
)
STYLED = (*MODULATED, ("bias", "activate.bias", SAME), ("noise_strength", "noise.weight", SCALAR))
TO_RGB = (*MODULATED, ("bias", "bias", COLOUR))
OPTIONAL = re.compile(r"noises\..*|.*\.kernel")  # buffers that a file may lack: see files.py


def key_map(mapping_layers: int, levels: int) -> Iterator[tuple[str, str, Change]]:
    """Our name, their name and the conversion, for a generator with resolutions 4, 8, ..., 4 * 2^(levels - 1)."""
    for i in range(mapping_layers):
        for part in ("weight", "bias"):
            yield f"mapping.fc{i}.{part}", f"style.{i + 1}.{part}", SAME
    yield "synthesis.b4.const", "input.input", BATCHED
    for level in range(levels):
        block, j = f"synthesis.b{4 << level}", level - 1
        if level == 0:
            convolutions, to_rgb = {"conv1": "conv1"}, "to_rgb1"
        else:
            convolutions, to_rgb = {"conv0": f"convs.{2 * j}", "conv1": f"convs.{2 * j + 1}"}, f"to_rgbs.{j}"
            yield f"{block}.conv0.resample_filter", f"convs.{2 * j}.conv.blur.kernel", FILTER
            yield f"{block}.resample_filter", f"{to_rgb}.upsample.kernel", FILTER
        for ours, theirs in convolutions.items():
            for part, their_part, change in STYLED:
                yield f"{block}.{ours}.{part}", f"{theirs}.{their_part}", change
            yield f"{block}.{ours}.noise_const", f"noises.noise_{2 * level - (ours == 'conv0')}", NOISE
        for part, their_part, change in TO_RGB:
            yield f"{block}.torgb.{part}", f"{to_rgb}.{their_part}", change


def from_rosinality(state: Mapping[str, Tensor], latent_avg: Tensor | None = None) -> dict[str, Tensor]:
    """Their state dict under our names, without mapping.w_avg if they have no `latent_avg`.

    Raises:
        OptionError: another network, named if it is known.
    """
    layers = levels = 1
    while f"style.{layers + 1}.weight" in state:
        layers += 1
    while f"to_rgbs.{levels - 1}.conv.weight" in state:
        levels += 1
    pairs = list(key_map(layers, levels))
    unknown = sorted(set(state) - {theirs for _, theirs, _ in pairs})
    missing = [theirs for _, theirs, _ in pairs if theirs not in state and not OPTIONAL.fullmatch(theirs)]
    if unknown or missing:
        raise OptionError.because(
            f"{_other_network(state)}: expected the names of rosinality's stylegan2-pytorch; "
            f"missing {first_few(missing)}; unknown {first_few(unknown)}"
        )
    width = state["style.1.weight"].shape
    if len(width) == 2 and width[0] != width[1]:
        raise OptionError.because(
            f"a conditional StyleGAN2 is not supported: the mapping takes {width[1]} numbers, expected a z of {width[0]}"
        )
    out = {ours: change.back(state[theirs]) for ours, theirs, change in pairs if theirs in state}
    if latent_avg is not None:
        if latent_avg.numel() != latent_avg.shape[-1:].numel():
            raise OptionError.because(f"latent_avg has shape {list(latent_avg.shape)}; expected one style")
        out["mapping.w_avg"] = latent_avg.flatten()
    return out


def to_rosinality(state: Mapping[str, Tensor]) -> dict[str, Tensor | dict[str, Tensor]]:
    """Our state dict in their format: g_ema and latent_avg. OptionError if z and w differ in size."""
    cfg = StyleGAN2Config.of_state(state)
    if cfg.z_dim != cfg.w_dim:
        raise OptionError.because(
            f"rosinality's format needs z and w of the same size; here they are {cfg.z_dim} and {cfg.w_dim}"
        )
    pairs = key_map(cfg.mapping_layers, len(cfg.channels))
    g_ema = {theirs: change.there(state[ours]).clone() for ours, theirs, change in pairs}
    return {"g_ema": g_ema, "latent_avg": state["mapping.w_avg"].clone()}


def read_rosinality(path: Path) -> dict[str, Tensor]:
    """A converted file, a training file or a bare state dict, under our names (see `from_rosinality`)."""
    content = read_torch(path)
    if not isinstance(content, dict) or not isinstance(content.get("g_ema", content), dict):
        raise OptionError.because("expected a dict with g_ema, or a state dict")
    state = dict(content.get("g_ema", content))
    inner = state.pop("latent_avg", None)
    average = content.get("latent_avg", inner)
    strangers = [name for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strangers or not isinstance(average, Tensor | None):
        raise OptionError.because(
            f"expected a dict with g_ema, or a state dict of tensors; found {first_few(strangers)}"
        )
    return from_rosinality(state, average)


def _other_network(state: Mapping[str, Tensor]) -> str:
    if any("progression." in name for name in state):
        return "this is StyleGAN1 or a progressive GAN"
    if any(name.startswith("final_linear.") for name in state):
        return "this is a discriminator"
    if any(name.startswith(("mapping.", "synthesis.")) for name in state):
        return "this has NVIDIA's names, or StyleGAN3's"
    return "this is not a StyleGAN2 generator"
