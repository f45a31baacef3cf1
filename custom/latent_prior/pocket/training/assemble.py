"""From trained parts to the shipped folder: a standard Stable Diffusion style checkpoint with two CLIPs added."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPModel, CLIPTextModel

from latent_prior.pocket.training.clip import PREPROCESSOR, write_tokenizer
from latent_prior.pocket.training.diffusion import scheduler
from latent_prior.prior import require_finite


def assemble(
    out: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    clip: CLIPModel,
    judge: CLIPModel,
) -> None:
    """Write `out` anew: vae, unet, text_encoder, tokenizer, scheduler in diffusers' layout; clip and judge in
    transformers'. Weights are fp16 safetensors. The folder is moved into place as a whole, never half-written. Raises
    Diverged for weights that are not finite, or too large for fp16."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(clip.text_model.state_dict())
    parts: dict[str, nn.Module] = {"vae": vae, "unet": unet, "text_encoder": text, "clip": clip, "judge": judge}
    for name, module in parts.items():
        require_finite(module.to("cpu", torch.float16).state_dict(), f"the {name} does not fit into float16")
        module.save_pretrained(partial / name)
        module.to(torch.float32)
        config = json.loads((partial / name / "config.json").read_text())
        config.pop("_name_or_path", None)  # its path on the training machine
        for tower in ("text_config", "vision_config"):
            config.get(tower, {}).pop("dtype", None)  # that of training, not of the written weights
        (partial / name / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_tokenizer(partial / "tokenizer")
    scheduler().save_pretrained(partial / "scheduler")
    for name in ("clip", "judge"):
        write_tokenizer(partial / name)
        size = {"height": 64, "width": 64}
        config = {"image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": size, "crop_size": size}
        config |= {"do_center_crop": False, "do_normalize": True} | PREPROCESSOR
        (partial / name / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n")
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
    (partial / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    # the scale for score distillation with the pocket prior: higher values give dark rims and oversaturated colours
    (partial / "latent_prior.json").write_text(json.dumps({"guidance_scale": 3.0}, indent=2) + "\n")
    if (card := out / "README.md").exists():
        shutil.copyfile(card, partial / "README.md")
    for weights in partial.rglob("*.safetensors"):  # safetensors writes files that only their owner can read
        weights.chmod(partial.stat().st_mode & 0o666)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
