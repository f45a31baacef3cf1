"""Runs mutated configs through the command line's code, in a child process that is replaced if it dies.

The child believes in a fixed amount of free memory, so that what is refused does not depend on the machine, and cannot
take much more than that.
"""

import contextlib
import io
import multiprocessing
import os
import resource
import shutil
import signal
import traceback
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import yaml
from omegaconf import OmegaConf
from reliability.config_mutations import Mutation
from small_configs import CONFIGS, small

MEMORY = 10**9  # bytes
SECONDS = 60  # a run that takes longer hangs
STEPS = 3  # a run with another trainer.max_steps ends here
GRID = {"n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8, "base_resolution": 4, "per_level_scale": 1.5}
# What training made of the config, not a fault that could have been seen in it: such a run keeps its folder.
RESULTS = ("diverged", "finite", "the field is empty", "no density exceeds")


@dataclass(frozen=True)
class Outcome:
    """The exit code, or the traceback of what was raised; the lines of the error; what lies in the run's folder."""

    code: int | None
    raised: str = ""
    errors: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def fault(self, names: tuple[str, ...]) -> str:
        """What is wrong with it; "" for a run to the end, or a refusal in one line that names a key and leaves nothing."""
        if self.raised:
            return self.raised
        if self.code == 0:
            return ""
        if len(self.errors) != 1:
            return f"exit {self.code} with {len(self.errors)} lines: {self.errors}"
        if self.code == 1 and any(word in self.errors[0] for word in RESULTS):
            return ""
        if self.code != 2:
            return f"exit {self.code}: {self.errors[0]}"
        if self.left:
            return f"left {', '.join(self.left)}: {self.errors[0]}"
        return "" if any(name in self.errors[0] for name in names) else f"does not name the key: {self.errors[0]}"


def tiny(name: str, inputs: dict[str, Path]) -> dict:
    """A shipped config that trains, tests and exports in a second, with its interpolations."""
    given = OmegaConf.load(CONFIGS[name])
    ours = small(name, inputs) | {"trainer": {"max_steps": 2, "log_every_n_steps": 1, "precision": "32-true"}}
    if "stylegan" in name:
        ours["data"] |= {"n_grid": 2, "n_frames": 2, "eval_batch_size": 2}
    elif "layered" not in name:
        ours["data"] |= {"eval_height": 8, "eval_width": 8, "n_test_views": 2}
        fields = {"volume-grid": {"grid_size": [8, 8, 8]}, "sdf-grid": {"levels": [2, 3, 5, 8], "feature_size": 8}}
        field = fields.get(given.system.geometry_type, {"pos_encoding_config": {"otype": "HashGrid", **GRID}})
        if "mesh" in name:
            ours["system"]["geometry"]["field"] = field
            ours["system"]["exporter"] = {"texture_size": 32}
        else:
            ours["system"]["geometry"] = {"isosurface_resolution": 8, **field}
            ours["system"]["exporter"] = {"texture_size": 32}
            if given.system.geometry_type != "sdf-grid":
                ours["system"]["exporter"]["isosurface_threshold"] = 0.1  # after two steps the field is nearly empty
    return OmegaConf.to_container(OmegaConf.merge(given, ours), resolve=False)


class Child:
    """Calls `_attempt` in a child process, for one config at a time; `folder` is where the runs lie while they last."""

    def __init__(self, folder: Path):
        self.home = folder / "run"
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, mutation: Mutation) -> Outcome:
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        self._pool = self._pool or ProcessPoolExecutor(1, multiprocessing.get_context("forkserver"), _prepare)
        config = yaml.safe_dump(mutation.tree, sort_keys=False)
        try:
            return self._pool.submit(_attempt, config, self.home).result(3 * SECONDS)
        except (BrokenProcessPool, TimeoutError) as error:
            self.close()
            return Outcome(None, raised=f"{type(error).__name__}: the process died, or hangs")

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.kill()
            self._pool.shutdown()
            self._pool = None


class _TooLong(BaseException):
    pass


def _too_long(number: int, frame: object) -> None:
    raise _TooLong(f"after {SECONDS} s")


def _prepare() -> None:
    """Import what a run needs, and bound what it takes."""
    from latent_prior.host.embedded import memory
    from latent_prior.runs import callbacks, curves, experiment

    experiment.load()
    patch.object(curves, "draw", lambda *_: None).start()  # half of the time
    patch.object(memory, "available", lambda: MEMORY).start()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * MEMORY, resource.RLIM_INFINITY))
    first = callbacks.AfterFirstStep.on_train_batch_end

    def stopping(self, trainer, *args) -> None:
        first(self, trainer, *args)
        trainer.should_stop = trainer.global_step >= STEPS

    patch.object(callbacks.AfterFirstStep, "on_train_batch_end", stopping).start()
    signal.signal(signal.SIGALRM, _too_long)


def _attempt(config: str, home: Path) -> Outcome:
    """Train, test and export a config given as YAML, in the empty folder `home`."""
    from latent_prior.cli import launch

    source = home.with_suffix(".yaml")
    source.write_text(config)
    os.chdir(home)
    code, raised, errors = None, "", io.StringIO()
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            code = launch.main(["--config", str(source)])
    except (Exception, _TooLong):
        raised = traceback.format_exc()
    finally:
        signal.alarm(0)
    lines = errors.getvalue().splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("error:")), len(lines))
    left = sorted(str(path.relative_to(home)) for path in home.rglob("*"))
    return Outcome(code, raised, tuple(lines[start:]), tuple(left))
