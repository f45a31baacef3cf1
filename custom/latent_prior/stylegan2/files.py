"""Files of StyleGAN2 generators, by suffix.

    .safetensors  ours: the generator's state dict, unchanged
    .pkl          NVIDIA's (stylegan2-ada-pytorch, stylegan3), read only: see nvidia.py
    .pt, .pth     rosinality's stylegan2-pytorch: see rosinality.py
No reader runs code from a file. A file may lack the resampling filters (they are all the same), the mean style
(estimated), and the constant noise where its strength is 0; everything else must be present, and nothing more.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from latent_prior import OptionError
from latent_prior.files import atomic_write, shown, user_path
from latent_prior.files.pickles import first_few
from latent_prior.files.refusals import NotWritten
from latent_prior.files.tensors import read_tensors
from latent_prior.prior import require_finite
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from latent_prior.stylegan2.nvidia import MAX_BYTES, read_nvidia
from latent_prior.stylegan2.ops import smoothing_filter
from latent_prior.stylegan2.rosinality import read_rosinality, to_rosinality

READS = (".safetensors", ".pkl", ".pt", ".pth")
WRITES = (".safetensors", ".pt", ".pth")
NAME = re.compile(r"mapping\.(fc\d\d?\.(weight|bias)|w_avg)|synthesis\.b\d{1,4}\.[\w.]+")


def load_generator(path: Path | str) -> StyleGAN2:
    """Load the generator from a file: float32, on the CPU, in evaluation mode.

    Raises:
        OptionError: with the file's name: no such file, broken, unsafe, or another kind of network.
    """
    path = user_path(path)
    if path.suffix not in READS:
        raise OptionError.because(
            f"{path}: {path.suffix!r} is not a StyleGAN2 format, expected one of {', '.join(READS)}"
        )
    if not path.is_file():
        raise OptionError.because(f"{path}: there is no such file")
    try:
        if path.suffix == ".pkl":
            return generator_of(read_nvidia(path))
        return generator_of(read_tensors(path) if path.suffix == ".safetensors" else read_rosinality(path))
    except (ValueError, OSError) as error:
        raise OptionError.because(f"{path}: {' '.join(str(error).split())}") from error


def save_generator(generator: StyleGAN2, path: Path | str) -> None:
    """Write the generator in the format of the path's suffix, replacing an old file once the new one is complete.

    Raises:
        OptionError: with the file's name; an existing file is then unchanged.
        Diverged: a weight is not finite.
    """
    path = user_path(path)
    if path.suffix not in WRITES:
        raise OptionError.because(f"{path}: {path.suffix!r} cannot be written, expected one of {', '.join(WRITES)}")
    require_finite(generator.state_dict(), f"lower the learning rate ({path} is not written)")
    state = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    try:
        with atomic_write(path) as beside:
            if path.suffix == ".safetensors":
                save_file(state, beside, metadata={"format": "pt"})
            else:
                torch.save(to_rosinality(state), beside)
    except NotWritten:
        raise
    except (ValueError, OSError) as error:
        raise OptionError.because(f"{path}: not written: {' '.join(str(error).split())}") from error


def convert(source: Path | str, target: Path | str) -> str:
    """Convert `source` to `target`, each in the format of its suffix; returns a line about the generator."""
    source, target = user_path(source), user_path(target)
    if target.suffix not in WRITES:
        raise OptionError.because(f"{target}: {target.suffix!r} cannot be written, expected one of {', '.join(WRITES)}")
    if source.resolve() == target.resolve() or (source.exists() and target.exists() and source.samefile(target)):
        raise OptionError.because(f"{target}: this is the input file; give another name")
    generator = load_generator(source)
    save_generator(generator, target)
    cfg = generator.cfg
    return (
        f"{source}: {cfg.resolution} px, z {cfg.z_dim}, w {cfg.w_dim}, {cfg.mapping_layers} mapping layers, channels "
        f"{'-'.join(map(str, cfg.channels))}; written to {target}"
    )


def generator_of(state: Mapping[str, Tensor]) -> StyleGAN2:
    """The generator with these tensors, under our (NVIDIA's) names. OptionError if they do not match one exactly."""
    _refuse_others(state)
    _refuse_huge(state)  # first, because sizes multiply
    with torch.device("meta"):  # so that a file with huge declared sizes takes no memory
        generator = StyleGAN2(StyleGAN2Config.of_state(state))
    expected = generator.state_dict()
    _refuse_huge(expected)
    has_average = "mapping.w_avg" in state
    state = _without_gaps(state, expected)
    missing, unknown = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or unknown:
        raise OptionError.because(f"missing {first_few(missing)}; unknown {first_few(unknown)}")
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise OptionError.because(
                f"{name} has shape {list(value.shape)[:5]}, expected {list(expected[name].shape)}"
            )
    copies = {name: torch.empty(value.shape).copy_(value) for name, value in state.items()}
    for name, value in copies.items():
        if not value.isfinite().all():
            raise OptionError.because(f"{name} has numbers that are not finite")
    generator.load_state_dict(copies, assign=True)
    if not has_average:
        generator.mapping.estimate_average()
    return generator.eval()


def _refuse_others(state: Mapping[str, Tensor]) -> None:
    """OptionError that names the kind of network, if it is not supported."""

    def having(pattern: str) -> str | None:
        return next((name for name in state if re.search(pattern, name)), None)

    kinds = {
        "StyleGAN3": r"^synthesis\.(input\.|L\d+_)",
        "StyleGAN1 or a progressive GAN": r"(^|\.)progression\.",
        "a conditional StyleGAN2": r"^mapping\.embed\.",
        "a StyleGAN2 of architecture 'resnet'": r"^synthesis\.b\d+\.skip\.",
        "a discriminator": r"^b\d+\.(conv|fromrgb|out)",
    }
    for kind, pattern in kinds.items():
        if name := having(pattern):
            raise OptionError.because(
                f"this is {kind} ({shown(name)}), which is not supported: expected an unconditional StyleGAN2 'skip'"
            )
    for name, value in state.items():
        if not NAME.fullmatch(name):
            raise OptionError.because(f"this is not a StyleGAN2 generator: unknown tensor {shown(str(name))}")
        dense = value.is_floating_point() and value.layout is torch.strided and not value.is_meta
        if not dense or not value.numel() or (name.endswith(".weight") and value.ndim < 2):
            raise OptionError.because(
                f"{name} is {value.dtype} of shape {list(value.shape)[:5]}; expected a generator's weights"
            )
        block = name.removesuffix(".conv1.weight")
        if block != name and f"{block}.torgb.weight" not in state:
            raise OptionError.because(f"this is a StyleGAN2 of architecture 'orig' (no {block}.torgb), expected 'skip'")
        if name.endswith(".torgb.weight") and len(value) != 3:
            raise OptionError.because(f"its pictures have {len(value)} channels, expected the 3 of RGB")


def _refuse_huge(state: Mapping[str, Tensor]) -> None:
    if 4 * sum(value.numel() for value in state.values()) > MAX_BYTES:
        raise OptionError.because(f"its tensors have more than the {MAX_BYTES} bytes allowed for a generator")


def _without_gaps(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the buffers that a file may lack; the mean style, which is estimated later, as zeros."""
    out = dict(state)
    out.setdefault("mapping.w_avg", torch.zeros(expected["mapping.w_avg"].shape))
    draw = torch.Generator().manual_seed(0)
    for name in expected:
        if name in state:
            continue
        if name.endswith(".resample_filter"):
            out[name] = smoothing_filter()
        elif name.endswith(".noise_const"):
            strength = state.get(name.replace("noise_const", "noise_strength"))
            if strength is None:
                continue
            if strength.any():
                raise OptionError.because(f"{name} is missing, and its strength is not 0")
            # random, not zeros: training may raise the strength
            out[name] = torch.randn(expected[name].shape, generator=draw)
    return out
