"""Runs of several processes on the CPU: they are one run with a larger batch, resume to the bit, and end together.

The processes are those of tests/runs/joined.py. What takes seconds is marked slow.
"""

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from flattened import flat
from latent_prior import OptionError, host
from latent_prior.cli import launch, main
from latent_prior.editing.layer import BatchNorm
from latent_prior.host import ranks
from latent_prior.host.embedded.cameras import RandomCameraDataModule
from latent_prior.runs import gpus, processes, trainer
from latent_prior.runs.callbacks import SaveOnInterrupt
from latent_prior.runs.folder import Interrupted
from latent_prior.runs.resume import KEY, ExactResume, rng_state, set_rng_state, states_in
from latent_prior.stylegan2.layers import most_moved
from latent_prior.systems import regularisers
from omegaconf import OmegaConf
from reliability import tiny_systems

JOINED = Path(__file__).with_name("joined.py")
PATIENCE = 300.0
# Rounding decides the sign of a gradient that is zero, and Adam would make a whole step of it.
SMOOTH = {"system.optimizer.args.eps": 1e-3}
ALIKE = {
    "text_to_3d": {
        "system.geometry.level_steps": "[0,0,1,2]",
        "system.geometry.level_fade": 2,
        "system.hollowing.step": 6,
        "system.hollowing.least_gain": 0,
        "system.hollowing.walls": "[0.06]",
        "system.mesh_stage.from_step": 8,
        "system.loss.lambda_emptiness": 0.1,
        "system.loss.lambda_orient": 0.1,
        "system.renderer.return_comp_normal": "true",
    },
    "stylegan_adaptation": {"system.adaptive_layers": 3, "system.trainable": "[synthesis.*]"},
    "layered_editing": {},
}


@pytest.fixture(scope="module")
def systems(tiny_prior, tmp_path_factory):
    inputs = tmp_path_factory.mktemp("inputs")
    tiny_systems.write_inputs(inputs)
    return tiny_systems.systems(tiny_prior, inputs)


