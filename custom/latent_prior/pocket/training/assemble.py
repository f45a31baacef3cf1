"""From trained parts to the shipped folders: a checkpoint in Stable Diffusion's layout with two CLIPs added, and one in
Stable Diffusion 3's."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPTextModelWithProjection

from latent_prior import OptionError
from latent_prior.files import lock
from latent_prior.pocket.captions import CAMERAS
from latent_prior.pocket.training import flow
from latent_prior.pocket.training.clip import PREPROCESSOR, write_tokenizer
from latent_prior.pocket.training.diffusion import scheduler
from latent_prior.prior import require_finite

FILES = ("vae", "unet", "text_encoder", "tokenizer", "scheduler", "clip", "judge")
FLOW_FILES = ("vae", "transformer", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
BESIDE = ("model_index.json", "latent_prior.json", "quality.json", "README.md")


def check_replaceable(out: Path, parts: tuple[str, ...] = FILES) -> None:
    """OptionError if a folder that is to be replaced by a checkpoint of these parts holds anything else."""
    known = (*parts, *BESIDE, lock.NAME)
    others = sorted(path.name for path in (out.iterdir() if out.is_dir() else ()) if path.name not in known)
    if others:
        raise OptionError.because(
            f"{out} holds {others[0]!r}, which is no part of a checkpoint; name a new or empty folder", "--out"
        )


def text_encoder_of(clip: CLIPModel) -> CLIPTextModel:
    """The text tower of a CLIP as a model of its own."""
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(clip.text_model.state_dict())
    return text


def projecting(text: CLIPTextModel, clip: CLIPModel) -> CLIPTextModelWithProjection:
    """A text encoder with the projection of the CLIP whose tower it is."""
    projected = CLIPTextModelWithProjection(text.config)
    projected.text_model.load_state_dict(text.state_dict())
    projected.text_projection.load_state_dict(clip.text_projection.state_dict())
    return projected


def _write(folder: Path, parts: Mapping[str, nn.Module]) -> None:
    """The modules as fp16 safetensors. Raises Diverged for weights that are not finite, or too large for fp16."""
    for name, module in parts.items():
        require_finite(module.to("cpu", torch.float16).state_dict(), f"the {name} does not fit into float16")
        module.save_pretrained(folder / name)
        module.to(torch.float32)
        config = json.loads((folder / name / "config.json").read_text())
        config.pop("_name_or_path", None)  # its path on the training machine
        for tower in ("text_config", "vision_config"):
            config.get(tower, {}).pop("dtype", None)  # that of training, not of the written weights
        (folder / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _finish(folder: Path, index: dict, stated: dict) -> None:
    """What lies beside the parts; safetensors writes files that only their owner can read."""
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "latent_prior.json").write_text(json.dumps(stated, indent=2) + "\n")
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(folder.stat().st_mode & 0o666)


def assemble_flow(
    folder: Path, vae: AutoencoderKL, model: "flow.FlowModel", first: CLIPTextModelWithProjection
) -> None:
    """Write the flow prior to an empty folder, in the layout of StableDiffusion3Pipeline without a T5."""
    vae.register_to_config(shift_factor=0.0)  # the pipeline adds it
    _write(
        folder,
        {"vae": vae, "transformer": model.transformer, "text_encoder": first, "text_encoder_2": model.second},
    )
    for name in ("tokenizer", "tokenizer_2"):
        write_tokenizer(folder / name, cameras=True)
    flow.scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusion3Pipeline",
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_3": [None, None],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "tokenizer_3": [None, None],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    _finish(folder, index, {"guidance_scale": 3.0, "camera_words": asdict(CAMERAS)})


def assemble(
    folder: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    clip: CLIPModel,
    judge: CLIPModel,
) -> None:
    """Write to an empty folder: vae, unet, text_encoder, tokenizer, scheduler in diffusers' layout; clip and judge in
    transformers'."""
    _write(folder, {"vae": vae, "unet": unet, "text_encoder": text, "clip": clip, "judge": judge})
    write_tokenizer(folder / "tokenizer", cameras=True)
    scheduler().save_pretrained(folder / "scheduler")
    for name in ("clip", "judge"):
        write_tokenizer(folder / name)
        size = {"height": 64, "width": 64}
        config = {"image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": size, "crop_size": size}
        config |= {"do_center_crop": False, "do_normalize": True} | PREPROCESSOR
        (folder / name / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.30.0",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    # the scale for score distillation with the pocket prior: higher values give dark rims and oversaturated colours
    _finish(folder, index, {"guidance_scale": 3.0, "camera_words": asdict(CAMERAS)})
