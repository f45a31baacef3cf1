"""`latent-prior paint PROMPT`: one picture under the prior, in seconds."""

import argparse
import dataclasses
import itertools
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latent_prior import OptionError
from latent_prior.files import lock, slug, user_path

HELP = """Optimise one picture under the prior: the quickest way to see what a score or a term does.

key=value sets an option of the prior (those of system.guidance: score, guidance_scale, fm_target, ...) or a term's
weight (lambda_sds, lambda_fm, lambda_kl). The score alone pulls at the picture unless lambda_fm or another fm_ option is
given, which adds feature matching. --compare makes a picture for every combination of values, side by side."""

EXAMPLES = """examples:
  latent-prior paint "a red mug"
  latent-prior paint "a golden duck" score=csd guidance_scale=7.5 --steps 200
  latent-prior paint "a red mug" --compare fm_target=residual,pixels score=sds,csd,sdi
  latent-prior paint "a striped blue mug" --gradients lambda_fm=30
  latent-prior paint "a bronze statue" --checkpoint stable-diffusion-v1-5/stable-diffusion-v1-5 --steps 500

written to --out:
  picture.png, film.mp4 (how it came about), variants.png (with --compare), gradients.png (with --gradients),
  origin.json, report.html
"""
WEIGHTS = ("lambda_sds", "lambda_fm", "lambda_kl")
MOST_VARIANTS = 64


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The command's flags."""
    p.set_defaults(action=paint)
    p.description, p.epilog = HELP, EXAMPLES
    p.add_argument("prompt", metavar="PROMPT", help='what to paint, e.g. "a red mug"')
    p.add_argument("overrides", nargs="*", metavar="key=value", help="options of the prior, and weights of its terms")
    p.add_argument("--negative-prompt", default="", metavar="TEXT", help="what not to paint")
    p.add_argument(
        "--compare", nargs="+", action="extend", default=[], metavar="KEY=V1,V2", help="values to compare; repeatable"
    )
    p.add_argument("--gradients", action="store_true", help="show what each term pulls at, as pictures")
    p.add_argument("--steps", type=int, default=60, metavar="N", help="default: 60")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    p.add_argument(
        "--space",
        choices=("latent", "picture"),
        help="what is optimised (default: the latent, or the picture where fm_target is one of pixels)",
    )
    p.add_argument(
        "--view",
        default="30,20",
        metavar="AZIMUTH,ELEVATION",
        help="in degrees, for a checkpoint with words for the camera, as the pocket prior is (default: 30,20); "
        "--view=-30,20 for one below zero",
    )
    p.add_argument("--learning-rate", type=float, metavar="RATE", help="default: 0.1 for a latent, 0.02 for a picture")
    p.add_argument(
        "--checkpoint",
        default="pocket",
        metavar="NAME",
        help="pocket, a diffusers folder, a .safetensors file or hub id",
    )
    p.add_argument("--out", metavar="DIR", help="default: outputs/paint/<prompt>@<time>")
    p.add_argument("--gpu", default="0", help="GPU to use; without a GPU the CPU is used")


def paint(args: argparse.Namespace) -> None:
    """The command. OptionErrors for bad input name the flag or the option."""
    from latent_prior.runs import gpus

    _check(args)
    gpus.choose_gpus(args.gpu)  # before torch looks for GPUs
    from latent_prior.runs import painting
    from latent_prior.runs.sweep import grid

    chosen = variants(args)
    space = args.space or (painting.PICTURE if any(variant.of_pixels for variant in chosen) else painting.LATENT)
    painting.check(chosen, space)
    folder = (
        user_path(args.out)
        if args.out
        else Path("outputs", "paint", f"{slug(args.prompt)}@{time.strftime('%Y%m%d-%H%M%S')}")
    )
    with lock.owned(folder, "--out", numbered=not args.out) as out:
        from latent_prior import report
        from latent_prior.runs import painting_files

        columns = len(grid.axis(args.compare[-1], "--compare")[1]) if args.compare else 1
        painting_files.write(out, _painted(args, chosen, space), columns, vars(args))
        print(f"\nFolder: {out}")
        for path in (report.write(out), *(out / name for name in painting_files.NAMES)):
            if path.is_file():
                print(f"  {path}")


