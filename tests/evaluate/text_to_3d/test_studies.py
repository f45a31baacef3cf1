"""A study is what it says: its configs exist, their overrides are valid, and the flags beside it are checked."""

import argparse
from pathlib import Path

import pytest
from latent_prior import OptionError, host, register
from latent_prior.evaluate.text_to_3d import COMMAND
from latent_prior.evaluate.text_to_3d.studies import STUDIES
from latent_prior.guidance.latent_prior import LatentPriorGuidance
from latent_prior.runs.sweep import jobs


def parsed(*argv):
    parser = argparse.ArgumentParser()
    COMMAND.add_arguments(parser)
    return parser.parse_args(argv)


@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_is_a_valid_run(name):
    register()
    args = parsed("--study", name)
    COMMAND._take_study(args)
    variants = jobs.variants(args.config, args.overrides)
    assert args.against in [variant.label for variant in variants]
    assert len({variant.folder for variant in variants}) == len(variants)
    for variant in variants:
        cfg = host.load_config(str(variant.config), cli_args=list(variant.overrides), n_gpus=0)
        guidance = LatentPriorGuidance.__new__(LatentPriorGuidance)  # its options are checked before a model is loaded
        guidance.cfg = host.parse_structured(LatentPriorGuidance.Config, cfg.system.guidance)
        options = guidance._options_at_every_knot()
        assert options


def test_what_a_study_stands_for_may_be_narrowed():
    args = parsed("--study", "scores", "--list", "tuning", "--seeds", "3", "--out", "here")
    COMMAND._take_study(args)
    assert (args.list, args.seeds, args.out) == ("tuning", [3], "here")
    args = parsed("--study", "scores")
    COMMAND._take_study(args)
    assert (args.list, args.seeds, args.against) == ("study", [0, 1, 2, 3, 4], "LSD")


@pytest.mark.parametrize("also", [["--config", "latent_prior"], ["--against", "SDI"], ["--runs", "x"]])
def test_what_a_study_says_cannot_be_said_again(also):
    with pytest.raises(OptionError, match="--study: it says what to run"):
        COMMAND._take_study(parsed("--study", "scores", *also))


def test_an_unknown_label_to_compare_with(tmp_path):
    args = parsed("--prompts", "a red mug", "--against", "LSD", "--out", str(tmp_path / "out"), "--judge", "none")
    args.verbose = False
    with pytest.raises(OptionError, match="--against is 'LSD'; expected one of latent_prior"):
        COMMAND.run(args)
    assert not list(Path(tmp_path).rglob("*.ckpt"))
