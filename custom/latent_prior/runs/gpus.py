"""Choosing a run's GPUs, before anything imports torch."""

import os
import re

from latent_prior import OptionError

CPU_PROCESSES = 1  # of a run without a GPU: torch's threads use all cores. More are for tests


def gpus(given: str) -> list[str]:
    """`--gpu` as entries of CUDA_VISIBLE_DEVICES: numbers (also as cuda:0), or UUIDs of GPUs or MIG instances."""
    found = [re.fullmatch(r"(?:cuda:)?(\d+)|((?:GPU|MIG)-[\w/-]+)", part.strip()) for part in given.split(",")]
    names = [match[1] or match[2] for match in found if match is not None]
    if len(names) != len(found) or len(set(names)) != len(names):
        raise OptionError("--gpu", given, "the number of a GPU, such as 0, or several different ones, such as 0,1")
    return names


def one_gpu(given: str) -> str:
    """`gpus` for what uses one. OptionError for several."""
    names = gpus(given)
    if len(names) > 1:
        raise OptionError("--gpu", given, "the number of one GPU, such as 0: only training uses several")
    return names[0]


def choose_gpus(given: str) -> int:
    """Make only the GPUs of `--gpu` visible, and return how many a run trains on.

    CUDA_VISIBLE_DEVICES takes precedence, as in threestudio; if it lists more, the run uses the first of them.
    """
    names = gpus(given)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", ",".join(names))
    return len(names)