class Job:
    """A run of joined.py in a process group of its own; what it says goes to files in `folder`."""

    def __init__(self, folder: Path, arguments: list[str], **environment: object):
        folder.mkdir(parents=True, exist_ok=True)
        self._said = [folder / "out", folder / "err"]
        given = {"OMP_NUM_THREADS": "1", **{name: str(value) for name, value in environment.items()}}
        with self._said[0].open("w") as out, self._said[1].open("w") as err:
            command = [sys.executable, str(JOINED), *arguments]
            self.process = subprocess.Popen(
                command, env=os.environ | given, stdout=out, stderr=err, start_new_session=True
            )

    @property
    def err(self) -> str:
        return self._said[1].read_text()

    def others(self) -> list[psutil.Process]:
        """The other processes of the run that are alive."""
        group = self.process.pid
        return [
            p for p in psutil.process_iter() if p.pid != group and _group(p.pid) == group and p.status() != "zombie"
        ]

    def end(self) -> int:
        """The exit code, once it has ended, and no process is left."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"it did not end:\n{self.err}") from None
        deadline = time.monotonic() + 5
        while self.others() and time.monotonic() < deadline:
            time.sleep(0.1)
        if left := self.others():
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"it left {left}:\n{self.err}")
        return code


def _group(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


def train(system, out: Path, overrides: dict | None = None, **environment: object) -> Path:
    """Train to the end; the folder of the run."""
    more = [f"{key}={value}" for key, value in (overrides or {}).items()]
    job = Job(out, tiny_systems.launched(system, out, "--train", *more), **environment)
    assert job.end() == 0, job.err
    return out / "name" / "run"


def resume(folder: Path, **environment: object) -> Job:
    return Job(folder.parents[1] / "resumed", ["--main", "resume", str(folder)], **environment)


def last(folder: Path) -> dict:
    return torch.load(folder / "ckpts" / "last.ckpt", weights_only=True)


# Without a run: two forked processes that have met


def both(function, folder: Path, *arguments) -> list:
    """What `function` returns in each of two processes that have met."""
    store = folder / f"store-{time.monotonic_ns()}"
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [
        context.Process(target=_met, args=(rank, store, results, function, arguments), daemon=True) for rank in (0, 1)
    ]
    for child in children:
        child.start()
    found = dict(results.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    return [pickle.loads(found[rank]) for rank in (0, 1)]


def _met(rank: int, store: Path, results, function, arguments: tuple) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    try:
        results.put((rank, pickle.dumps(function(*arguments))))
    except BaseException as error:
        results.put((rank, pickle.dumps(error)))
    results.close()
    results.join_thread()
    os._exit(0)


def agreed():
    rank = ranks.rank()
    x = torch.tensor([1.0, 3.0][rank], requires_grad=True)
    mean = ranks.mean_over(x)
    (mean * (rank + 1)).backward()
    return {
        "place": (ranks.rank(), ranks.world(), ranks.is_first()),
        "same": ranks.same_on_all(f"of {rank}"),
        "first": ranks.from_first(lambda: f"by {rank}"),
        "gathered": ranks.gathered(rank * 10),
        "any": (ranks.any_on(rank == 1), ranks.any_on(False)),
        "where": ranks.any_of(torch.tensor([rank == 0, rank == 1, False])).tolist(),
        "mean": (mean.item(), x.grad.item()),
        "share": (float(ranks.share([2, 6][rank])), float(ranks.share(torch.tensor(0)))),
    }


def test_what_processes_agree_on(tmp_path):
    one, other = both(agreed, tmp_path)
    assert (one.pop("place"), other.pop("place")) == ((0, 2, True), (1, 2, False))
    assert (one.pop("share"), other.pop("share")) == ((0.5, 0.0), (1.5, 0.0))
    shared = {"same": "of 0", "first": "by 0", "gathered": [0, 10], "any": (True, False), "where": [True, True, False]}
    assert one == other == shared | {"mean": (2.0, 1.5)}  # the gradient is the mean of 1 and 2


def test_one_process_agrees_with_itself():
    x = torch.ones(2)
    assert ranks.mean_over(x) is x and ranks.any_of(x) is x and ranks.same_on_all(x) is x
    assert ranks.gathered(3) == [3] and ranks.from_first(lambda: 4) == 4 and ranks.share(7) == 1.0
    assert not ranks.any_on(False) and (ranks.rank(), ranks.world(), ranks.is_first()) == (0, 1, True)


def normalised(pictures: torch.Tensor):
    norm = BatchNorm(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
    mine = pictures.chunk(ranks.world())[ranks.rank()].clone().requires_grad_()
    out = norm(mine)
    (out.sin() * torch.arange(out[0].numel()).view_as(out[0])).mean().backward()
    return out.detach(), mine.grad, norm.weight.grad, norm.bias.grad


def test_the_layer_is_normalised_over_the_pictures_of_all_processes(tmp_path):
    torch.manual_seed(0)
    pictures = torch.randn(2, 3, 4, 5) * torch.tensor([1.0, 4.0]).view(2, 1, 1, 1) + 2
    whole, *halves = normalised(pictures), *both(normalised, tmp_path, pictures)
    torch.testing.assert_close(torch.cat([half[0] for half in halves]), whole[0])
    torch.testing.assert_close(torch.cat([half[1] for half in halves]) / 2, whole[1])  # of losses that are averaged
    for mine in (2, 3):
        torch.testing.assert_close((halves[0][mine] + halves[1][mine]) / 2, whole[mine])


def terms(weights: list[torch.Tensor], normals: list[torch.Tensor]):
    w, n = torch.cat(weights[ranks.rank() :: ranks.world()]), torch.cat(normals[ranks.rank() :: ranks.world()])
    around = regularisers.Stencil(w[:, 0] / 10, n.unbind(1), (-n).unbind(1), 0.1)
    return torch.stack(
        [
            regularisers.emptiness(w, 10.0),
            regularisers.orientation(w, n, n.roll(1, 1)),
            regularisers.eikonal(around),
            regularisers.curvature(around),
        ]
    )


def test_terms_of_different_numbers_of_samples_are_those_of_all(tmp_path):
    g = torch.Generator().manual_seed(1)
    weights = [torch.rand(count, 1, generator=g) - 0.3 * (count == 9) for count in (5, 9)]
    normals = [torch.randn(count, 3, generator=g) for count in (5, 9)]
    weights = [w.clamp(min=0) for w in weights]
    halves = both(terms, tmp_path, weights, normals)
    torch.testing.assert_close((halves[0] + halves[1]) / 2, terms(weights, normals))


def chosen(gradients: torch.Tensor):
    return most_moved(gradients.chunk(ranks.world())[ranks.rank()], 1)


def test_layers_are_chosen_by_the_pictures_of_all_processes(tmp_path):
    gradients = torch.tensor([[[3.0], [0.0], [2.0]], [[0.0], [3.0], [2.0]]])  # each picture alone would choose another
    assert both(chosen, tmp_path, gradients) == [[2], [2]] == [chosen(gradients)] * 2


def azimuths():
    data = RandomCameraDataModule({"batch_size": 2, "height": 4, "width": 4})
    data.setup("fit")
    torch.manual_seed(0)
    return data.train_dataset.collate(None)["azimuth"].tolist()


def test_processes_share_the_sectors_of_the_batch(tmp_path):
    found = sum(both(azimuths, tmp_path), [])
    assert [int((azimuth + 180) // 90) for azimuth in found] == [0, 1, 2, 3]


class Stub(pl.Trainer):
    """A trainer, as far as a callback looks at it."""

    ckpt_path = "last.ckpt"

    def __init__(self):
        pass

    def save_checkpoint(self, path):
        self.saved = path


def saved_and_loaded(loaded: dict | None = None):
    torch.manual_seed(ranks.rank())
    callback, checkpoint = ExactResume(), {"state_dict": {}, "epoch": 0}
    callback._after_step = {"rng": rng_state(), "waiting": [], "updated_at": (0, 3)}
    callback.on_save_checkpoint(Stub(), pl.LightningModule(), checkpoint)
    fresh = ExactResume()
    torch.manual_seed(99)
    fresh.on_load_checkpoint(Stub(), pl.LightningModule(), checkpoint if loaded is None else loaded)
    set_rng_state(fresh._saved["rng"])
    return checkpoint, torch.rand(1).item(), fresh._saved["updated_at"]


def drawn(seed: int) -> float:
    return torch.rand(1, generator=torch.Generator().manual_seed(seed)).item()


def test_each_process_gets_its_own_random_numbers_back(tmp_path, caplog):
    (checkpoint, *one), (same, *other) = both(saved_and_loaded, tmp_path)
    assert len(states_in(checkpoint[KEY])) == 2 and flat(checkpoint) == flat(same)
    assert one == [drawn(0), (0, 3)] and other == [drawn(1), (0, 3)]
    alone, *mine = saved_and_loaded()
    assert alone[KEY].keys() == {"rng", "waiting", "updated_at"}  # as before there were several
    (_, *one), (_, *other) = both(saved_and_loaded, tmp_path, alone)
    assert one == [drawn(0), (0, 3)] and other == [drawn(99), (0, 3)]
    assert not caplog.records
    assert saved_and_loaded(checkpoint)[1:] == tuple(one)
    assert "is of 2 processes, and the run continues with 1" in caplog.text


def stopped():
    callback, trainer = SaveOnInterrupt(Path("ckpts")), Stub()
    callback._stop_if_asked(trainer)  # nobody has got a signal
    callback.on_train_batch_end()
    if ranks.rank() == 1:
        callback._on_signal(signal.SIGTERM, None)
        callback._on_signal(signal.SIGTERM, None)  # it cannot stop alone
    try:
        callback._stop_if_asked(trainer)
    except Interrupted:
        return trainer.saved
    return "goes on"


def test_a_signal_to_one_process_stops_all(tmp_path):
    assert both(stopped, tmp_path) == [Path("ckpts/last.ckpt")] * 2


def lost():
    if ranks.rank() == 1:
        return None
    try:
        ranks.any_on(True)
    except RuntimeError as error:
        return processes.is_loss(error), processes.is_loss(RuntimeError("shapes do not match"))


def test_that_a_process_has_gone_is_told_from_a_bug(tmp_path):
    assert both(lost, tmp_path)[0] == (True, False)


# Places


@pytest.fixture
def environment(monkeypatch):
    for name in (*processes.PLACE, "GROUP_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes.os, "environ", found := dict(os.environ))
    return found


SRUN = {"SLURM_JOB_ID": "1234567", "SLURM_STEP_NODELIST": "box[3-4]", "SLURM_PROCID": "3", "SLURM_NTASKS": "4"}
SRUN |= {"SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}


def test_places(environment):
    def place():
        return [environment[name] for name in processes.PLACE[:4]]

    before = dict(environment)
    assert not processes._find_place(2, 1) and environment == before
    environment.update(before | SRUN)
    assert processes._find_place(2, 2) and place() == ["3", "1", "1", "4"]
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("box3", "19567")
    environment.clear()
    environment.update(before | {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"})
    assert not processes._find_place(2, 1)  # one task that has two GPUs
    environment.clear()
    there = {"RANK": "5", "LOCAL_RANK": "1", "GROUP_RANK": "2", "WORLD_SIZE": "6", "SLURM_PROCID": "0"}
    environment.update(before | there)  # torchrun's
    assert processes._find_place(2, 3) and place() == ["5", "1", "2", "6"]


@pytest.mark.parametrize(
    "given, counts, message",
    [
        (SRUN, (2, 1), "srun --ntasks is 4; expected 2, the GPUs of --gpu times trainer.num_nodes"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, (4, 1), "WORLD_SIZE is 2; expected 4"),
        ({}, (1, 2), "trainer.num_nodes: 2 machines: start the command on each"),
    ],
)
def test_places_that_do_not_fit(environment, given, counts, message):
    environment.update(given)
    with pytest.raises(OptionError, match=message):
        processes._find_place(*counts)


def test_a_gpu_is_chosen_by_the_place_on_the_machine(monkeypatch):
    monkeypatch.delenv("LATENT_PRIOR_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, value in {"RANK": "5", "LOCAL_RANK": "1", "SLURM_PROCID": "7"}.items():
        monkeypatch.setenv(name, value)
    assert host.get_device() == torch.device("cuda:1") and host.get_rank() == 5
    monkeypatch.delenv("RANK")
    assert host.get_rank() == 1
    monkeypatch.delenv("LOCAL_RANK")
    assert host.get_device() == torch.device("cuda:0")  # a run of one process in an allocation of several tasks


def test_one_process_in_an_allocation_is_one_process(monkeypatch, tmp_path):
    tasks = {"SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_NODEID": "1"}
    for name, value in (SRUN | tasks | {"SLURM_JOB_NAME": "sweep"}).items():
        monkeypatch.setenv(name, value)
    cfg = OmegaConf.create({"trainer": {"max_steps": 1, "num_nodes": 1}, "checkpoint": {}, "n_gpus": 1})
    built = trainer.build(tmp_path, cfg, None, lambda: None, trains=False, on_gpu=False)
    assert (built.world_size, built.num_devices, built.is_global_zero) == (1, 1, True)
    assert type(built.strategy).__name__ == "SingleDeviceStrategy"


@pytest.mark.parametrize(
    "given, names", [("0,1", "0,1"), (" cuda:1, 0", "1,0"), ("GPU-8a2f,MIG-1/2", "GPU-8a2f,MIG-1/2")]
)
def test_several_gpus_are_chosen(monkeypatch, given, names):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.choose_gpus(given) == 2 and os.environ["CUDA_VISIBLE_DEVICES"] == names


@pytest.mark.parametrize("given", ["0,x", "0,", "0,0", ","])
def test_other_lists_of_gpus_are_refused(given, capsys):
    assert main(["resume", "x", f"--gpu={given}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: --gpu is '{given}'; expected the number of a GPU, such as 0, or several")


@pytest.mark.parametrize("nodes", ["0", "two", "true", "1.5"])
def test_machines_are_counted(nodes, capsys):
    config = str(tiny_systems.ROOT / "custom" / "latent_prior.yaml")
    assert launch.main(["--config", config, f"trainer.num_nodes={nodes}"]) == 2
    assert "error: trainer.num_nodes is " in capsys.readouterr().err


# One run with a larger batch


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ALIKE))
def test_two_processes_are_one_with_twice_the_batch(name, systems, tmp_path):
    more = ALIKE[name] | SMOOTH | {"trainer.max_steps": 10, "trainer.val_check_interval": 20}
    one = train(systems[name], tmp_path / "one", more | {"data.batch_size": 2}, JOINED=1, ALIKE=1)
    two = train(systems[name], tmp_path / "two", more | {"data.batch_size": 1}, JOINED=2, ALIKE=1)
    expected, found = last(one)["state_dict"], last(two)["state_dict"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    start = torch.load(one / "ckpts" / "epoch=0-step=10.ckpt", weights_only=True)["global_step"]
    assert start == 10 and len(states_in(last(two)[KEY])) == 2 and len(states_in(last(one)[KEY])) == 1
    if name == "text_to_3d":
        said = [(tmp_path / run / "err").read_text() for run in ("one", "two")]
        hollowed = [[line for line in text.splitlines() if line.startswith("Hollowing: hollow by")] for text in said]
        assert hollowed[0] and hollowed[0] == hollowed[1]  # by the first process alone
        assert len(list((two / "save" / "it10-test").glob("[0-9]*.png"))) == 2


# Resuming


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text_to_3d"])
def test_two_processes_resume_to_the_bit_and_draw_differently(name, systems, tmp_path):
    drawn = {part: tmp_path / f"drawn-{part}" for part in ("whole", "before", "after")}
    for folder in drawn.values():
        folder.mkdir()
    whole = train(systems[name], tmp_path / "whole", DRAWN=drawn["whole"])
    killed = Job(
        tmp_path / "cut",
        tiny_systems.launched(systems[name], tmp_path / "cut", "--train"),
        DRAWN=drawn["before"],
        STRIKE="0:3:SIGTERM",
    )
    assert killed.end() == 130, killed.err
    cut = tmp_path / "cut" / "name" / "run"
    assert last(cut)["global_step"] == 3
    again = resume(cut, DRAWN=drawn["after"])
    assert again.end() == 0, again.err
    found, expected = (
        flat({key: last(run)[key] for key in ("state_dict", "optimizer_states", "loops", KEY)}) for run in (cut, whole)
    )
    counted = [key for key in found if re.search(r"/waiting/\d+/\d+$", key)]  # since this start
    assert {**found, **{key: expected[key] for key in counted}} == expected
    lines = {
        part: [[json.loads(line) for line in (folder / f"{rank}.jsonl").read_text().splitlines()] for rank in (0, 1)]
        for part, folder in drawn.items()
    }
    for rank in (0, 1):
        # the step that was not taken begins twice
        assert lines["before"][rank][:3] + lines["after"][rank] == lines["whole"][rank]
    assert len(lines["whole"][0]) == tiny_systems.STEPS
    for one, other in zip(*lines["whole"], strict=True):
        assert one["next"] != other["next"]
        assert one["azimuth"] != other["azimuth"] or one["step"] < 3  # the range widens from the front


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes_and_says_so(systems, tmp_path):
    folder = train(systems["layered_editing"], tmp_path)
    again = Job(tmp_path / "more", ["--main", "resume", str(folder), "trainer.max_steps=8"], JOINED=1)
    assert again.end() == 0 and "is of 2 processes, and the run continues with 1" in again.err, again.err
    assert last(folder)["global_step"] == 8 and len(states_in(last(folder)[KEY])) == 1


@pytest.mark.slow
def test_two_machines_are_one_run(systems, tmp_path):
    """Here both are this one, with a process each; their clocks agree on no folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    there = {"JOINED": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "LOCAL_RANK": 0}
    arguments = tiny_systems.launched(systems["layered_editing"], tmp_path, "--train", "trainer.num_nodes=2")
    arguments += ["use_timestamp=true"]
    jobs = [Job(tmp_path / str(node), arguments, RANK=node, GROUP_RANK=node, **there) for node in (0, 1)]
    assert [job.end() for job in jobs] == [0, 0], jobs[0].err + jobs[1].err
    (folder,) = (tmp_path / "name").iterdir()
    assert len(states_in(last(folder)[KEY])) == 2 and (folder / "save" / "composite.png").is_file()
    assert not jobs[1].err


