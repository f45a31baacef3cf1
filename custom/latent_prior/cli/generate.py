"""`latent-prior generate PROMPT`: run a config for a prompt."""

import argparse
from typing import Any

from latent_prior import OptionError
from latent_prior.cli import host_arguments, results
from latent_prior.runs import experiment, gpus
from latent_prior.runs.folder import config_path

EXAMPLES = """examples:
  latent-prior generate "a red mug"
  latent-prior generate "a golden duck" trainer.max_steps=800 seed=1
  latent-prior generate "a red mug" --config pocket_dreamfusion
  latent-prior generate "a golden mug" --config pocket_layered_editing data.image=photo.png
  latent-prior generate "a pineapple" --config sd_dreamfusion --negative-prompt "blurry, low quality" --gpu 1
"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=generate)
    p.epilog = EXAMPLES
    add_prompt(p, "latent_prior")
    host_arguments.add_run_arguments(p)


def add_prompt(p: argparse.ArgumentParser, config: str) -> None:
    """The flags of a prompt, and of the config it is for."""
    p.add_argument("prompt", help='what to make; the pocket prior knows e.g. "a striped red mug", "a golden duck"')
    p.add_argument("--negative-prompt", metavar="TEXT", help="what not to make (default: the config's)")
    p.add_argument("--config", default=config, help=f"YAML file, or the name of a shipped config (default: {config})")


def generate(args: argparse.Namespace) -> None:
    """The command."""
    run_prompt(args, {})


def run_prompt(args: argparse.Namespace, system: dict[str, Any]) -> None:
    """Run the config of `add_prompt` for its prompt, with further settings of the system."""
    host_arguments.choose(args)
    gpus.choose_gpus(args.gpu)
    experiment.load()
    config = str(config_path(args.config))
    prompts = {"prompt": args.prompt}
    if args.negative_prompt is not None:
        prompts["negative_prompt"] = args.negative_prompt
    settings = {"system": {"prompt_processor": prompts, **system}}
    notice_unknown_subject(config, args.overrides, settings)
    results.show(experiment.run([config], args.overrides, gpu=args.gpu, **settings).folder)


def notice_unknown_subject(config: str, overrides: list[str], settings: dict) -> None:
    """Warn if the prompt is outside the pocket prior's vocabulary."""
    from latent_prior import host
    from latent_prior.pocket.captions import parse

    cfg = host.merge_config(config, cli_args=overrides, **settings)
    if host.select(cfg, "system.prompt_processor.pretrained_model_name_or_path") != "pocket":
        return
    try:
        parse(settings["system"]["prompt_processor"]["prompt"])
    except OptionError as error:
        host.warn(f"{error}. It will make something else")
