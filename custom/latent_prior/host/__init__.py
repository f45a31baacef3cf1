"""The only module that knows the framework: threestudio where it is available, our embedded host otherwise.

`LATENT_PRIOR_HOST` selects it: `threestudio`, `embedded`, or `auto` (the default), which uses threestudio when it is
already imported, when THREESTUDIO_ROOT names its checkout, or when it can be imported. The rest of the plugin does
`from latent_prior import host` and uses what is exported here; NAME is the name of the host in use.
"""

import os
import warnings
from typing import Any

from omegaconf import DictConfig

from latent_prior import OptionError
from latent_prior.host import threestudio as threestudio_host
from latent_prior.host.embedded.environment import hidden_values, with_references
from latent_prior.host.embedded.memory import require_memory, shortage
from latent_prior.host.embedded.yaml_files import read_config, select
from latent_prior.host.threestudio import refusal

__all__ = [
    "NAME",
    "BaseImplicitGeometry",
    "BaseLift3DSystem",
    "BaseModule",
    "BaseObject",
    "BaseSystem",
    "C",
    "Exporter",
    "ExporterOutput",
    "PromptProcessor",
    "Updateable",
    "config_to_primitive",
    "dump_config",
    "find",
    "find_last_path",
    "get_device",
    "get_rank",
    "hidden_values",
    "info",
    "load_config",
    "load_module_weights",
    "merge_config",
    "parse_structured",
    "read_config",
    "refusal",
    "require_memory",
    "register",
    "resolve_config",
    "select",
    "shortage",
    "warn",
    "with_references",
]


def _choose() -> str:
    """The host to use, from LATENT_PRIOR_HOST and what is available; imports threestudio if it is chosen."""
    wish = os.environ.get("LATENT_PRIOR_HOST", "").strip().lower() or "auto"
    if wish not in ("auto", "embedded", "threestudio"):
        raise OptionError.because(f"LATENT_PRIOR_HOST (--host) must be auto, embedded or threestudio, got {wish!r}")
    if wish == "embedded" or (wish == "auto" and not threestudio_host.is_there()):
        return "embedded"
    try:
        threestudio_host.bring_in()
    except OptionError as error:
        if wish == "threestudio":
            raise OptionError.because(f"LATENT_PRIOR_HOST (--host) is threestudio: {error}") from error
        warnings.warn(f"{error}. Using the embedded host; --host threestudio makes this an error.", stacklevel=2)
        return "embedded"
    return "threestudio"


NAME = _choose()

if NAME == "threestudio":
    import threestudio
    from threestudio import info, register, warn
    from threestudio.models.exporters.base import Exporter, ExporterOutput
    from threestudio.models.geometry.base import BaseImplicitGeometry
    from threestudio.models.prompt_processors.base import PromptProcessor
    from threestudio.systems.base import BaseLift3DSystem, BaseSystem
    from threestudio.utils.base import BaseModule, BaseObject, Updateable
    from threestudio.utils.config import config_to_primitive, parse_structured
    from threestudio.utils.misc import C, get_device, get_rank

    # ours report errors clearly and create no folder; they also add the resolver `slug` to threestudio's own launch.py
    from latent_prior.host.embedded import config as _config
    from latent_prior.host.embedded.config import dump_config, merge_config
    from latent_prior.host.embedded.misc import find_last_path, load_module_weights
    from latent_prior.host.embedded.registry import lookup

    def find(name: str, key: str = "") -> type:
        """threestudio's `find`, with an unknown name reported as the embedded host does."""
        return lookup(threestudio.__modules__, name, key)

    def resolve_config(merged: DictConfig) -> Any:
        """Like the embedded host's, with text escaped twice: threestudio's `parse_structured` resolves it once more."""
        cfg = _config.resolve_config(merged)
        for part in ("data", "system"):
            cfg[part] = _config.escaped(config_to_primitive(cfg[part], resolve=False))
        return cfg

    def load_config(*yamls: str, **kwargs) -> Any:
        """Read an experiment, see `merge_config` and `resolve_config`."""
        return resolve_config(merge_config(*yamls, **kwargs))

else:
    # importing these registers them
    import latent_prior.host.embedded.backgrounds
    import latent_prior.host.embedded.cameras
    import latent_prior.host.embedded.materials  # noqa: F401
    from latent_prior.host.embedded.base import BaseModule, BaseObject, Updateable
    from latent_prior.host.embedded.config import (
        config_to_primitive,
        dump_config,
        load_config,
        merge_config,
        parse_structured,
        resolve_config,
    )
    from latent_prior.host.embedded.exporters import Exporter, ExporterOutput
    from latent_prior.host.embedded.geometry import BaseImplicitGeometry
    from latent_prior.host.embedded.lift3d import BaseLift3DSystem
    from latent_prior.host.embedded.logs import get_rank, info, warn
    from latent_prior.host.embedded.misc import find_last_path, get_device, load_module_weights
    from latent_prior.host.embedded.prompts import PromptProcessor
    from latent_prior.host.embedded.registry import find, register
    from latent_prior.host.embedded.scalars import C
    from latent_prior.host.embedded.systems import BaseSystem