# Ending


@pytest.mark.slow
def test_an_error_of_another_process_is_said_once(systems, tmp_path):
    system = systems["layered_editing"]
    job = Job(tmp_path, tiny_systems.launched(system, tmp_path, "--train"), STRIKE="1:3:error")
    assert job.end() == 1
    assert [line for line in job.err.splitlines() if "error" in line] == [
        "error: another process of this run has ended (size is 3; expected 2); its checkpoint of step 2 is kept; continue "
        f"with: latent-prior resume {tmp_path / 'name' / 'run'}"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("strike", ["0:3:SIGTERM:group", "1:3:SIGTERM"])
def test_a_signal_to_one_or_all_saves_once_and_ends_all(strike, systems, tmp_path):
    system = systems["layered_editing"]
    job = Job(tmp_path, tiny_systems.launched(system, tmp_path, "--train"), STRIKE=strike)
    assert job.end() == 130, job.err
    folder = tmp_path / "name" / "run"
    assert job.err.count("Saved ") == 1 and job.err.count(f"latent-prior resume {folder}") == 1
    assert last(folder)["global_step"] == 3 and not (folder / ".lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 0])
def test_a_killed_process_ends_the_run_which_resumes(rank, systems, tmp_path):
    system = systems["layered_editing"]
    strike = {"STRIKE": f"{rank}:5:SIGKILL", "STRUCK": tmp_path / "struck"}
    job = Job(tmp_path, tiny_systems.launched(system, tmp_path, "--train"), **strike)
    code, folder = job.end(), tmp_path / "name" / "run"
    assert time.time() - (tmp_path / "struck").stat().st_mtime < 60
    assert code == 1 and "Traceback" not in job.err, job.err
    if rank == 0:
        assert "error: process 0 of this run was ended by SIGKILL" in job.err
    else:
        assert (
            "error: another process of this run has ended; its checkpoint of step 4 is kept; continue with: "
            f"latent-prior resume {folder}" in job.err
        )
    again = resume(folder)
    assert again.end() == 0, again.err
    assert last(folder)["global_step"] == tiny_systems.STEPS
