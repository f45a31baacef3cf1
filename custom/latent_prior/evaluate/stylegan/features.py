"""Features of pictures by a network from a file, for example Inception. Pictures are uint8, B 3 H W."""

import hashlib
import warnings
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from latent_prior import OptionError


class ScriptFeatures:
    """Features by a network in a TorchScript file. The file is a program: use only trusted ones.

    Its input is pictures in [0, 1], float32, at their original size; its output is B D. NVIDIA's exported detectors
    (inception-2015-12-05.pt) are recognised by their argument `return_features` and get pictures in [0, 255].
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        if not path.is_file():
            raise OptionError.because(f"--features: there is no file {path}")
        self.name = path.name
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.device = device
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self.network = torch.jit.load(str(path), map_location=device).eval()
        except RuntimeError as error:
            raise OptionError.because(
                f"--features: {path} is not a TorchScript file: {str(error).splitlines()[0]}"
            ) from error
        arguments = {argument.name for argument in self.network.forward.schema.arguments}
        self._is_detector = "return_features" in arguments

    @torch.no_grad()
    def __call__(self, pictures: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        pictures = pictures.to(self.device).float()
        try:
            out = self.network(pictures, return_features=True) if self._is_detector else self.network(pictures / 255)
        except RuntimeError as error:
            last = str(error).strip().splitlines()[-1]
            raise OptionError.because(
                f"--features: {self.name} cannot take pictures of {list(pictures.shape[1:])}: {last}"
            ) from error
        if not isinstance(out, Tensor) or out.ndim != 2 or len(out) != len(pictures):
            shape = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise OptionError.because(
                f"--features: {self.name} returned {shape} for {len(pictures)} pictures; expected B x D"
            )
        return out.float()
