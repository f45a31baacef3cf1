"""The commands: what they understand, what they refuse in one line, and what stays a traceback."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from latent_prior import OptionError, cli, host
from latent_prior.cli import launch, results
from latent_prior.cli.errors import guarded
from latent_prior.files import slug
from latent_prior.files.pictures import to_picture
from latent_prior.runs import experiment, gpus
from latent_prior.runs.folder import config_path
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "custom" / "latent_prior.yaml")
PROMPTS = [
    "/imagine a red mug",
    "../../x",
    "a red/blue mug",
    "..",
    "~",
    "a red\nmug",
    'a "red" mug',
    "a mug: red? *really*",
    "a red mug, " * 40,
    "pneumono" * 60,
    "a \0 mug",
    "!!! ...",
    "🔥❤️",
    "一个红色的杯子" * 20,
    "लाल मग",
    "𝕬" * 80,
    "-rf a mug",
    ".hidden",
    "C:\\mug",
    "",
]


def errors(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]


@pytest.fixture
def asked(monkeypatch):
    """What `experiment.run` is asked for, by a command that then ends without running anything."""
    found = {}

    def run(configs, overrides=(), modes=experiment.WHOLE_JOB, gpu="0", **settings):
        found.update(configs=configs, overrides=overrides, modes=modes, gpu=gpu, settings=settings)
        found["cfg"] = host.load_config(*configs, cli_args=list(overrides), **settings)
        return experiment.Run(Path(found["cfg"].trial_dir), None)

    monkeypatch.setattr(experiment, "run", run)
    monkeypatch.setattr(results, "show", lambda folder: None)
    return found


# errors


def test_a_bug_keeps_its_traceback():
    code = (
        "import sys\nfrom latent_prior.cli import errors\n"
        "sys.exit(errors.guarded(lambda: list(zip([1], [1, 2], strict=True))))"
    )
    done = python("-c", code)
    assert done.returncode == 1 and "Traceback" in done.stderr and "zip() argument 2" in done.stderr


@pytest.mark.parametrize("flags, variable, shown", [([], "0", False), (["--verbose"], "", True), ([], "1", True)])
def test_bad_input_is_one_line_and_its_traceback_is_there_for_the_asking(capsys, monkeypatch, flags, variable, shown):
    monkeypatch.setenv("LATENT_PRIOR_DEBUG", variable)
    assert cli.main(["resume", "nowhere", *flags]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("error: nowhere is") and ("Traceback" in said) == shown


def test_a_long_value_leaves_room_for_what_was_expected(capsys):
    def refuse() -> None:
        raise OptionError.because(f"key: {'x' * 5000}; expected a short one")

    assert guarded(refuse) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: key: xxx") and line.endswith("x; expected a short one") and len(line) < 2100


def python(*arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "custom")}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)


def leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [leaf for each in below[0].choices.values() for leaf in leaves(each)] if below else [parser]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_verbose_and_examples_that_parse(command):
    parser = cli.parser([command])
    below = parser._subparsers._group_actions[0].choices[command]
    for leaf in leaves(below):
        assert "--verbose" in leaf.format_help()
    examples = re.sub(r"\\\n *", "", below.epilog)
    found = [line for line in examples.splitlines() if line.strip().startswith(f"latent-prior {command}")]
    assert found
    for line in found:
        import shlex

        parser.parse_known_args(shlex.split(line)[1:])  # leaves by SystemExit where it does not parse


def test_a_negative_axis_is_typed_as_it_is():
    parser = cli.parser(["texture"])
    for words in (
        ["--up", "z", "--front", "-y"],
        ["--front=-y", "--up=z"],
        ["--up", "z", "--front", "-y", "--gpu", "1"],
    ):
        for argv in (["texture", "a.obj", "a duck", *words], ["texture", *words, "a.obj", "a duck"]):
            args, rest = parser.parse_known_args(argv)
            assert (str(args.mesh), args.prompt, args.up, args.front, rest) == ("a.obj", "a duck", "z", "-y", [])
    for axis in ("-x", "-y", "-z"):
        assert parser.parse_known_args(["texture", "a.obj", "a duck", "--up", axis])[0].up == axis
    with pytest.raises(SystemExit):
        parser.parse_known_args(["texture", "a.obj", "a duck", "--part", "-y"])


def test_help_and_refusals_import_nothing_heavy():
    """`--help` answers at once, and so does a mistyped flag's value."""
    code = (
        "import sys\nfrom latent_prior import cli\n"
        "for argv in (['--help'], *([command, '--help'] for command in cli.COMMANDS), ['evaluate', 'editing', '--help']):\n"
        "    try:\n        cli.main(argv)\n    except SystemExit as stop:\n        assert stop.code == 0\n"
        "assert cli.main(['generate', 'a mug', '--gpu', 'all']) == 2\n"
        "heavy = {'torch', 'numpy', 'omegaconf', 'pytorch_lightning', 'diffusers', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


# export


@pytest.fixture
def adapted(tmp_path, tiny_prior) -> Path:
    """A StyleGAN run of one step."""
    torch.manual_seed(0)
    source = tmp_path / "source.safetensors"
    config = StyleGAN2Config.of_size(16, z_dim=8, w_dim=8, mapping_layers=2, base=64, most=8)
    save_generator(StyleGAN2(config), source)
    own = [f"system.pretrained_generator={source}", "data.z_dim=8", "data.batch_size=2", "data.n_grid=4"]
    return trained("pocket_stylegan", tiny_prior, tmp_path, own)


@pytest.fixture
def edited(tmp_path, tiny_prior) -> Path:
    """A run of one step of the layered editor."""
    photo = tmp_path / "photo.png"
    to_picture(torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(1))).save(photo)
    own = [f"data.image={photo}", "data.short_side=16", "system.generator.channels=8"]
    return trained("pocket_layered_editing", tiny_prior, tmp_path, own)


