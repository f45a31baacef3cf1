"""Checkpoints in a form that `==` compares, and whose differences pytest shows."""

import torch


def flat(value, path="") -> dict:
    """Nested containers and tensors as {path: plain value}."""
    if isinstance(value, torch.Tensor):
        return {path: value.tolist()}
    if not isinstance(value, dict | list | tuple):
        return {path: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    return {key: leaf for name, entry in pairs for key, leaf in flat(entry, f"{path}/{name}").items()}
