"""The one seam to the framework: threestudio where it is there, our embedded host otherwise.

`LATENT_PRIOR_HOST` decides: `threestudio`, `embedded`, or `auto` (the default), which takes threestudio when it is
imported already or can be imported. The rest of the plugin says `from latent_prior import host` and uses what is
exported here; NAME tells which host it is.
"""

import importlib
import importlib.util
import os
import sys
import warnings

__all__ = [
    "NAME",
    "BaseLift3DSystem",
    "BaseModule",
    "BaseObject",
    "BaseSystem",
    "C",
    "ExperimentConfig",
    "Exporter",
    "ExporterOutput",
    "PromptProcessor",
    "PromptProcessorOutput",
    "Updateable",
    "chunk_batch",
    "cleanup",
    "config_to_primitive",
    "debug",
    "dump_config",
    "find",
    "find_last_path",
    "get_activation",
    "get_device",
    "get_rank",
    "hash_prompt",
    "info",
    "load_config",
    "load_module_weights",
    "parse_structured",
    "register",
    "warn",
]


def _choose() -> str:
    """The host to use, by LATENT_PRIOR_HOST and by what is installed."""
    wish = os.environ.get("LATENT_PRIOR_HOST", "").strip().lower() or "auto"
    if wish not in ("auto", "embedded", "threestudio"):
        raise ValueError(f"LATENT_PRIOR_HOST must be auto, embedded or threestudio, got {wish!r}")
    if wish == "threestudio":
        try:
            importlib.import_module("threestudio")
        except Exception as error:
            raise ValueError(f"LATENT_PRIOR_HOST is threestudio, which cannot be imported: {error}") from error
    if wish != "auto":
        return wish
    if "threestudio" in sys.modules:
        return "threestudio"
    spec = importlib.util.find_spec("threestudio")
    if spec is None or spec.origin is None:  # without an origin it is some folder of that name, such as a clone
        return "embedded"
    before = set(sys.modules)
    try:
        importlib.import_module("threestudio")
    except Exception as error:  # tinycudann, for one, raises OSError where there is no GPU
        for name in set(sys.modules) - before:  # half of threestudio would pass for all of it the next time
            if name.split(".")[0] == "threestudio":
                del sys.modules[name]
        warnings.warn(
            f"threestudio is there but cannot be imported ({error}); using the embedded host. "
            "LATENT_PRIOR_HOST=embedded silences this, LATENT_PRIOR_HOST=threestudio makes it an error.",
            stacklevel=2,
        )
        return "embedded"
    return "threestudio"


NAME = _choose()

if NAME == "threestudio":
    import threestudio
    from threestudio import debug, info, register, warn
    from threestudio.models.exporters.base import Exporter, ExporterOutput
    from threestudio.models.prompt_processors.base import PromptProcessor, PromptProcessorOutput, hash_prompt
    from threestudio.systems.base import BaseLift3DSystem, BaseSystem
    from threestudio.utils.base import BaseModule, BaseObject, Updateable
    from threestudio.utils.config import (
        ExperimentConfig,
        config_to_primitive,
        dump_config,
        load_config,
        parse_structured,
    )
    from threestudio.utils.misc import C, cleanup, find_last_path, get_device, get_rank
    from threestudio.utils.ops import chunk_batch, get_activation

    from latent_prior.host.embedded.misc import load_module_weights  # reads tensors only, and says what is wrong
    from latent_prior.host.embedded.registry import lookup

    def find(name: str, key: str = "") -> type:
        """threestudio's `find`, with an unknown name reported as the embedded host does."""
        return lookup(threestudio.__modules__, name, key)

else:
    # registered by being imported
    import latent_prior.host.embedded.backgrounds
    import latent_prior.host.embedded.cameras
    import latent_prior.host.embedded.geometry
    import latent_prior.host.embedded.materials  # noqa: F401
    from latent_prior.host.embedded.base import BaseModule, BaseObject, Updateable
    from latent_prior.host.embedded.config import (
        ExperimentConfig,
        config_to_primitive,
        dump_config,
        load_config,
        parse_structured,
    )
    from latent_prior.host.embedded.exporters import Exporter, ExporterOutput
    from latent_prior.host.embedded.lift3d import BaseLift3DSystem
    from latent_prior.host.embedded.misc import (
        C,
        chunk_batch,
        cleanup,
        debug,
        find_last_path,
        get_activation,
        get_device,
        get_rank,
        info,
        load_module_weights,
        warn,
    )
    from latent_prior.host.embedded.prompts import PromptProcessor, PromptProcessorOutput, hash_prompt
    from latent_prior.host.embedded.registry import find, register
    from latent_prior.host.embedded.systems import BaseSystem