def trained(config: str, prior: Path, folder: Path, own: list[str]) -> Path:
    overrides = [
        f"system.guidance.pretrained_model_name_or_path={prior}",
        f"system.prompt_processor.pretrained_model_name_or_path={prior}",
        "system.prompt_processor.use_cache=false",
        "trainer.max_steps=2",  # half of it is a phase of the schedule
        "trainer.val_check_interval=2",
        "use_timestamp=false",
        f"exp_root_dir={folder / 'out'}",
    ]
    return experiment.run([str(config_path(config))], [*overrides, *own], ("train",)).folder


@pytest.mark.parametrize("kind, made", [("adapted", "generator.safetensors"), ("edited", "edit.rgba.png")])
def test_export_of_a_run_without_a_mesh(request, capsys, kind, made):
    run = request.getfixturevalue(kind)
    assert not list(run.rglob(made))
    assert cli.main(["export", str(run)]) == 0
    assert list(run.rglob(made))
    capsys.readouterr()
    assert cli.main(["export", str(run), "--format", "obj"]) == 2
    assert "exports no mesh" in errors(capsys)[0]


@pytest.fixture
def run_of_the_main_job(tmp_path) -> Path:
    """What `export` looks at before it runs anything."""
    run = tmp_path / "name" / "tag"
    (run / "configs").mkdir(parents=True)
    (run / "ckpts").mkdir()
    host.dump_config(str(run / "configs" / "parsed.yaml"), host.load_config(CONFIG))
    torch.save({"global_step": 1}, run / "ckpts" / "last.ckpt")
    return run


def test_formats_are_understood_in_capitals(asked, run_of_the_main_job, capsys):
    assert cli.main(["export", str(run_of_the_main_job), "--format", "GLB, .Obj"]) == 0
    assert asked["cfg"].system.exporter.fmt == "glb,obj" and asked["modes"] == ("export",)
    assert cli.main(["export", str(run_of_the_main_job)]) == 0
    assert "system" not in asked["settings"]  # the run's own
    asked.clear()
    assert cli.main(["export", str(run_of_the_main_job), "--format", "glb,step"]) == 2
    assert not asked and "--format is 'glb,step'; expected some of glb, obj, ply" in errors(capsys)[0]


# GPUs


@pytest.mark.parametrize("given, number", [("0", "0"), ("cuda:1", "1"), (" 3 ", "3"), ("GPU-8a2f", "GPU-8a2f")])
def test_one_gpu_is_understood(monkeypatch, given, number):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.choose_gpus(given) == 1 and os.environ["CUDA_VISIBLE_DEVICES"] == number


def test_the_environment_goes_before_the_flag_and_several_are_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert gpus.choose_gpus("0") == 1 and os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


@pytest.mark.parametrize(
    "command", [["generate", "a mug"], ["resume", "x"], ["export", "x"], ["evaluate", "text-to-3d"], ["sweep", "a mug"]]
)
@pytest.mark.parametrize("given", ["-1", "all", "a", "", "0,", "0,x"])
def test_other_gpus_are_refused(asked, capsys, monkeypatch, command, given):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cli.main([*command, f"--gpu={given}"]) == 2
    assert f"--gpu is '{given}'; expected the number of a GPU" in errors(capsys)[0]
    assert not asked and "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("command", [["export", "x"], ["edit-masked", "x"]])
