"""The settings of a run: its configs, merged and resolved, and the devices that it uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latent_prior import OptionError
from latent_prior.runs import gpus

MESHES = ("system.geometry", "system.guide")  # whose `mesh` is a file, or the folder of a run


@dataclass(frozen=True)
class Settings:
    """What a run is made from."""

    unresolved: Any  # the merged config, with its interpolations
    cfg: Any  # the same, as an ExperimentConfig
    on_gpu: bool
    processes: tuple[int, int]  # on each machine, and machines


def read(
    configs: Sequence[str], overrides: Sequence[str], trains: bool, n_gpus: int, given: dict[str, Any]
) -> Settings:
    """Read and merge the configs; given: nested values that override them. OptionError for bad values."""
    import torch

    from latent_prior import host

    on_gpu = torch.cuda.is_available() and host.get_device().type == "cuda"
    n_gpus = n_gpus if trains else 1
    if on_gpu and n_gpus > (visible := torch.cuda.device_count()):
        raise OptionError.because(
            f"{n_gpus} GPUs were asked for, {visible} can be used (CUDA_VISIBLE_DEVICES)", "--gpu"
        )
    devices = n_gpus if on_gpu else gpus.CPU_PROCESSES
    unresolved = host.merge_config(*configs, cli_args=list(overrides), **given, n_gpus=devices)
    _name_meshes(unresolved)
    if trains:
        _check_max_steps(unresolved)
    with host.hidden_values(unresolved):
        cfg = host.resolve_config(unresolved)
        cfg.resume = host.find_last_path(cfg.resume)
    return Settings(unresolved, cfg, on_gpu, (devices, _nodes(unresolved) if trains else 1))


def _nodes(unresolved: Any) -> int:
    """The number of machines that the run uses."""
    from latent_prior import host

    nodes = host.select(unresolved, "trainer.num_nodes")
    if nodes is not None and (not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1):
        raise OptionError("trainer.num_nodes", nodes, "a number of machines, at least 1")
    return nodes or 1


def _name_meshes(unresolved: Any) -> None:
    """Make the config's meshes absolute files, so that the run reads the same ones later, from any directory.

    The newest export of another run would be a newer one then. An interpolation stays one: its value may be a secret.
    """
    from omegaconf import OmegaConf

    from latent_prior import host
    from latent_prior.host.embedded.config import escaped
    from latent_prior.meshes.files import absolute_mesh

    for key in MESHES:
        owner = host.select(unresolved, key)
        given = host.select(unresolved, f"{key}.mesh")
        if isinstance(given, str) and given and not OmegaConf.is_interpolation(owner, "mesh"):
            owner.mesh = escaped(str(absolute_mesh(given)))


def _check_max_steps(unresolved: Any) -> None:
    """OptionError for an invalid number of steps; values computed from it would fail with less clear messages."""
    from latent_prior import host

    steps = host.select(unresolved, "trainer.max_steps")
    if steps is not None and (not isinstance(steps, int) or isinstance(steps, bool) or steps < 1):
        raise OptionError("trainer.max_steps", steps, "a whole number of at least 1")
