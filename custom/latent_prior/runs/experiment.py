"""Running an experiment: from a config to a run folder. `launch.py`, the console script and `evaluate` all use it."""

import gc
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import latent_prior
from latent_prior import OptionError
from latent_prior.files.refusals import NotWritten
from latent_prior.runs import curves, endings, gpus, launches, settings, signals
from latent_prior.runs.folder import Interrupted, Stopped
from latent_prior.runs.quiet import quiet

MODES = ("train", "validate", "test", "export")
WHOLE_JOB = ("train", "test", "export")


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    system: Any


@signals.as_interrupt()
def run(
    configs: Sequence[str],
    overrides: Sequence[str] = (),
    modes: Sequence[str] = WHOLE_JOB,
    gpu: str = "0",
    **given: Any,
) -> Run:
    """Run an experiment.

    configs: YAML files, merged in order; overrides: `key=value`; given: nested values that override both (a prompt
    needs no quoting here). Raises OptionError for bad input, before anything is written, and `Stopped` for an error of
    the user's that shows later. In the main thread, Ctrl-C, SIGTERM and SIGHUP raise `Interrupted` if there is a
    checkpoint to continue from, else KeyboardInterrupt.

    Training on several GPUs (`gpu`, `trainer.num_nodes`) takes one process each (processes.py): the program is started
    again for each, and only the first returns from here; the others, and this process, end by SystemExit.
    """
    for mode in modes:
        if mode not in MODES:
            raise OptionError.because(f"unknown mode {mode!r}: expected one of {', '.join(MODES)}")
    n_gpus = gpus.choose_gpus(gpu)  # before anything looks for GPUs
    load()
    from latent_prior import host
    from latent_prior.runs import processes

    with quiet():
        experiment, launch = _read(configs, overrides, modes, n_gpus, given), launches.Launch()
        try:
            with (
                host.hidden_values(experiment.unresolved),
                processes.together(*experiment.processes, experiment.on_gpu),
                endings.in_our_words(experiment),
            ):
                _claim(experiment)
                _build(experiment)
                if "train" in modes:
                    with launch.part("train", lambda: experiment.began):
                        _train(experiment)
                for mode in modes:
                    if mode != "train":
                        with launch.part(mode):
                            _evaluate(experiment, mode)
                    if mode == "test":
                        curves.draw(experiment.folder / "csv_logs", experiment.folder / "save" / "curves.png")
        finally:
            if experiment.claim is not None and experiment.claim.lock is not None:
                launch.write(experiment.folder)
            experiment.release()
    return Run(experiment.folder, experiment.system)


def load() -> None:
    """Import the modules that a run needs, and register our types.

    The garbage collector is off meanwhile: it takes a quarter of that time, and as much again later, but modules hold
    no garbage.
    """
    if "latent_prior.registration" in sys.modules:
        return
    collecting = gc.isenabled()
    gc.disable()
    try:
        with quiet():
            importlib.import_module("pytorch_lightning")
            latent_prior.register()
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


@dataclass
class _Experiment:
    """A run in progress."""

    sources: Sequence[str]  # YAML files
    unresolved: Any  # the merged config, with its interpolations
    cfg: Any  # the same, as an ExperimentConfig
    modes: Sequence[str]
    on_gpu: bool
    processes: tuple[int, int] = (1, 1)  # on each machine, and machines
    claim: Any = None  # run_folder.Claim
    saved: Any = None  # the runs.checkpoint.Saved to resume from, or None
    began: bool = False  # a training step is done, or none was left
    trained: bool = False
    system: Any = None
    data: Any = None
    trainer: Any = None

    @property
    def folder(self) -> Path:
        return self.claim.folder

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.folder / "ckpts" / "last.ckpt"

    def begin(self) -> None:
        """Record what the run is made from."""
        from latent_prior.host import ranks
        from latent_prior.runs import folder as run_folder

        if ranks.is_first():
            run_folder.write_origin(self.folder, self.cfg, self.unresolved, self.sources)
        self.began = True

    def release(self, remove: bool = False) -> None:
        """Let others have the folder, if it was claimed; see `Claim.release`."""
        if self.claim is not None:
            self.claim.release(remove)


def _read(
    configs: Sequence[str], overrides: Sequence[str], modes: Sequence[str], n_gpus: int, given: dict[str, Any]
) -> _Experiment:
    """Read the config."""
    found = settings.read(configs, overrides, "train" in modes, n_gpus, given)
    if "train" not in modes and found.cfg.resume is None:
        raise OptionError.because(f"--{modes[0]} needs a checkpoint: add resume=RUN/ckpts/last.ckpt")
    return _Experiment(configs, found.unresolved, found.cfg, modes, found.on_gpu, found.processes)


def _claim(experiment: _Experiment) -> None:
    """Claim the run's folder, and read the checkpoint, if any, now that nothing else writes it."""
    from latent_prior.host import ranks
    from latent_prior.runs import checkpoint
    from latent_prior.runs import folder as run_folder

    cfg = experiment.cfg

    def claimed() -> tuple[Path, bool]:
        with signals.delayed():  # what is created is always known
            resume = cfg.resume and Path(cfg.resume)
            experiment.claim = run_folder.claim(Path(cfg.trial_dir), resume, numbered=bool(cfg.timestamp))
        return experiment.claim.folder, experiment.claim.fresh

    folder, fresh = ranks.from_first(claimed)
    if not ranks.is_first():
        experiment.claim = run_folder.Claim(folder, lock=None, fresh=fresh)
    if folder != Path(cfg.trial_dir):
        cfg.timestamp += folder.name.removeprefix(cfg.trial_name)
        cfg.trial_name, cfg.trial_dir = folder.name, str(folder)
    if cfg.resume is not None:
        experiment.saved = checkpoint.read(cfg.resume)
        if "train" in experiment.modes:
            _check_order(experiment)
            _compare_threads(experiment)


