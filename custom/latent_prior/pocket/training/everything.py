"""Training the whole pocket prior from scratch: `latent-prior train-pocket`.

Each part has its own folder under the work folder and is resumable; finished parts are only loaded. A quick run does a
few steps of everything, to check that the pipeline runs.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel

from latent_prior import OptionError
from latent_prior.files import atomic_folder
from latent_prior.models.checkpoint import POCKET_FOLDER
from latent_prior.pocket.judge import Judge
from latent_prior.pocket.pictures import PictureSet, picture_set
from latent_prior.pocket.training.assemble import (
    FLOW_FILES,
    assemble,
    assemble_flow,
    check_replaceable,
    projecting,
    text_encoder_of,
)
from latent_prior.pocket.training.autoencoder import train_autoencoder
from latent_prior.pocket.training.clip import JUDGE, POCKET, train_clip, write_tokenizer
from latent_prior.pocket.training.diffusion import train_diffusion
from latent_prior.pocket.training.flow import train_flow
from latent_prior.pocket.training.quality import measure, measure_flow

# seeds of the picture sets, far enough apart that no shard is shared
PRIOR_SEED, JUDGE_SEED, HELD_OUT_SEED, UNSEEN_SEED, ALL_ROUND_SEED = 100_000, 200_000, 300_000, 400_000, 500_000
PRIOR_PICTURES, JUDGE_PICTURES, TEST_PICTURES, ALL_ROUND_PICTURES = 26_000, 24_000, 1_000, 16_000

FURTHER_CLIP, FURTHER_JUDGE, FURTHER_UNET = 1300, 2200, 2000  # steps when training starts from a checkpoint


@dataclass(frozen=True)
class _Parts:
    """The trained models of a checkpoint folder in float32; all None if training starts from scratch."""

    text: CLIPTextModel | None = None
    vae: AutoencoderKL | None = None
    unet: UNet2DConditionModel | None = None
    clip: CLIPModel | None = None
    judge: CLIPModel | None = None

    @staticmethod
    def load(folder: Path) -> "_Parts":
        for part in ("vae", "unet", "text_encoder", "clip", "judge"):
            if not (folder / part / "config.json").is_file():
                raise OptionError.because(
                    f"--start-from: {str(folder)!r} has no {part}; expected what train-pocket wrote to --out"
                )
        return _Parts(
            CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32),
            AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).eval().requires_grad_(False),
            UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32),
            CLIPModel.from_pretrained(folder / "clip", torch_dtype=torch.float32),
            CLIPModel.from_pretrained(folder / "judge", torch_dtype=torch.float32),
        )


def train_everything(
    work: Path, out: Path, quick: bool = False, start_from: Path | None = None, only_unet: bool = False
) -> None:
    """Render, train, assemble and measure the pocket prior; `out` becomes a diffusers folder, all at once at the end. A
    model card in it is kept.

    `start_from` is a finished checkpoint to start from: its autoencoder is kept, and its text encoder except for the
    words of views and cameras, which are learned with the UNet; the rest is trained further, in its own subfolder of
    `work`, or with `only_unet` kept as well. Raises OptionError if it lacks a part.
    """
    check_replaceable(out)
    begin = _Parts() if start_from is None else _Parts.load(start_from)
    states = work if start_from is None else work / "further"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    few = {"steps": 2, "batch": 8} if quick else {}
    pictures = _Pictures(work / "pictures", quick)
    prior_set, around, tests = pictures.prior(), pictures.all_round(), pictures.tests()

    def steps(further: int) -> dict[str, int]:
        return few or ({} if start_from is None else {"steps": further})

    if only_unet:
        clip, judge = begin.clip, begin.judge
    else:
        tokenizer = write_tokenizer(work / "tokenizer")
        judge_set = pictures.judge()
        clip = train_clip(
            states / "clip",
            replace(POCKET, **steps(FURTHER_CLIP)),
            prior_set,
            tokenizer,
            device,
            "pocket CLIP",
            start=begin.clip,
            train_text=start_from is None,
        )
        judge_recipe = replace(JUDGE, **steps(FURTHER_JUDGE))
        judge = train_clip(
            states / "judge", judge_recipe, judge_set, tokenizer, device, "judge CLIP", start=begin.judge
        )
    vae = (begin.vae or train_autoencoder(states / "autoencoder", prior_set.images, device, **few)).to(device)
    unet, text = train_diffusion(
        states / "unet",
        vae,
        begin.text or text_encoder_of(clip),
        write_tokenizer(work / "tokenizer_with_cameras", cameras=True),
        prior_set,
        around,
        device,
        start=begin.unet,
        **steps(FURTHER_UNET),
    )
    with atomic_folder(out) as folder:
        assemble(folder, vae, unet, text, clip, judge)
        _keep_card(out, folder)
        measure(folder, tests, device, samples=4 if quick else 200)


def train_flow_prior(work: Path, out: Path, quick: bool = False, start_from: Path = POCKET_FOLDER) -> None:
    """Render, train, assemble and measure the pocket flow prior, as `train_everything` does the pocket prior.

    start_from: the pocket prior whose autoencoder, text encoder and judge it takes. The pictures are the same.
    """
    check_replaceable(out, FLOW_FILES)
    begin = _Parts.load(start_from)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pictures, vae, first = _Pictures(work / "pictures", quick), begin.vae.to(device), projecting(begin.text, begin.clip)
    tokenizer = write_tokenizer(work / "tokenizer_with_cameras", cameras=True)
    few = {"steps": 2, "batch": 8} if quick else {}
    model = train_flow(work / "flow", vae, first, tokenizer, pictures.prior(), pictures.all_round(), device, **few)
    with atomic_folder(out) as folder:
        assemble_flow(folder, vae, model, first)
        _keep_card(out, folder)
        judge = Judge.load(str(start_from / "judge"), device)
        measure_flow(folder, judge, pictures.tests(), device, samples=4 if quick else 200)


@dataclass(frozen=True)
class _Pictures:
    """The sets of pictures, rendered into a folder where they are not there; quick: one of each."""

    folder: Path
    quick: bool

    def _set(self, label: str, count: int, seed: int, held_out: bool | None, all_round: bool = False) -> PictureSet:
        label, count = f"pictures: {label}", 1 if self.quick else count
        return picture_set(self.folder, count, seed, held_out, label=label, all_round=all_round)

    def prior(self) -> PictureSet:
        return self._set("prior", PRIOR_PICTURES, PRIOR_SEED, False)

    def all_round(self) -> PictureSet:
        return self._set("all round", ALL_ROUND_PICTURES, ALL_ROUND_SEED, False, all_round=True)

    def judge(self) -> PictureSet:
        return self._set("judge", JUDGE_PICTURES, JUDGE_SEED, None)

    def tests(self) -> dict[str, PictureSet]:
        return {
            "training pairs": self._set("test, training pairs", TEST_PICTURES, UNSEEN_SEED, False),
            "held-out pairs": self._set("test, held-out pairs", TEST_PICTURES, HELD_OUT_SEED, True),
        }


def _keep_card(out: Path, folder: Path) -> None:
    """A model card that is there stays."""
    if (card := out / "README.md").exists():
        shutil.copyfile(card, folder / "README.md")
