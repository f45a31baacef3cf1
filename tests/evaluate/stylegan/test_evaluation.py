"""The command from end to end, with run folders of tiny generators and a stand-in for `latent-prior generate`."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from code_run import command
from latent_prior import OptionError, cli
from latent_prior.evaluate.bench import existing
from latent_prior.evaluate.bench.evaluation import Evaluation
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.stylegan import measure
from latent_prior.evaluate.stylegan.evaluation import ADAPTATION, TILE, TUNING, evaluation
from latent_prior.pocket.captions import is_held_out, parse
from latent_prior.runs.sweep import jobs
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from PIL import Image

CONFIG = """\
name: {name}
seed: {seed}
system_type: stylegan-adaptation-system
system:
  pretrained_generator: {source}
  prompt_processor: {{prompt: {prompt}}}
"""
FEW = ("--pictures", 6)


def write_generator(path, seed, resolution=8):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = StyleGAN2(StyleGAN2Config.of_size(resolution, z_dim=16, w_dim=16, mapping_layers=2, base=64))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_generator(generator, path)
    return path


@pytest.fixture
def source(tmp_path):
    return write_generator(tmp_path / "source.safetensors", 0)


@pytest.fixture
def make_run(tmp_path, source):
    """Writes a run folder as `generate` leaves it."""

    def make(name, prompt="a golden mug", seed=0, weights=1, **text):
        folder = tmp_path / "runs" / f"{name}-{prompt.replace(' ', '_')}-{seed}"
        (folder / "configs").mkdir(parents=True)
        settings = {"name": name, "prompt": prompt, "seed": seed, "source": source} | text
        (folder / "configs" / "parsed.yaml").write_text(CONFIG.format(**settings))
        write_generator(folder / "save" / "generator.safetensors", weights)
        return folder

    return make


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    """Runs the command in a folder of its own and returns its exit code."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *arguments: cli.main(["evaluate", "stylegan", *map(str, arguments)])


def runs_of(out):
    with (out / "runs.csv").open() as file:
        return {(run["label"], run["prompt"], run["seed"]): run for run in csv.DictReader(file)}


def test_runs_that_are_there(evaluate, make_run, source, capsys, monkeypatch):
    runs = [make_run("ours"), make_run("LSD", weights=2), make_run("ours", "a blue jug", seed=3)]
    runs.append(make_run("same", weights=0))  # the source itself
    assert evaluate("--runs", *runs, *FEW) == 0
    printed = capsys.readouterr().out
    out = Path("outputs/evaluation_stylegan")
    for name in ("table.md", "runs.csv", "summary.json", "contact_sheet-seed0.png", "contact_sheet-seed3.png"):
        assert (out / name).is_file() and str(name) in printed
    rows = runs_of(out)
    assert len(rows) == 4 + 2 * 2  # and for each prompt the source and the truth
    same, base = rows["same", "a golden mug", "0"], rows["source", "a golden mug", ""]
    for figure in ("frechet", "clip_score", "diversity", "psnr", "recognised"):
        assert float(same[figure]) == pytest.approx(float(base[figure]), rel=1e-6)
        assert float(rows["ours", "a golden mug", "0"][figure]) != float(base[figure]) or figure == "recognised"
    assert rows["truth", "a blue jug", ""]["frechet"] == "" and rows["truth", "a blue jug", ""]["held_out"] == "True"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["comparison"]["prompts"] == 1
    sheet = Image.open(out / "contact_sheet-seed0.png")  # source, ours, LSD, same, truth: eight pictures each
    assert 5 * 8 * TILE < sheet.width < 5.5 * 8 * TILE

    def never(*args):
        raise AssertionError("measured twice")

    monkeypatch.setattr(measure.Measurer, "generator", never)
    monkeypatch.setattr(measure.Measurer, "truth", never)
    assert evaluate("--runs", *runs, *FEW) == 0
    with pytest.raises(AssertionError, match="measured twice"):
        evaluate("--runs", *runs, "--pictures", 7)


def test_only_what_changed_is_measured_again(evaluate, make_run, monkeypatch):
    runs = [make_run("ours"), make_run("LSD")]
    assert evaluate("--runs", *runs, *FEW) == 0
    measured = []
    real = Evaluation.measure_job
    monkeypatch.setattr(
        Evaluation, "measure_job", lambda self, job, launch: measured.append(job.label) or real(self, job, launch)
    )
    write_generator(runs[1] / "save" / "generator.safetensors", 7)
    assert evaluate("--runs", *runs, *FEW) == 0
    assert measured == ["LSD"]
    measured.clear()
    assert evaluate("--runs", *runs, *FEW, "--measure-again") == 0
    assert measured == ["source", "truth", "ours", "LSD"]


