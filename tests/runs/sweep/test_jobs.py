"""What an evaluation plans, and that the commands it plans do what the plan says."""

from pathlib import Path

import pytest
from latent_prior import OptionError, cli, host
from latent_prior.evaluate.stylegan.evaluation import StyleGANVariant, source_file
from latent_prior.runs.sweep import jobs
from latent_prior.runs.sweep.jobs import Task

CONFIG = str(Path(__file__).parents[3] / "custom" / "latent_prior.yaml")


def test_every_variant_of_a_prompt_and_seed():
    variants = jobs.variants(
        [["a=latent_prior"], ["b=latent_prior", "trainer.max_steps=7"]], ["system.loss.lambda_kl=0"]
    )
    assert [v.overrides for v in variants] == [
        ("system.loss.lambda_kl=0",),
        ("system.loss.lambda_kl=0", "trainer.max_steps=7"),
    ]
    planned = jobs.planned(variants, [Task("a red mug"), Task("a golden duck")], [0, 3], Path("out"))
    assert [(j.seed, j.prompt, j.label) for j in planned] == [
        (seed, prompt, label) for seed in (0, 3) for prompt in ("a red mug", "a golden duck") for label in "ab"
    ]
    assert len({j.run for j in planned} | {j.result for j in planned} | {j.record for j in planned}) == 24


def test_the_planned_command_makes_the_planned_run(tmp_path, monkeypatch):
    out = tmp_path / "an 'odd' place: here"
    (variant,) = jobs.variants([[f"LSD alone={CONFIG}", "system.loss.lambda_fm=0"]], ["trainer.max_steps=7"])
    (job,) = jobs.planned([variant], [Task("a striped blue house")], [5], out)
    asked = {}

    def record(configs, overrides, gpu, **settings):
        asked["cfg"] = host.load_config(*configs, cli_args=list(overrides), **settings)
        raise OptionError.because("recorded")

    monkeypatch.setattr("latent_prior.runs.experiment.run", record)
    assert list(job.command[:2]) == ["latent_prior", "generate"]
    assert cli.main(job.command[1:]) == 2  # bad input, as `record` has it
    cfg = asked["cfg"]
    assert Path(cfg.trial_dir) == job.run
    assert (cfg.seed, cfg.trainer.max_steps, cfg.system.loss.lambda_fm) == (5, 7, 0)
    assert cfg.system.prompt_processor.prompt == "a striped blue house"


def test_settings_make_the_folder_but_comments_do_not(tmp_path):
    (tmp_path / "c.yaml").write_text("a: 1  # one\n")
    first = jobs.Variant("c", tmp_path / "c.yaml").folder
    (tmp_path / "c.yaml").write_text("# another comment\na: 1\n")
    assert jobs.Variant("c", tmp_path / "c.yaml").folder == first
    assert jobs.Variant("c", tmp_path / "c.yaml", ("a=2",)).folder != first
    (tmp_path / "c.yaml").write_text("a: 2\n")
    assert jobs.Variant("c", tmp_path / "c.yaml").folder != first


def test_a_prior_that_was_trained_again_makes_another_folder(tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text("a: 1\n")
    variant = jobs.Variant("c", tmp_path / "c.yaml")
    first = variant.folder
    assert variant.folder == first
    monkeypatch.setattr(jobs, "prior_digest", lambda: "of other weights")
    assert variant.folder != first


def test_the_digest_is_of_every_weight_but_the_judges(tmp_path, monkeypatch):
    package = tmp_path / "package"
    for part in ("unet", "vae", "judge"):
        (package / "pocket" / "weights" / part).mkdir(parents=True)
        (package / "pocket" / "weights" / part / "model.safetensors").write_bytes(b"0")
    monkeypatch.setattr(jobs.latent_prior, "__file__", str(package / "__init__.py"))
    digest = jobs.prior_digest.__wrapped__
    first = digest()
    (package / "pocket" / "weights" / "judge" / "model.safetensors").write_bytes(b"1")
    assert digest() == first
    (package / "pocket" / "weights" / "vae" / "model.safetensors").write_bytes(b"1")
    assert digest() != first


def test_another_source_makes_another_folder_of_stylegan_runs_alone(tmp_path, monkeypatch):
    source = tmp_path / "g.safetensors"
    config = tmp_path / "c.yaml"
    config.write_text(f"system: {{pretrained_generator: {source}}}\n")
    folders = {}
    for kind in (StyleGANVariant, jobs.Variant):
        folders[kind] = set()
        for content in (None, b"0", b"1"):
            if content is not None:
                source.write_bytes(content)
            jobs.file_digest.cache_clear()
            folders[kind].add(kind("c", config).folder)
        source.unlink()
    assert {kind: len(found) for kind, found in folders.items()} == {
        StyleGANVariant: 3,
        jobs.Variant: 1,
    }


def test_the_source_is_read_with_the_overrides(tmp_path):
    from latent_prior.stylegan2.pretrained import POCKET_FILE

    (tmp_path / "c.yaml").write_text(
        "system_type: stylegan-adaptation-system\nsystem: {pretrained_generator: pocket}\n"
    )
    assert source_file(jobs.Variant("c", tmp_path / "c.yaml").settings) == POCKET_FILE
    other = jobs.Variant("c", tmp_path / "c.yaml", ("system.pretrained_generator=ffhq.pkl",))
    assert source_file(other.settings) == Path("ffhq.pkl")


@pytest.mark.parametrize(
    ("configs", "overrides", "message"),
    [
        ([["latent_prior"], ["latent_prior", "seed.x=1"]], [], "--config: two variants are called 'latent_prior'"),
        ([["no_such_config"]], [], "--config: 'no_such_config'"),
        ([["latent_prior"]], ["seed=3"], "seed cannot be overridden here: use --seeds"),
        ([["latent_prior", "tag=x"]], [], "tag cannot be overridden"),
        ([["latent_prior", "trainer.max_steps"]], [], "key=value"),
        ([["?=latent_prior"]], [], "--config: .*neither letters nor digits"),
    ],
)
def test_bad_configs_are_refused(configs, overrides, message):
    with pytest.raises(ValueError, match=message):
        jobs.variants(configs, overrides)
