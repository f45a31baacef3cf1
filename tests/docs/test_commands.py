"""Every command of the documentation is understood by the real parsers; the slow test runs it, shrunk."""

import argparse
import dataclasses
import re
import shutil
import sys
from pathlib import Path

import nvidia_pickles
import pytest
import torch
import trimesh
from documented import FENCE, FILES, ROOT, Command, everywhere, in_blocks, in_text
from latent_prior import OptionError, cli, host, register
from latent_prior.cli import launch
from latent_prior.files.pictures import to_picture
from latent_prior.host.embedded.config import ExperimentConfig
from latent_prior.runs import experiment
from latent_prior.runs.folder import config_path
from latent_prior.runs.sweep import grid, jobs
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from small_configs import small, small_job, write_inputs
from tiny_checkpoints import write_single_file

# What cannot run in a test of a few seconds on a CPU, and the test or script that runs it instead.
ELSEWHERE = {
    'bash launch_scripts/demo.sh "a red mug"': "launch_scripts/demo.sh",
    "bash launch_scripts/test.sh": "launch_scripts/test.sh",
    "pip install -c constraints.txt torch": "launch_scripts/setup.sh",
    "pip install -c constraints.txt .": "launch_scripts/setup.sh",
    'pip install -c constraints.txt ".[sweep]"': "launch_scripts/scale.sh",
    'pip install -e ".[threestudio]"': "launch_scripts/step_cost.sh",
    'pip install -c constraints.txt ".[app]"': "launch_scripts/screenshots.sh",
    # a server
    "latent-prior app": "tests/app/test_browser.py",
    "latent-prior app --port 8000 --out ~/outputs --jobs 2": "tests/app/test_browser.py",
    "ssh -L 7860:127.0.0.1:7860 gpu-box latent-prior app": "tests/app/test_browser.py",
    # a checkout of threestudio
    "cd ~/threestudio": "tests/host/test_on_threestudio.py",
    "latent-prior doctor ~/threestudio": "tests/cli/test_doctor.py",
    'python launch.py --config custom/latent_prior.yaml --train --gpu 0 "system.prompt_processor.prompt=a red mug"': (
        "tests/host/test_on_threestudio.py"
    ),
    "python launch.py --host threestudio --threestudio ~/threestudio --config custom/latent_prior.yaml": (
        "tests/host/test_on_threestudio.py"
    ),
    # a cluster, or several GPUs; an evaluation starts its runs by the sweep's engine
    "latent-prior sweep --prompts-file prompts.txt --config sd_dreamfusion --on slurm --partition gpu --gpus-per-node 1": (
        "tests/runs/sweep/test_slurm.py"
    ),
    "latent-prior sweep --prompts-file prompts.txt --config sd_dreamfusion --on slurm --partition gpu --gpus-per-node 1 "
    "--cpus-per-task 8 --time 2:00:00 --array-parallelism 64": "tests/runs/sweep/test_slurm.py",
    "latent-prior evaluate text-to-3d --seeds 0 1 2 --on slurm --partition cpu --cpus-per-task 2": (
        "tests/runs/sweep/test_slurm.py"
    ),
    'srun --nodes 2 --ntasks-per-node 4 --gpus-per-node 4 latent-prior generate "a red mug" --gpu 0,1,2,3 '
    "trainer.num_nodes=2": "tests/runs/test_ranks.py",
    # hours
    "latent-prior evaluate text-to-3d --seeds 0 1 2 --against LSD --config LSD=pocket_dreamfusion "
    "--config CSD=pocket_dreamfusion system.guidance.score=csd": "launch_scripts/studies.sh",
}
COMMANDS = everywhere(in_blocks)
FRAGMENTS = everywhere(in_text)
RUNNABLE = [command for command in COMMANDS if str(command) not in ELSEWHERE]
PLACEHOLDERS = {"...", "NAME", "RUN_DIR", "COMMAND", "DIR"}


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # which commands set


# understood


def understand(command: Command) -> None:
    """Parse a command as its program would; AssertionError or OptionError if it, its config, a key or a file is wrong."""
    words = list(command.words)
    if words[0] in ("srun", "ssh"):
        words = words[words.index("latent-prior") :]
    if words[0] in ("pip", "cd"):
        assert str(command) in ELSEWHERE, f"nothing runs {command}"
    elif words[0] == "bash":
        assert words[1].startswith("launch_scripts/")
    elif words[:2] == ["python", "launch.py"]:
        args = launch.parser().parse_intermixed_args(words[2:])
        require_known(args.config, args.overrides)
    elif words[0] == "latent-prior":
        for config, overrides in configs_of(*arguments(words[1:])):
            require_known(config, overrides)
    else:
        raise AssertionError(f"nothing is known of {command}")
    for word in words:
        if re.match(r"(configs|custom|launch_scripts|docs|tests)/", word):
            assert (ROOT / word).exists(), f"there is no {word}"


def arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What `latent-prior` makes of its arguments, and the overrides in them."""
    args, rest = cli.parser(argv).parse_known_args(argv)
    assert all("=" in word and not word.startswith("-") for word in rest), f"unrecognized: {rest}"
    given = [*getattr(args, "overrides", []), *getattr(args, "words", []), *rest]
    return args, [word for word in given if re.match(r"[a-z_.]+=", word)]


def configs_of(args: argparse.Namespace, overrides: list[str]) -> list[tuple[Path, list[str]]]:
    """The configs that a command would run, each with its overrides."""
    if args.command in ("generate", "texture"):
        return [(config_path(args.config), overrides)]
    if args.command in ("sweep", "evaluate"):
        variants = jobs.variants(args.config or [["latent_prior"]], overrides)
        if getattr(args, "grid", None):
            variants = grid.spread(variants, args.grid)
        return [(variant.config, list(variant.overrides)) for variant in variants]
    return []


def require_known(config: Path | str, overrides: list[str]) -> None:
    """The config with its overrides can be read, and each key is one of its section's type."""
    register()
    cfg = host.merge_config(str(config), cli_args=overrides)
    for key in (override.partition("=")[0] for override in overrides):
        section, _, field = key.rpartition(".")
        type_name = host.select(cfg, f"{section}_type") if section else None
        if isinstance(type_name, str):
            assert field in fields_of(host.find(type_name)), f"there is no {key}"
        else:  # a mapping of its owner's, such as the optimiser's arguments
            top = key.partition(".")[0]
            assert top in {field.name for field in dataclasses.fields(ExperimentConfig)}, f"there is no {key}"


def fields_of(cls: type) -> set[str]:
    """The options of a registered type."""
    config = getattr(cls, "Config", None) or getattr(sys.modules[cls.__module__], f"{cls.__name__}Config")
    return {field.name for field in dataclasses.fields(config)}


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_it_is_understood(command):
    understand(command)


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=str)
def test_what_running_text_mentions_exists(fragment):
    words = list(fragment.words)
    if words[0] == "bash" or "--config" in words and not PLACEHOLDERS & {*words}:
        return understand(fragment)
    parser = launch.parser() if words[0] == "python" else cli.parser(words[1:])
    text = parser.format_help() if words[0] == "python" else help_of(parser, words[1:])
    for word in words:
        assert not word.startswith("--") or word in text, f"{fragment}: there is no {word}"


def help_of(parser: argparse.ArgumentParser, names: list[str]) -> str:
    """The help of the command, or of the command below it, that the words name."""
    for name in names:
        below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not below:
            break
        assert name in below[0].choices, f"there is no command {name}"
        parser = below[0].choices[name]
    return parser.format_help()


def test_what_is_run_elsewhere_is_documented_and_is_run_there():
    said = {str(command) for command in COMMANDS}
    assert not {*ELSEWHERE} - said, "no longer documented"
    assert all((ROOT / where).is_file() for where in ELSEWHERE.values())


@pytest.mark.parametrize(
    "line",
    [
        "latent-prior generat 'a mug'",
        "latent-prior generate",
        "latent-prior generate 'a mug' --colour red",
        "latent-prior generate 'a mug' --config nothing",
        "latent-prior generate 'a mug' system.guidance.scorre=csd",
        "latent-prior generate 'a mug' dat.width=3",
        "latent-prior sweep 'a mug' --grid system.loss=",
        "latent-prior evaluate text-to-3d --config A=pocket_dreamfusion system.renderer.nothing=1",
        "python launch.py --config configs/nothing.yaml",
        "python launch.py",
        "bash launch_scripts/nothing.sh",
        "latent-prior texture configs/sketches/goose.obj 'a duck'",
        "make everything",
    ],
)
def test_the_test_can_fail(line):
    (command,) = in_blocks(f"```bash\n{line}  # a comment\n```\n")
    with pytest.raises((AssertionError, OptionError, SystemExit)):
        understand(command)


def test_blocks_and_text_are_told_apart():
    block = "```bash\nA=1 latent-prior export \\\n    RUN_DIR  # b\n\n# c\n```\n```yaml\nbash: x\n```\n"
    page = f"Say `latent-prior\ndoctor`.\n\n{block}"
    assert [command.words for command in in_blocks(page)] == [("latent-prior", "export", "RUN_DIR")]
    assert [command.words for command in in_text(page)] == [("latent-prior", "doctor")]
    assert len(FILES) > 10 and len(COMMANDS) > 30 and len(FRAGMENTS) > 10


# run