def _check_order(experiment: _Experiment) -> None:
    """OptionError if training would end before the checkpoint's step; warns of schedules for another length."""
    from latent_prior import host
    from latent_prior.runs import folder as run_folder

    saved, steps = experiment.saved, experiment.cfg.trainer.get("max_steps")
    if steps is not None and steps < saved.step:
        raise OptionError("trainer.max_steps", steps, f"at least {saved.step}, the step of {saved.path}")
    if not experiment.claim.fresh and (reached := run_folder.last_step(experiment.folder)) > saved.step:
        raise OptionError.because(
            f"{saved.path} is of step {saved.step}; its run has reached step {reached}, which would be overwritten; "
            "resume from that one, or set another tag",
            "resume",
        )
    for source in experiment.sources:
        if Path(source).name == run_folder.PARSED:
            made_for = host.select(host.read_config(source), "trainer.max_steps")
            if made_for != steps:
                host.warn(f"{source} holds schedules for trainer.max_steps={made_for}, and they stay so under {steps}")


def _compare_threads(experiment: _Experiment) -> None:
    """Warns if the run was trained on the CPU with another number of threads, which round differently."""
    import torch

    from latent_prior import host
    from latent_prior.runs import folder as run_folder

    run, now = experiment.saved.path.parent.parent, torch.get_num_threads()
    before = run_folder.threads_of(run)
    if not experiment.on_gpu and before not in (None, now):
        host.warn(
            f"{run} was trained with {before} threads and continues with {now}: results differ slightly from those of "
            f"an uninterrupted run (OMP_NUM_THREADS={before} gives the same ones)"
        )


def _build(experiment: _Experiment) -> None:
    """The data, the system and the trainer."""
    import pytorch_lightning as pl

    from latent_prior import host
    from latent_prior.host import ranks
    from latent_prior.runs import checkpoint, resumable, room

    cfg, saved = experiment.cfg, experiment.saved
    pl.seed_everything((cfg.seed + ranks.rank()) % 2**32, workers=True, verbose=False)
    experiment.data = host.find(cfg.data_type, "data_type")(cfg.data)
    system = host.find(cfg.system_type, "system_type")(cfg.system, resumed=saved is not None)
    system.set_save_dir(str(experiment.folder / "save"))
    experiment.system = system
    if saved is not None:
        checkpoint.check_fit(saved, system)
    trains = "train" in experiment.modes
    _make_trainer(experiment, trains)
    if saved is not None:
        resumable.check(saved, system, experiment.trainer, trains)
    if trains and ranks.is_first():
        room.check(experiment.folder, cfg, system, 0 if saved is None else saved.step)


def _make_trainer(experiment: _Experiment, trains: bool) -> None:
    from latent_prior.runs import trainer

    parts = (experiment.folder, experiment.cfg, experiment.system, experiment.begin, trains, experiment.on_gpu)
    experiment.trainer = trainer.build(*parts)


def _train(experiment: _Experiment) -> None:
    """Train to the last step, where `SaveOnInterrupt` saves; only the first process comes back."""
    from latent_prior.host import ranks
    from latent_prior.runs import processes

    trainer, checkpoint = experiment.trainer, experiment.cfg.resume
    with endings.without_new_logs(experiment):
        trainer.fit(
            experiment.system, datamodule=experiment.data, ckpt_path=checkpoint, weights_only=checkpoint and True
        )
    if not experiment.began:  # resumed from the end of a finished run
        experiment.begin()
        trainer.save_checkpoint(experiment.last)
    experiment.trained = True
    if ranks.world() > 1:
        processes.part()
        experiment.system.set_resume_status(trainer.current_epoch, trainer.global_step)
        _make_trainer(experiment, trains=False)


def _evaluate(experiment: _Experiment, mode: str) -> None:
    """Validate, test or export the trained system, or the checkpoint's if nothing was trained."""
    from latent_prior import host

    trainer, checkpoint = experiment.trainer, None if experiment.trained else experiment.cfg.resume
    if checkpoint:
        experiment.system.set_resume_status(experiment.saved.epoch, experiment.saved.step)
    step = {"validate": trainer.validate, "test": trainer.test, "export": trainer.predict}[mode]
    quiet = {"return_predictions": False} if mode == "export" else {"verbose": False}
    try:
        step(
            experiment.system,
            datamodule=experiment.data,
            ckpt_path=checkpoint,
            weights_only=checkpoint and True,
            **quiet,
        )
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if not experiment.trained:
            raise
        command = "export" if mode == "export" else "resume"
        if not isinstance(error, Exception):
            raise Interrupted(experiment.last, command) from None
        command = f"latent-prior {command} {experiment.folder}"
        kept = f"the run is trained and saved, only its {mode} failed; try again with: {command}"
        if (refused := endings.refusal(error, experiment)) is None:
            host.warn(kept)
            raise
        if mode == "export" and isinstance(refused, NotWritten):
            kept += ", or elsewhere with exp_root_dir=FOLDER after it"
        raise Stopped.because(f"{refused} ({kept})") from error
