"""Quality of the pocket prior: the figures of its model card.

A picture is correct if its subject's kind (or colour or surface) is that of the nearest of all captions of the pocket
world by the judge CLIP, which was not used to train the prior.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusion3Pipeline, StableDiffusionPipeline
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from latent_prior.files import write_text
from latent_prior.models.clip import Clip
from latent_prior.pocket.captions import Subject
from latent_prior.pocket.judge import Judge, agreement
from latent_prior.pocket.pictures import PictureSet
from latent_prior.pocket.training.autoencoder import reconstruction_psnr
from latent_prior.pocket.training.clip import retrieval_top1

DDIM_STEPS, FLOW_STEPS, GUIDANCE_SCALE, BATCH = 30, 28, 4.0, 20
SAMPLES = "samples recognised by the judge"


def sample(folder: Path, captions: list[str], device: torch.device, seed: int = 0) -> Float[Tensor, "B 3 H W"]:
    """Pictures for captions by diffusers' own pipeline: DDIM, 30 steps, or Euler's, 28 steps, for a flow; CFG 4."""
    cls, steps, without = StableDiffusionPipeline, DDIM_STEPS, {}
    if (folder / "transformer").is_dir():
        cls, steps, without = StableDiffusion3Pipeline, FLOW_STEPS, {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = cls.from_pretrained(folder, torch_dtype=torch.float32, **without).to(device)
    pipeline.set_progress_bar_config(disable=True)
    images = []
    for start in tqdm(range(0, len(captions), BATCH), desc="sampling", unit="batch", disable=None):
        images.append(
            pipeline(
                captions[start : start + BATCH],
                num_inference_steps=steps,
                guidance_scale=GUIDANCE_SCALE,
                generator=torch.Generator().manual_seed(seed + start),
                output_type="pt",
            ).images.cpu()
        )
    return torch.cat(images)


def measure(folder: Path, tests: dict[str, PictureSet], device: torch.device, samples: int = 200) -> dict:
    """All figures of a pocket checkpoint, per test set; written to `quality.json` in the folder."""
    vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32).to(device).eval()
    clip = Clip.from_pretrained(str(folder / "clip"), device)
    judge = Judge.load(str(folder / "judge"), device)
    result: dict = {}
    for name, pictures in tests.items():
        captions, subjects = _asked(pictures, samples)
        result[name] = {
            "autoencoder PSNR (dB)": round(reconstruction_psnr(vae, pictures.images, device), 2),
            "retrieval top-1, pocket CLIP": round(retrieval_top1(clip, pictures), 4),
            "retrieval top-1, judge CLIP": round(retrieval_top1(judge, pictures), 4),
            SAMPLES: agreement(judge.classify(sample(folder, captions, device)), subjects),
            "true pictures recognised by the judge": agreement(
                judge.classify(pictures.images[:samples].float() / 255), subjects
            ),
        }
        print(f"{name}: {json.dumps(result[name], indent=2)}")
    write_text(folder / "quality.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def measure_flow(folder: Path, judge: Judge, tests: dict[str, PictureSet], device: torch.device, samples: int = 200):
    """The figures of the flow prior's own parts, per test set; written to `quality.json` in the folder."""
    result: dict = {}
    for name, pictures in tests.items():
        captions, subjects = _asked(pictures, samples)
        result[name] = {SAMPLES: agreement(judge.classify(sample(folder, captions, device)), subjects)}
        print(f"{name}: {json.dumps(result[name], indent=2)}")
    write_text(folder / "quality.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def _asked(pictures: PictureSet, samples: int) -> tuple[list[str], list[Subject]]:
    """Captions to sample for, with their views, and what they name."""
    captions = [f"{s.caption}, {v}" for s, v in zip(pictures.subjects, pictures.views, strict=True)][:samples]
    return captions, pictures.subjects[:samples]
