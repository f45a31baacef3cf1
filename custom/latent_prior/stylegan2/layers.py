"""Selection of a StyleGAN2 generator's trainable parameters: by patterns of their names, and by layer of w+.

Layer i of w+ is the style of one 3x3 convolution and of the toRGB that shares it; the last layer is the style of the
last toRGB alone.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from jaxtyping import Float
from torch import Tensor, nn

from latent_prior import OptionError
from latent_prior.host import ranks
from latent_prior.stylegan2.generator import StyleGAN2


def matching(generator: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the parameters that match any of the patterns (`*`, `?`, `[ab]`). OptionError if one has no match."""
    names = [name for name, _ in generator.named_parameters()]
    found: set[str] = set()
    for pattern in patterns:
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise OptionError.because(
                f"system.trainable: {pattern!r} matches no parameter of the generator; its names are such as "
                f"{names[0]}, {names[-1]} (`*` stands for any part)"
            )
        found.update(fitting)
    return [name for name in names if name in found]


def layers_of_w_plus(generator: StyleGAN2) -> list[list[nn.Module]]:
    """The modules that use each layer's style, in the order of w+."""
    found: list[list[nn.Module]] = [[] for _ in range(generator.cfg.num_ws)]
    first = 0
    for side in generator.synthesis.resolutions:
        block = getattr(generator.synthesis, f"b{side}")
        convolutions = [block.conv1] if side == 4 else [block.conv0, block.conv1]
        for offset, module in enumerate([*convolutions, block.torgb]):
            found[first + offset].append(module)
        first += len(convolutions)
    return found


def most_moved(gradient: Float[Tensor, "B n D"], count: int) -> list[int]:
    """The `count` layers of w+ that a gradient step on w+ moves most, by the mean of |dw| (Gal et al. 2022, sec. 4.2).

    The mean is over the pictures of all processes, so that all of them choose the same layers.
    """
    moved = ranks.mean_over(gradient.abs().mean((0, 2)))
    return sorted(moved.topk(count).indices.tolist())
