"""Options of the random cameras, under threestudio's keys, and their validation."""

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, ListConfig

from latent_prior import OptionError
from latent_prior.host.embedded.config import full_key
from latent_prior.host.embedded.memory import check_sizes, require_memory

RAY = 9  # numbers: its pixel, origin and direction
VIEW = 60  # numbers of a camera: matrices, position, light, angles


@dataclass
class RandomCameraDataModuleConfig:
    # Training image size in pixels and cameras per batch; each an int, or a list with one entry per resolution stage.
    height: Any = 64
    width: Any = 64
    batch_size: Any = 1
    resolution_milestones: list[int] = field(default_factory=list)  # steps at which the next stage of such lists begins
    eval_height: int = 512  # image height of validation and test, pixels
    eval_width: int = 512  # image width of validation and test, pixels
    eval_batch_size: int = 1  # views rendered at once in validation and test; only 1 works, as in threestudio
    n_val_views: int = 1  # validation views, evenly around the object
    n_test_views: int = 120  # test views, evenly around the object, the last one equal to the first
    elevation_range: tuple[float, float] = (-10, 90)  # degrees
    azimuth_range: tuple[float, float] = (-180, 180)  # degrees
    camera_distance_range: tuple[float, float] = (1, 1.5)  # world units from the origin
    fovy_range: tuple[float, float] = (40, 70)  # vertical field of view, degrees
    camera_perturb: float = 0.1  # half width of the uniform noise on each coordinate of the position
    center_perturb: float = 0.2  # standard deviation of the look-at point
    up_perturb: float = 0.02  # standard deviation of the up vector
    light_position_perturb: float = 1.0  # standard deviation of the light around the camera
    light_distance_range: tuple[float, float] = (0.8, 1.5)  # world units from the origin
    eval_elevation_deg: float = 15.0  # elevation of validation and test views, degrees
    eval_camera_distance: float = 1.5  # distance of those views, world units
    eval_fovy_deg: float = 70.0  # vertical field of view of those views, degrees
    batch_uniform_azimuth: bool = True  # one camera per equal sector of the azimuth range instead of independent ones
    progressive_until: int = 0  # step at which elevation and azimuth have widened from the front view to their range
    rays_d_normalize: bool = True  # ray directions of unit length


def check_cameras(cfg: DictConfig) -> None:
    """Reject options from which no camera can be drawn, naming the key."""
    for key in ("elevation_range", "azimuth_range", "camera_distance_range", "fovy_range", "light_distance_range"):
        if len(cfg[key]) != 2 or not all(isinstance(end, int | float) for end in cfg[key]):
            raise OptionError.because(f"{full_key(cfg, key)}: expected [low, high], got {list(cfg[key])}")
    picture = {full_key(cfg, key): cfg[key] for key in ("eval_height", "eval_width")}
    views = {full_key(cfg, key): cfg[key] for key in ("n_val_views", "n_test_views")}
    check_sizes(picture | views)
    require_memory(RAY * math.prod(picture.values()), picture)
    require_memory(VIEW * max(views.values()), views)
    low, high = cfg.fovy_range
    if not 0 < low <= high < 180:
        raise OptionError(full_key(cfg, "fovy_range"), list(cfg.fovy_range), "[low, high] between 0 and 180 degrees")
    if not 0 < cfg.eval_fovy_deg < 180:
        raise OptionError(full_key(cfg, "eval_fovy_deg"), cfg.eval_fovy_deg, "between 0 and 180 degrees")
    if cfg.progressive_until < 0:
        raise OptionError.because(
            f"{full_key(cfg, 'progressive_until')}: expected a step, 0 or later, got {cfg.progressive_until}"
        )
    if cfg.eval_batch_size != 1:
        key = full_key(cfg, "eval_batch_size")
        raise OptionError.because(
            f"{key}: views are rendered one by one in validation and test, got {cfg.eval_batch_size}"
        )


def resolution_stages(cfg: DictConfig) -> list[tuple[int, int, int]]:
    """(height, width, batch size) of every resolution stage."""
    lists = [list(v) if isinstance(v, ListConfig) else [v] for v in (cfg.height, cfg.width, cfg.batch_size)]
    keys = ", ".join(full_key(cfg, key) for key in ("height", "width", "batch_size"))
    if any(type(value) is not int or value < 1 for values in lists for value in values):
        raise OptionError.because(
            f"{keys} are positive ints or lists of them, got {', '.join(str(values) for values in lists)}"
        )
    if len({len(values) for values in lists}) != 1:
        raise OptionError.because(f"{keys} need as many entries each, got {', '.join(str(values) for values in lists)}")
    if len(lists[0]) > 1 and len(cfg.resolution_milestones) != len(lists[0]) - 1:
        raise OptionError.because(
            f"{full_key(cfg, 'resolution_milestones')}: {len(lists[0])} resolutions need {len(lists[0]) - 1} "
            f"milestones, got {list(cfg.resolution_milestones)}"
        )
    stages = list(zip(*lists, strict=True))
    for stage in stages:
        require_memory(RAY * math.prod(stage), dict(zip(keys.split(", "), stage, strict=True)))
    return stages
