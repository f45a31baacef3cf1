"""Runs that are killed, at random moments and in the middle of a write, and resumed: as if nothing had happened.

A table: for each of the three systems, twenty kills. After each, `latent-prior resume` ends with the state of a run that
was left alone, or refuses in one line where no checkpoint was whole yet. Half of the runs have their temporary folder
on another file system, across which a rename copies.
"""

import functools
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from reliability import accidents, disks, tiny_systems
from reliability.accidents import LAUNCH, Moment, start

SEED = 0
WRITES = 14  # files that each of the systems writes, at least
TIMED, HALF, BEFORE, AFTER = 8, 6, 3, 3  # kills of each kind per system
ELSEWHERE = Path("/dev/shm")  # a temporary folder that is another device than the tests' own, on most Linux systems


@dataclass(frozen=True)
class Half:
    """SIGKILL as the `call`th file is half written."""

    call: int

    def arm(self) -> None:
        flush, calls = os.fsync, 0

        @functools.wraps(flush)
        def killed(descriptor: int) -> None:
            nonlocal calls
            calls += 1
            if calls == self.call:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                accidents.strike((signal.SIGKILL,))
            flush(descriptor)

        os.fsync = killed


def kills(name: str) -> list[Moment | Half | float]:
    """The moments of a system's kills; a number is a share of the time that a whole run takes."""
    draw = random.Random(f"{SEED} {name}")
    found: list[Moment | Half | float] = [Half(call) for call in draw.sample(range(1, WRITES + 1), HALF)]
    for after, count in ((False, BEFORE), (True, AFTER)):
        calls = draw.sample(range(1, WRITES + 1), count)
        found += [Moment("os:replace", (signal.SIGKILL,), call, after) for call in calls]
    found += [draw.random() for _ in range(TIMED)]
    draw.shuffle(found)
    return found


@pytest.fixture(scope="module")
def systems(tiny_prior, tmp_path_factory):
    inputs = tmp_path_factory.mktemp("inputs")
    tiny_systems.write_inputs(inputs)
    return tiny_systems.systems(tiny_prior, inputs)


@pytest.fixture
def elsewhere(tmp_path):
    """Where temporary files go: two folders, the second on another file system if there is one."""
    folders = [tmp_path / "temporary"]
    folders[0].mkdir()
    if not ELSEWHERE.is_dir() or ELSEWHERE.stat().st_dev == tmp_path.stat().st_dev:
        yield folders * 2
        return
    with tempfile.TemporaryDirectory(dir=ELSEWHERE) as other:
        yield [*folders, Path(other)]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "ckpts" / "last.ckpt", weights_only=True)["state_dict"]


def partial(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".partial" in path.name]


def one(system, out: Path, kill: Moment | Half | float, temporary: Path, whole: dict, seconds: float) -> str:
    """Kill a run and resume it; what came of it, or an AssertionError."""
    moments = [disks.TemporaryFilesIn(temporary), *([] if isinstance(kill, float) else [kill])]
    run = start(tiny_systems.launched(system, out, "--train"), out / "killed", *moments, program=LAUNCH)
    if isinstance(kill, float):
        time.sleep(kill * seconds)
        run.process.kill()
    code = run.end()
    assert code == -signal.SIGKILL or (isinstance(kill, float) and code == 0), run.err
    folder = out / "name" / "run"
    checkpoints = sorted((folder / "ckpts").glob("[!.]*.ckpt"))
    resumed = start(["resume", str(folder)], out / "resumed", disks.TemporaryFilesIn(temporary))
    code = resumed.end()
    if not checkpoints:
        assert code == 2 and resumed.err.count("error:") == 1 and "Traceback" not in resumed.err, resumed.err
        return "refused"
    assert code == 0, resumed.err
    assert "not a readable checkpoint" not in resumed.err and not partial(folder)
    found = state(folder)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)
    return "same" if all(torch.equal(found[key], whole[key]) for key in whole) else "close"


def all_of(name: str, chosen: list, systems, tmp_path: Path, elsewhere: list[Path]) -> list[str]:
    begun = time.monotonic()
    reference = start(
        tiny_systems.launched(systems[name], tmp_path / "whole", "--train"), tmp_path / "whole", program=LAUNCH
    )
    assert reference.end() == 0, reference.err
    seconds, whole = time.monotonic() - begun, state(tmp_path / "whole" / "name" / "run")
    outcomes = []
    for number, kill in enumerate(chosen):
        try:
            outcomes.append(one(systems[name], tmp_path / str(number), kill, elsewhere[number % 2], whole, seconds))
        except AssertionError as error:
            outcomes.append(f"kill {number}, {kill}: {error}")
    print({kind: outcomes.count(kind) for kind in ("same", "close", "refused")})
    return [outcome for outcome in outcomes if outcome not in ("same", "close", "refused")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text_to_3d", "stylegan_adaptation", "layered_editing"])
def test_twenty_kills(name, systems, tmp_path, elsewhere):
    assert not all_of(name, kills(name), systems, tmp_path, elsewhere)
    if elsewhere[0] == elsewhere[1]:
        pytest.skip(f"{ELSEWHERE} is no other file system: all twenty had their temporary folder on the same one")