def test_only_training_uses_several_gpus(asked, capsys, command):
    more = ["--mask", "m.png", "--prompt", "a mug"] if command[0] == "edit-masked" else []
    assert cli.main([*command, *more, "--gpu", "0,1"]) == 2
    assert "--gpu is '0,1'; expected the number of one GPU, such as 0: only training" in errors(capsys)[0] and not asked


def test_several_gpus_reach_the_run(asked, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cli.main(["generate", "a red mug", "--gpu", "0,1"]) == 0
    assert asked["gpu"] == "0,1" and os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


# prompts


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_makes_one_safe_short_name(prompt):
    name = slug(prompt)
    assert re.fullmatch(r"[^\W_][^/\\\s.\"':?*-]*", name) and not name.endswith("_")
    assert len(name) <= 60 and len(name.encode()) <= 180


def test_slugs_are_cut_between_words():
    assert slug("/imagine a red mug") == "imagine_a_red_mug"
    assert slug("A half-price mug") == "A_half_price_mug"
    assert slug("लाल मग") == "लाल_मग"
    assert slug("!!!") == slug("") == slug("🔥❤️") == "prompt"
    assert slug("abcd " * 30) == "_".join(["abcd"] * 12)
    assert slug("x" * 60) == "x" * 60 and slug("x" * 60 + " y") == "x" * 60 and slug("x" * 99) == "x" * 60


@pytest.mark.slow
@pytest.mark.parametrize("config", sorted(path.stem for path in [*ROOT.glob("configs/*.yaml"), Path(CONFIG)]))
@pytest.mark.parametrize("prompt", ["../../x", "一个红色的杯子 " * 40, "a: 'mug' #1 ${seed}"])
def test_no_config_lets_a_prompt_leave_its_folder(asked, tmp_path, capsys, config, prompt):
    assert cli.main(["generate", prompt, "--config", config, f"exp_root_dir={tmp_path}"]) == 0
    cfg = asked["cfg"]
    assert Path(cfg.trial_dir).parent == tmp_path / config and len(Path(cfg.trial_dir).name.encode()) < 255
    assert cfg.system.prompt_processor.prompt == prompt  # all of it


@pytest.mark.parametrize("override", ["tag=../../x", "tag=a/b", "tag=..", "name=/tmp", "name=.", "tag='a\\b'"])
def test_names_that_leave_their_folder_are_refused(override):
    key = override.partition("=")[0]
    with pytest.raises(OptionError, match=f"{key} is .*expected the name of one folder"):
        host.load_config(CONFIG, cli_args=[override])


def test_a_tag_that_is_too_long_for_a_folder_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert launch.main(["--config", str(CONFIG), f"tag={'x' * 5000}"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "file name too long" in line and line.endswith("exp_root_dir/name/tag@timestamp)") and len(line) < 400
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["exp_root_dir", "resume"])
def test_paths_with_a_null_character_are_refused(key):
    with pytest.raises(OptionError, match=f"{key} is .*expected a path, without null characters"):
        host.load_config(CONFIG, cli_args=[f'{key}="a\\0b"'])


TEXTS = [
    "a mug #1",
    "yes",
    "12",
    "a mug: red",
    "${seed}",
    "${",
    r"\${x}",
    "a, [b] {c}",
    "null",
    "  a mug ",
    "x=y",
    "'s",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_is_text_wherever_it_comes_from_and_reads_back(tmp_path, text):
    """As key=value, as `generate` gives it, in what refers to it, in a part's own config, and read again on resume."""
    by_key = [f"system.prompt_processor.prompt={text}", f"system.source_prompt={text}"]
    layered = str(config_path("pocket_layered_editing_clip"))
    for cfg in (
        host.load_config(layered, cli_args=by_key),
        host.load_config(layered, system={"prompt_processor": {"prompt": text}, "source_prompt": text}),
    ):
        for _ in range(2):
            assert cfg.system.prompt_processor.prompt == text
            assert cfg.system.guidance.prompt == text and cfg.system.guidance.source_prompt == text
            assert cfg.tag == slug(text)
            part = host.PromptProcessor.Config
            assert host.parse_structured(part, {"prompt": text, "pretrained_model_name_or_path": "x"}).prompt == text
            assert host.parse_structured(part, cfg.system.prompt_processor).prompt == text
            host.dump_config(str(tmp_path / "parsed.yaml"), cfg)
            cfg = host.load_config(str(tmp_path / "parsed.yaml"))


THREESTUDIO_CODE = """
import sys
from latent_prior import host, register
register()
assert host.NAME == "threestudio"
for text in sys.argv[2:]:
    overrides = [f"system.prompt_processor.prompt={text}", f"system.source_prompt={text}"]
    cfg = host.load_config(sys.argv[1], cli_args=overrides)
    system = host.parse_structured(host.find(cfg.system_type).Config, cfg.system)
    prompts = host.parse_structured(host.find(cfg.system.prompt_processor_type).Config, system.prompt_processor)
    guidance = host.parse_structured(host.find(cfg.system.guidance_type).Config, system.guidance)
    found = prompts.prompt, guidance.prompt, guidance.source_prompt, system.source_prompt
    assert found == (text,) * 4, found
from threestudio.utils.config import load_config  # as threestudio's own launch.py calls it
cfg = load_config(sys.argv[1], cli_args=["system.prompt_processor.prompt=../../x y"], n_gpus=1)
assert cfg.trial_dir.startswith("outputs/pocket_layered_editing_clip/x_y@"), cfg.trial_dir
"""


@pytest.mark.skipif(not os.environ.get("THREESTUDIO_ROOT"), reason="THREESTUDIO_ROOT names no checkout of threestudio")
def test_prompts_under_threestudio(tmp_path):
    environment = {"PYTHONPATH": str(ROOT / "custom"), "LATENT_PRIOR_HOST": "threestudio"}
    config = str(config_path("pocket_layered_editing_clip"))
    command = [sys.executable, "-c", THREESTUDIO_CODE, config, *TEXTS]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "override, value",
    [
        ("prompt_processor.prompt='a: mug'", "a: mug"),  # quoted for YAML, as it had to be once
        ('prompt_processor.prompt="a \\"red\\" mug"', 'a "red" mug'),
        ("prompt_processor.prompt='a' b'", "'a' b'"),
        ("prompt_processor.negative_prompt=", ""),
        ("prompt_processor.prompt_front=no", "no"),
        ("screen_prompt=#2", "#2"),
        ("prompt_processor.view_dependent_prompt_front=true", True),
        ("prompt_processor.use_cache=${system.x}", 3),  # what is not a prompt is YAML and may refer
    ],
)
def test_which_keys_are_text(override, value):
    cfg = host.load_config("system: {x: 3}", from_string=True, cli_args=[f"system.{override}"])
    assert OmegaConf.select(cfg.system, override.partition("=")[0]) == value


def test_negative_prompt_has_a_flag(asked):
    assert cli.main(["generate", "a red mug", "--negative-prompt", "blurry: #1"]) == 0
    assert asked["cfg"].system.prompt_processor.negative_prompt == "blurry: #1"
    assert cli.main(["generate", "a red mug", "system.prompt_processor.negative_prompt=grey"]) == 0
    assert asked["cfg"].system.prompt_processor.negative_prompt == "grey"


def test_a_subject_that_the_pocket_prior_never_saw_is_noticed(asked, monkeypatch, capsys):
    said = []
    monkeypatch.setattr(host, "warn", said.append)
    assert cli.main(["generate", "a dragon"]) == 0
    assert len(said) == 1 and "no subject for the prompt 'a dragon'" in said[0]
    elsewhere = "system.prompt_processor.pretrained_model_name_or_path=elsewhere"
    for arguments in (["a red mug"], ["a dragon", "--config", "sd_dreamfusion"], ["a dragon", elsewhere]):
        assert cli.main(["generate", *arguments]) == 0
    assert len(said) == 1


@pytest.mark.parametrize("steps", ["0", "-1", "2.5", "many"])
def test_a_run_without_a_number_of_steps_is_refused(tmp_path, capsys, steps):
    assert cli.main(["generate", "a red mug", f"trainer.max_steps={steps}", f"exp_root_dir={tmp_path}"]) == 2
    assert re.search("trainer.max_steps is .*; expected a whole number of at least 1", errors(capsys)[0])
    assert not list(tmp_path.iterdir())


def test_a_training_on_a_full_disk_says_what_is_kept(tmp_path, capsys, monkeypatch):
    from latent_prior.pocket.training import everything

    def full(work, *_):
        (work / "state.pt").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(everything, "train_everything", full)
    work = tmp_path / "work"
    assert cli.main(["train-pocket", "--work", str(work), "--out", str(tmp_path / "out")]) == 1
    assert re.match(f"error: cannot write {work}: no space left .*is kept in {work}", errors(capsys)[0])


def test_an_export_goes_where_it_is_told(asked, run_of_the_main_job, tmp_path):
    elsewhere = f"exp_root_dir={tmp_path / 'elsewhere'}"
    assert cli.main(["export", str(run_of_the_main_job), elsewhere]) == 0
    assert Path(asked["cfg"].trial_dir) == tmp_path / "elsewhere" / "name" / "tag"
    assert cli.main(["export", str(run_of_the_main_job)]) == 0
    assert Path(asked["cfg"].trial_dir) == run_of_the_main_job
