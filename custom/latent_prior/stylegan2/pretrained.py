"""Pretrained StyleGAN2 generators by name: the one shipped with the package, or a file."""

from pathlib import Path

import latent_prior
from latent_prior import OptionError
from latent_prior.files import user_path
from latent_prior.stylegan2.files import load_generator
from latent_prior.stylegan2.generator import StyleGAN2

POCKET_FILE = Path(latent_prior.__file__).parent / "pocket" / "stylegan" / "generator.safetensors"


def load_pretrained(name: str) -> StyleGAN2:
    """A generator in evaluation mode: `pocket` (mugs, 64 x 64), or a .safetensors, .pkl or .pt file.

    Raises OptionError that names system.pretrained_generator for anything that is not a StyleGAN2 generator.
    """
    path = POCKET_FILE if name == "pocket" else user_path(name)
    if not path.is_file():
        expected = "pocket or a .safetensors, .pkl or .pt file of StyleGAN2"
        raise OptionError("system.pretrained_generator", name, expected)
    try:
        return load_generator(path)
    except ValueError as error:
        raise OptionError.because(f"system.pretrained_generator: {error}") from error