def test_runs_without_a_generator_or_with_another_are_failures(evaluate, make_run):
    runs = [make_run("none"), make_run("large"), make_run("broken"), make_run("good")]
    (runs[0] / "save" / "generator.safetensors").unlink()
    write_generator(runs[1] / "save" / "generator.safetensors", 1, resolution=16)
    (runs[2] / "save" / "generator.safetensors").write_bytes(b"nothing")
    assert evaluate("--runs", *runs, *FEW) == 0
    rows = {label: row for (label, *_), row in runs_of(Path("outputs/evaluation_stylegan")).items()}
    assert rows["none"]["error"].startswith("no ") and "16 pixels per side" in rows["large"]["error"]
    assert "generator.safetensors: truncated" in rows["broken"]["error"]
    assert rows["good"]["error"] == "" and rows["none"]["frechet"] == ""


def stand_in(job, generator, log):
    """A job whose command writes a run's generator in place of generating one."""
    code = (
        f"import os, shutil; run = {str(job.run)!r}; os.makedirs(run + '/save'); os.makedirs(run + '/configs'); "
        f"shutil.copy({str(generator)!r}, run + '/save/generator.safetensors'); open({str(log)!r}, 'a').write('x')"
    )
    return dataclasses.replace(job, command=command(code))


def test_launched_runs_are_taken_up_again(evaluate, source, tmp_path, monkeypatch):
    launched, plan = tmp_path / "launched", jobs.planned
    made = write_generator(tmp_path / "made.safetensors", 5)
    monkeypatch.setattr(jobs, "planned", lambda *args: [stand_in(job, made, launched) for job in plan(*args)])
    (tmp_path / "c.yaml").write_text(CONFIG.format(name="c", seed=0, source=source, prompt="a mug"))
    config = tmp_path / "c.yaml"
    command = ("--prompts", "a golden mug", "--seeds", 0, 1, "--config", f"LSD={config}", "--config", f"ours={config}")
    command += (*FEW, "--out", "out")
    real, calls = Evaluation.measure_job, []

    def stopped_at_the_fourth(self, job, launch):
        calls.append((job.label, job.seed))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(self, job, launch)

    monkeypatch.setattr(Evaluation, "measure_job", stopped_at_the_fourth)
    with pytest.raises(SystemExit, match="130"):
        evaluate(*command)
    assert "3 of 6 rows" in Path("out/table.md").read_text()
    assert evaluate(*command) == 0
    assert calls[:4] == [("source", None), ("truth", None), ("LSD", 0), ("ours", 0)]  # a prompt's variants together
    assert calls[4:] == [("ours", 0), ("LSD", 1), ("ours", 1)]
    assert launched.read_text() == "xxxx"
    rows = runs_of(Path("out"))
    assert float(rows["ours", "a golden mug", "1"]["seconds"]) > 0
    text = Path("out/table.md").read_text()
    assert "replaces Inception" in text and "**ours** is at or below **LSD**" in text


def test_a_domain_from_a_folder(evaluate, make_run, tmp_path, capsys):
    real = tmp_path / "real"
    real.mkdir()
    for i in range(3):
        Image.new("RGB", (20, 10), (80 * i, 40, 200 - 60 * i)).save(real / f"{i}.png")
    runs = [make_run("ours", "a fox in the snow"), make_run("LSD", "a fox in the snow")]
    torch.jit.script(torch.nn.Flatten()).save(str(tmp_path / "flat.pt"))
    given = ("--runs", *runs, "--real", real, "--features", tmp_path / "flat.pt", *FEW)
    assert evaluate(*given, "--judge", "none") == 0
    out = Path("outputs/evaluation_stylegan")
    ours = runs_of(out)["ours", "a fox in the snow", "0"]
    assert float(ours["frechet"]) > 0 and ours["psnr"] == ours["clip_score"] == ours["recognised"] == ""
    assert ours["held_out"] == "" and not (out / "truth").exists()
    text = (out / "table.md").read_text()
    assert "flat.pt" in text and "Inception" not in text
    capsys.readouterr()
    assert evaluate(*given) == 2
    assert "--judge: give another CLIP than the pocket prior's, or none" in capsys.readouterr().err