GRID = "{otype: HashGrid, n_levels: 2, n_features_per_level: 2, log2_hashmap_size: 8, base_resolution: 4}"
VIEWS = {"data.eval_height": 24, "data.eval_width": 24, "data.n_test_views": 2, "system.exporter.texture_size": 32}
SIZES = {
    "sd_dreamfusion": {
        **VIEWS,
        "system.geometry.isosurface_resolution": 16,
        "system.geometry.pos_encoding_config": GRID,
    },
    "sd3_dreamfusion": {
        **VIEWS,
        "system.geometry.isosurface_resolution": 16,
        "system.geometry.pos_encoding_config": GRID,
    },
    "sd3_mesh_texture": {**VIEWS, "system.geometry.field.pos_encoding_config": GRID},
    "pocket_mesh_texture": VIEWS,
    "sd_mesh_texture": {**VIEWS, "system.geometry.field.pos_encoding_config": GRID},
    "pocket_stylegan": {"data.n_grid": 2, "data.n_frames": 2},
    "pocket_layered_editing": {"system.loss.lambda_structure": 0},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_prior) -> Path:
    """A folder with what the commands name: a picture and its mask, meshes, generators, prompts, checkpoints, a run."""
    folder = tmp_path_factory.mktemp("made")
    given = write_inputs(folder, tiny_prior)
    mask = torch.zeros(3, 40, 48)
    mask[:, 10:30, 10:30] = 1
    to_picture(mask).save(folder / "mask.png")
    ball = trimesh.creation.icosphere(1)
    ball.visual.vertex_colors = [200, 40, 40, 255]
    for name in ("mug.glb", "statue.glb"):
        ball.export(folder / name)
    generator = StyleGAN2(StyleGAN2Config.of_size(16, z_dim=128, w_dim=128, mapping_layers=1, base=64, most=4))
    save_generator(generator, folder / "my_generator.pt")
    (folder / "ffhq.pkl").write_bytes(nvidia_pickles.snapshot(generator))
    (folder / "prompts.txt").write_text("a red mug\n")
    (folder / "models").mkdir()
    write_single_file(folder / "models" / "sd15.safetensors", given["sd"])
    shutil.copytree(given["sd"], folder / "models" / "sd15")
    (folder / "threestudio" / "threestudio").mkdir(parents=True)
    (folder / "threestudio" / "threestudio" / "__init__.py").touch()
    (folder / "threestudio" / "launch.py").touch()
    for part in ("configs", "custom"):
        (folder / part).symlink_to(ROOT / part)
    run = experiment.run([str(ROOT / "custom" / "latent_prior.yaml")], small_job(tiny_prior, folder / "outputs"))
    shutil.copytree(run.folder, folder / "RUN_DIR")
    run.folder.rename(run.folder.with_name("a_red_mug@20260101-120000"))
    return folder


def shrunk(command: Command, made: Path, prior: Path) -> list[str]:
    """The words of a command that takes seconds: fewer steps and seeds, small pictures, a checkpoint of kilobytes."""
    words = list(command.words)
    name = {"sweep": "latent_prior", "texture": "pocket_mesh_texture", "generate": "latent_prior"}.get(words[1], "")
    if "--config" in words:
        name = Path(words[words.index("--config") + 1]).stem
    if words[1] == "edit-masked":
        return [*words, "--checkpoint", str(prior), "--samples", "2", "--steps", "4", "--reconstruction-steps", "2"]
    if words[1] == "paint":
        return [*words, "--checkpoint", str(prior), "--steps", "3"]
    if words[1] == "resume":
        return [*words, "trainer.max_steps=8"]
    if not name:
        return words
    files = {"sd": "stable", "sd3": "sd3", "picture": "photo.png", "mesh": "mug.glb"}
    given = {"pocket": prior, **{kind: made / file for kind, file in files.items()}}
    if name in ("latent_prior", "pocket_dreamfusion"):
        where = ("exp_root_dir=", "use_timestamp=", "tag=")
        sizes = [override for override in small_job(prior, Path()) if not override.startswith(where)]
    else:
        trainer = {"trainer.max_steps": 2, "trainer.precision": "32-true", "trainer.val_check_interval": 2}
        values = flat(small(name, given)) | trainer | SIZES[name]
        own = {word.partition("=")[0] for word in words} - {"trainer.max_steps"}
        own |= {"system.geometry.mesh"} if words[1] == "texture" else set()
        sizes = [f"{key}={value}" for key, value in values.items() if key not in own]
    if words[1] == "sweep":
        words = [re.sub(r"^([a-z_.]+=[^,]+,[^,]+),.*", r"\1", word) for word in words]  # two values of a grid
        return [*words[:2], *sizes, *words[2:], "--seeds", "0"]
    return [*words, *sizes]


def flat(values: dict, prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    found: dict[str, object] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("command", RUNNABLE, ids=str)
def test_it_runs(command, made, tiny_prior, tmp_path, monkeypatch):
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(made))
    words = shrunk(command, made, tiny_prior)
    assert (launch.main(words[2:]) if words[0] == "python" else cli.main(words[1:])) == 0


EXAMPLES = {found[2] for file in FILES for found in FENCE.finditer(file.read_text()) if found[1] == "python"}


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted(EXAMPLES), ids=range(len(EXAMPLES)))
def test_the_librarys_example_runs(example):
    found: dict = {}
    exec(example, found)
    assert found["images"].grad.abs().sum() > 0
