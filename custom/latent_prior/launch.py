"""Running an experiment: config in, run folder out. `launch.py`, the console script and `evaluate` all come here.

The flags are threestudio's; where none is given the whole job runs: train, test (the turntable), export (the mesh).
"""

import argparse
import importlib.util
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latent_prior import OptionError, host_arguments
from latent_prior.run_folder import Interrupted

MODES = ("train", "validate", "test", "export")
WHOLE_JOB = ("train", "test", "export")


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    system: Any


def run(
    configs: Sequence[str],
    overrides: Sequence[str] = (),
    modes: Sequence[str] = WHOLE_JOB,
    gpu: str = "0",
    **settings: Any,
) -> Run:
    """Run an experiment.

    configs: YAML files, merged in order; overrides: `key=value`; settings: nested values that override both (a prompt
    needs no quoting here). Raises ValueError for bad input, before anything is written. Ctrl-C and SIGTERM raise
    `Interrupted` where there is a checkpoint to go on from, else KeyboardInterrupt.
    """
    for mode in modes:
        if mode not in MODES:
            raise OptionError.because(f"unknown mode {mode!r}: expected one of {', '.join(MODES)}")
    _quieten()
    n_gpus = choose_gpus(gpu)  # before anything looks for GPUs
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
    from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    import latent_prior
    from latent_prior import host, run_folder
    from latent_prior.callbacks import OnFirstStep, Progress, SaveOnInterrupt
    from latent_prior.host.resume import ExactResume

    latent_prior.register()
    on_gpu = torch.cuda.is_available() and host.get_device().type == "cuda"
    n_gpus = n_gpus if on_gpu else 1
    cfg = host.load_config(*configs, cli_args=list(overrides), n_gpus=n_gpus, **settings)
    folder = Path(cfg.trial_dir)
    last = folder / "ckpts" / "last.ckpt"
    new, started = run_folder.claim(folder), []

    def begin() -> None:
        started.append(True)
        run_folder.write_origin(folder, cfg, list(configs))

    try:
        cfg.resume = host.find_last_path(cfg.resume)
        if cfg.resume is not None and not Path(cfg.resume).is_file():
            raise OptionError.because(
                f"resume: {cfg.resume!r} is no checkpoint file; expected ckpts/last.ckpt of a run"
            )
        if "train" not in modes and cfg.resume is None:
            raise OptionError.because(f"--{modes[0]} needs a checkpoint: add resume=RUN/ckpts/last.ckpt")
        pl.seed_everything(cfg.seed + host.get_rank(), workers=True, verbose=False)
        dm = host.find(cfg.data_type, "data_type")(cfg.data)
        system = host.find(cfg.system_type, "system_type")(cfg.system, resumed=cfg.resume is not None)
        system.set_save_dir(str(folder / "save"))
        moment = None if cfg.resume is None else _check_fit(cfg.resume, system)
        given = _trainer_arguments(cfg.trainer, on_gpu)
        callbacks, loggers = [Progress()] if given.pop("enable_progress_bar", True) else [], []
        if "train" in modes:
            callbacks += [
                OnFirstStep(begin),
                ExactResume(),
                # with the counter a resumed run would write `last-v1.ckpt` beside a `last.ckpt` that grows old
                _built(
                    ModelCheckpoint,
                    "checkpoint",
                    {"dirpath": str(folder / "ckpts")},
                    {"enable_version_counter": False} | host.config_to_primitive(cfg.checkpoint),
                ),
                LearningRateMonitor(logging_interval="step"),
                SaveOnInterrupt(folder / "ckpts"),
            ]
            loggers = [
                TensorBoardLogger(str(folder), name="tb_logs"),
                CSVLogger(str(folder), name="csv_logs", flush_logs_every_n_steps=1),
                *system.get_loggers(),
            ]
        ours = {
            "callbacks": callbacks,
            "logger": loggers or False,
            "accelerator": "gpu" if on_gpu else "cpu",
            "devices": n_gpus,
            "inference_mode": False,
            "enable_progress_bar": False,
        }
        trainer = _built(pl.Trainer, "trainer", ours, {"enable_model_summary": False} | given)
        checkpoint = cfg.resume
        if "train" in modes:
            trainer.fit(system, datamodule=dm, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
            if not started:  # resumed from the end of a finished run
                begin()
            trainer.save_checkpoint(last)  # max_steps need not be a multiple of the interval
            checkpoint = None  # what follows works on the trained system as it stands
        else:
            system.set_resume_status(*moment)
        steps = {"validate": trainer.validate, "test": trainer.test, "export": trainer.predict}
        for mode in modes:
            if mode in steps:
                quiet = {"return_predictions": False} if mode == "export" else {"verbose": False}
                steps[mode](
                    system, datamodule=dm, ckpt_path=checkpoint, weights_only=True if checkpoint else None, **quiet
                )
        return Run(folder, system)
    except BaseException as error:
        refusal = error if isinstance(error, ValueError) else host.refusal(error)
        if isinstance(error, MisconfigurationException):
            refusal = ValueError(f"trainer: {error}")
        if new and not started and ("train" in modes or refusal):
            run_folder.remove_unused(folder)
        if refusal and refusal is not error:
            raise refusal from error
        if isinstance(error, KeyboardInterrupt | SystemExit):  # Lightning leaves by SystemExit on either signal
            if started and last.is_file():
                raise Interrupted(last) from None
            raise KeyboardInterrupt from None
        raise


def one_gpu(given: str) -> str:
    """`--gpu` as CUDA_VISIBLE_DEVICES has it: a number (also as cuda:0), or the name of a GPU or of a part of one."""
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

    CUDA_VISIBLE_DEVICES goes before, as in threestudio; of several the run uses the first.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", one_gpu(gpu))
    return 1


def _check_fit(resume: str, system: Any) -> tuple[int, int]:
    """The (epoch, step) of a checkpoint. ValueError unless its tensors have the names and shapes of the system's."""
    from latent_prior import host

    try:
        state, epoch, step = host.load_module_weights(resume, map_location="cpu")
    except ValueError as error:
        raise OptionError.because(f"resume: {error}") from error
    there, here = ({name: tuple(value.shape) for name, value in s.items()} for s in (state, system.state_dict()))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise OptionError.because(
                f"resume: {resume!r} was written under another config: its {name} has shape "
                f"{there.get(name, 'none')}, this config's {here.get(name, 'none')}"
            )
    return epoch, step


def _built(cls: type, key: str, ours: dict[str, Any], given: dict[str, Any]) -> Any:
    """cls(**ours, **given), with what is wrong in `given` reported under its config key."""
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    if taken := sorted(ours.keys() & given.keys()):
        raise OptionError.because(
            f"{key}.{taken[0]}: this is set for every run (GPUs by --gpu); remove it from the config"
        )
    try:
        return cls(**ours, **given)
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise OptionError.because(f"{key}: {error} (got {given})") from error


def _trainer_arguments(cfg: Any, on_gpu: bool) -> dict[str, Any]:
    """Lightning's arguments from the config; half precision means nothing without a GPU."""
    from latent_prior import host

    arguments = host.config_to_primitive(cfg)
    if not on_gpu and str(arguments.get("precision", 32)).startswith(("16", "bf16")):
        host.warn(f"trainer.precision={arguments['precision']} needs a GPU: training in float32")
        arguments["precision"] = "32-true"
    return arguments


def _quieten() -> None:
    """Silence what Lightning says about choices that are ours: workers, sizes of datasets, hardware that is there."""
    for message in (
        ".*does not have many workers.*",
        ".*`IterableDataset` has `__len__`.*",
        ".*isinstance.treespec.*",
        "predict returned None.*",
        ".*exists and is not empty.*",
        ".*callbacks used to create the checkpoint.*",
    ):
        warnings.filterwarnings("ignore", message)
    for category in (DeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)
    # loading a checkpoint takes less time than its progress bars take lines
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    said = ("GPU available", "TPU available", "HPU available", "💡", "`weights_only`")
    for name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.trainer.connectors.checkpoint_connector"):
        logging.getLogger(name).addFilter(lambda record: not record.getMessage().startswith(said))


def report(folder: Path) -> None:
    """Say what a run made."""
    from latent_prior.run_folder import products

    print(f"\nRun folder: {folder}")
    for path in products(folder):
        print(f"  {path}")


def guarded(action: Callable[[], None], verbose: bool = False) -> int:
    """Run `action()` and return the exit code.

    Bad input becomes one line and 2 (after its traceback where `verbose` or LATENT_PRIOR_DEBUG=1 asks for it), Ctrl-C or
    SIGTERM becomes 130 with what to do next. Anything else is a bug and keeps its traceback.
    """
    try:
        action()
    except OptionError as error:
        if verbose or os.environ.get("LATENT_PRIOR_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        run = stop.checkpoint.parent.parent
        print(f"Saved {stop.checkpoint}\nContinue with: latent-prior resume {run}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="launch.py",
        description="Run an experiment. Without a mode flag the whole job runs: train, test (turntable), export (mesh).",
        epilog='example: python launch.py --config custom/latent_prior.yaml system.prompt_processor.prompt="a red mug"',
    )
    p.add_argument("--config", required=True, help="the experiment's YAML, e.g. custom/latent_prior.yaml")
    host_arguments.add_run_arguments(p)
    mode = p.add_mutually_exclusive_group()
    mode.add_argument("--train", action="store_true", help="train, then render the turntable")
    mode.add_argument("--validate", action="store_true", help="render the validation views of resume=CHECKPOINT")
    mode.add_argument("--test", action="store_true", help="render the turntable of resume=CHECKPOINT")
    mode.add_argument("--export", action="store_true", help="write the mesh of resume=CHECKPOINT")
    p.add_argument("--verbose", action="store_true", help="log at level DEBUG, and show where an error came from")
    p.add_argument(
        "--typecheck", action="store_true", help="check shapes at run time (slow; changes the random numbers)"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """`python launch.py`; returns the exit code."""
    args = parser().parse_intermixed_args(argv)
    modes = {"train": ("train", "test"), "validate": ("validate",), "test": ("test",), "export": ("export",)}
    chosen = next((modes[m] for m in MODES if getattr(args, m)), WHOLE_JOB)
    if args.verbose:
        logging.getLogger("pytorch_lightning").setLevel(logging.DEBUG)

    def action() -> None:
        host_arguments.choose(args)
        if args.typecheck:
            from jaxtyping import install_import_hook

            if importlib.util.find_spec("beartype") is None:
                raise OptionError.because("--typecheck needs beartype: pip install beartype")
            install_import_hook("latent_prior", "beartype.beartype")
        report(run([args.config], args.overrides, chosen, args.gpu).folder)

    return guarded(action, args.verbose)
