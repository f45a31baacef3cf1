"""Choosing a run's GPU, before anything imports torch."""

import os
import re

from latent_prior import OptionError


def one_gpu(given: str) -> str:
    """`--gpu` in the form of CUDA_VISIBLE_DEVICES: a number (also as cuda:0), or the UUID of a GPU or MIG instance."""
    found = re.fullmatch(r"(?:cuda:)?(\d+)|((?:GPU|MIG)-[\w/-]+)", given.strip())
    if found is None and "," in given.strip(", "):
        raise OptionError.because(
            f"{given}: several GPUs in one run are not supported yet; start one run per GPU", "--gpu"
        )
    if found is None:
        raise OptionError("--gpu", given, "the number of one GPU, such as 0")
    return found[1] or found[2]


def choose_gpus(gpu: str) -> int:
    """Make only the GPU of `--gpu` visible, and return how many a run uses: one.

    CUDA_VISIBLE_DEVICES takes precedence, as in threestudio; if it lists several GPUs, the run uses the first.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", one_gpu(gpu))
    return 1