def _check(args: argparse.Namespace) -> None:
    if not args.prompt.strip():
        raise OptionError.because('PROMPT is empty; say what to paint, e.g. "a red mug"')
    if args.steps < 1:
        raise OptionError("--steps", args.steps, "a whole number of at least 1")
    if not 0 <= args.seed < 2**63:
        raise OptionError("--seed", args.seed, "a whole number from 0 on")
    if not re.fullmatch(r"-?\d{1,3}(\.\d+)?,-?\d{1,3}(\.\d+)?", args.view):
        raise OptionError("--view", args.view, "azimuth and elevation in degrees, such as 30,20")
    if args.learning_rate is not None and not 0 < args.learning_rate < float("inf"):
        raise OptionError("--learning-rate", args.learning_rate, "a number above 0")


def variants(args: argparse.Namespace) -> list[Any]:
    """The combinations of --compare on top of the overrides; OptionError for options that there are not."""
    from latent_prior.runs import painting
    from latent_prior.runs.sweep import grid

    axes = [grid.axis(words, "--compare") for words in args.compare]
    keys = [key for key, _ in axes]
    if len(set(keys)) < len(keys):
        raise OptionError.because(f"a key is duplicated among {', '.join(keys)}", "--compare")
    common = dict(word.split("=", 1) for word in args.overrides)
    found = []
    for values in itertools.product(*(values for _, values in axes)):
        own = dict(zip(keys, values, strict=True))
        settings = {key: _value(key, text) for key, text in (common | own).items()}
        default = painting.WITH_FM if any(key.startswith("fm_") for key in settings) else painting.SCORE_ALONE
        weights = {name: settings.pop(f"lambda_{name}", weight) for name, weight in default.items()}
        painting.options_of(settings)
        label = ", ".join(f"{key}={value}" for key, value in own.items()) or "picture"
        found.append(painting.Variant(label, settings, weights))
    if len(found) > MOST_VARIANTS:
        raise OptionError.because(f"{len(found)} combinations; expected at most {MOST_VARIANTS}", "--compare")
    return found


def _value(key: str, text: str) -> Any:
    """An option's value as YAML reads it. OptionError for a key that is not an option."""
    import yaml

    from latent_prior.models.options import PriorOptions

    known = [part.name for part in dataclasses.fields(PriorOptions) if not part.name.startswith("use_")] + [*WEIGHTS]
    if key not in known:
        raise OptionError.because(f"there is no option {key!r}; there are {', '.join(known)}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OptionError(key, text, "a number, a name or a list") from error
    if key in WEIGHTS and (not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e12):
        raise OptionError(key, text, "a number of at least 0")
    if key not in WEIGHTS:
        try:
            PriorOptions(**{key: value})
        except TypeError as error:
            raise OptionError(key, text, "a value of another kind: a number, a name or a list") from error
        except OptionError:
            pass  # it may fit together with the others: `variants` checks all
    return value


def _painted(args: argparse.Namespace, chosen: Sequence[Any], space: str) -> list[Any]:
    from tqdm import tqdm

    from latent_prior import LatentPrior
    from latent_prior.models.checkpoint import KEY
    from latent_prior.runs import painting

    def loaded() -> LatentPrior:
        try:
            return LatentPrior.from_pretrained(args.checkpoint)
        except OptionError as error:
            raise OptionError.because(f"--checkpoint: {str(error).removeprefix(f'{KEY}: ')}") from error

    prior = loaded()
    if args.checkpoint == "pocket":
        _notice_unknown_subject(args.prompt)
    prompt = _with_view(args)
    total = args.steps * len(chosen)
    with tqdm(total=total, desc="paint", unit="step", dynamic_ncols=True, file=sys.stderr) as bar:
        return [
            painting.paint(
                loaded() if variant.options.get("score") == "vsd" else prior,  # whose LoRA starts anew
                variant,
                prompt,
                args.negative_prompt,
                steps=args.steps,
                seed=args.seed,
                space=space,
                learning_rate=args.learning_rate,
                gradients=args.gradients,
                on_step=bar.update,
            )
            for variant in chosen
        ]


def _with_view(args: argparse.Namespace) -> str:
    """The prompt, with the checkpoint's words for the camera, if it has such and the prompt has none."""
    import torch

    from latent_prior.models.camera_words import CameraWords
    from latent_prior.models.checkpoint import resolve

    words = CameraWords.of(resolve(args.checkpoint))
    if words is None or "<" in args.prompt:
        return args.prompt
    angles = torch.tensor([float(angle) for angle in args.view.split(",")])
    camera = list(words.cameras())[int(words.index(*angles[:, None]))]
    return f"{args.prompt}, {words.words(*camera)}"


def _notice_unknown_subject(prompt: str) -> None:
    from latent_prior.pocket.captions import parse

    try:
        parse(prompt)
    except OptionError as error:
        print(f"{error}. It will make something else", file=sys.stderr)