def test_a_result_lasts_until_its_run_or_the_settings_change(make_run, tmp_path):
    run = make_run("ours")
    (job,) = existing.given([run], tmp_path)
    measurer = measure.Measurer(None, None, 6, 1.0, 16, 8, tmp_path)
    declared = dataclasses.replace(evaluation([job], measurer), settings="s")
    assert not declared.is_current(job)
    result = Result(job.label, job.prompt, 0, state=declared._state(job), settings="s")
    result.write(job.result)
    assert Result.read(job.result) == result
    assert declared.is_current(job) and not dataclasses.replace(declared, settings="t").is_current(job)
    assert declared.is_current(dataclasses.replace(job, run=tmp_path / "thrown away"))
    write_generator(run / "save" / "generator.safetensors", 9, resolution=16)
    assert not declared.is_current(job)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", "a red elephant"], "--prompts: the pocket world has no subject"),
        (["--prompts", "a red mug", "a red mug"], "--prompts: 'a red mug' is duplicated"),
        (["--pictures", "1"], "--pictures is 1; expected at least 2"),
        (["--truncation", "0"], "--truncation is 0"),
        (["--truncation", "nan"], "--truncation is nan"),
        (["--judge", "none"], "--judge: none leaves no features to compare"),
        (["--judge", "."], "--judge: '.' has neither vocab.json"),
        (["--features", "nowhere.pt"], "--features: there is no file nowhere.pt"),
        (["--real", "nowhere", "--prompts", "a red mug"], "--real: there is no folder nowhere"),
        (["--real", "."], "--real holds pictures of one domain, but there are 5 prompts"),
        (["--config", "latent_prior"], "--config: 'latent_prior' adapts no StyleGAN: its system_type is 'latent-prior"),
        (["--config", "source=pocket_stylegan"], "--config: the label 'source' is taken"),
        (["system.pretrained_generator=nowhere.pt"], "system.pretrained_generator: there is no file nowhere.pt"),
        (
            ["--config", "a=pocket_stylegan", "--config", "b=pocket_stylegan", "system.pretrained_generator=x.pt"],
            "all runs must start from one generator, but --config: 'a' from",
        ),
        (["--jobs", "0"], "--jobs is 0"),
        (["--runs", "."], "--runs: . is not a run folder"),
        (["seed=1"], "use --seeds"),
    ],
)
def test_bad_input_is_one_line_that_names_the_flag(evaluate, capsys, arguments, message):
    assert evaluate(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []


def test_runs_of_another_kind_are_refused(evaluate, make_run, capsys):
    run = make_run("field")
    parsed = run / "configs" / "parsed.yaml"
    parsed.write_text(parsed.read_text().replace("stylegan-adaptation-system", "latent-prior-system"))
    assert evaluate("--runs", run) == 2
    assert "adapts no StyleGAN: its system_type is 'latent-prior-system'" in capsys.readouterr().err


def test_the_prompts_hold_what_the_prior_never_saw_and_none_of_those_tuned_on():
    assert [prompt for prompt in ADAPTATION if is_held_out(parse(prompt))] == ["a yellow mug", "a blue jug"]
    assert not any(is_held_out(parse(prompt)) for prompt in TUNING)
    assert not set(ADAPTATION) & set(TUNING)


def test_the_default_is_three_methods_on_five_prompts(evaluate, monkeypatch):
    asked = {}

    def record(variants, tasks, seeds, out):
        asked.update(labels=[v.label for v in variants], prompts=[task.prompt for task in tasks], seeds=seeds)
        raise OptionError.because("recorded")

    monkeypatch.setattr(jobs, "planned", record)
    assert evaluate() == 2
    assert asked["labels"] == ["LSD", "NADA", "ours"] and asked["seeds"] == [0]
    assert len(asked["prompts"]) == 5
    assert evaluate("--list", "tuning") == 2 and len(asked["prompts"]) == 3


def test_the_help_needs_neither_torch_nor_transformers():
    import subprocess

    from latent_prior.runs.sweep.engine import environment

    code = (
        "import sys\nfrom latent_prior import cli\n"
        "try:\n    cli.main(['evaluate', 'stylegan', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.exit(' '.join({'torch', 'transformers', 'torchmetrics', 'PIL', 'tqdm'} & set(sys.modules)) or 0)"
    )
    with environment() as env:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
