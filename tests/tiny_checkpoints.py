"""Tiny random checkpoints in Stable Diffusion's layouts, of several geometries, for tests."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)


@dataclass(frozen=True)
class Geometry:
    vae_channels: tuple[int, ...]
    image_size: int
    prediction_type: str
    text_width: int
    max_length: int

    @property
    def downscale(self):
        return 2 ** (len(self.vae_channels) - 1)

    @property
    def latent_size(self):
        return self.image_size // self.downscale


GEOMETRIES = {
    "pocket": Geometry((8, 8, 16), 64, "v_prediction", 32, 16),  # 64x64 -> 16x16
    "stable": Geometry((4, 8, 8, 8), 64, "epsilon", 24, 77),  # 64x64 -> 8x8
    "sd": Geometry((4, 8, 8, 8), 512, "epsilon", 24, 77),  # 512x512 -> 64x64: Stable Diffusion's layout
    "single_level": Geometry((8, 8), 24, "sample", 32, 20),  # 24x24 -> 12x12
}


def write_tokenizer(folder: Path, max_length: int) -> dict[str, int]:
    """A byte-level vocabulary without merges, in CLIP's byte-to-unicode alphabet."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    alphabet = [chr(byte) if byte in printable else chr(next(hidden)) for byte in range(256)]
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=max_length).save_pretrained(
        folder
    )
    return vocabulary


def write_checkpoint(folder: Path, geometry: Geometry, seed: int = 0, **unet_changes) -> Path:
    """A complete diffusers folder with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vocabulary = write_tokenizer(folder / "tokenizer", geometry.max_length)
        levels = len(geometry.vae_channels)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=geometry.vae_channels,
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=geometry.image_size,
        )
        unet = UNet2DConditionModel(
            **{
                "sample_size": geometry.latent_size,
                "block_out_channels": (8, 16),
                "layers_per_block": 1,
                "cross_attention_dim": geometry.text_width,
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
                "attention_head_dim": 4,
                "norm_num_groups": 4,
                **unet_changes,
            }
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=geometry.text_width,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=geometry.max_length,
                bos_token_id=vocabulary["<|startoftext|>"],
                eos_token_id=vocabulary["<|endoftext|>"],
            )
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=geometry.prediction_type,
    )
    for name, part in {"vae": vae, "unet": unet, "text_encoder": text, "scheduler": scheduler}.items():
        part.save_pretrained(folder / name)
    classes = {
        "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **classes}))
    return folder


def write_clip(folder, layers=2):
    """A random CLIP of 24-pixel pictures in 3 x 3 patches, with OpenAI's preprocessing."""
    vocabulary = write_tokenizer(folder, 30)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2}
    words = {"bos_token_id": vocabulary["<|startoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CLIPConfig(
            text_config={**tower, **words, "vocab_size": len(vocabulary), "max_position_embeddings": 30},
            vision_config={**tower, "image_size": 24, "patch_size": 8},
            projection_dim=12,
            initializer_factor=8.0,  # at 1 the pictures hardly matter
        )
        CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"height": 24, "width": 24}, do_center_crop=False).save_pretrained(folder)
    return folder


def write_xl_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A complete diffusers folder of Stable Diffusion XL's architecture: two text encoders, added conditions."""
    geometry, pooled, time_width = GEOMETRIES["pocket"], 20, 8
    widths = (geometry.text_width, 16)
    write_checkpoint(
        folder,
        geometry,
        seed,
        cross_attention_dim=sum(widths),
        addition_embed_type="text_time",
        addition_time_embed_dim=time_width,
        projection_class_embeddings_input_dim=pooled + 6 * time_width,
    )
    vocabulary = write_tokenizer(folder / "tokenizer_2", geometry.max_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        second = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=widths[1],
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=geometry.max_length,
                projection_dim=pooled,
                bos_token_id=vocabulary["<|startoftext|>"],
                eos_token_id=vocabulary["<|endoftext|>"],
            )
        )
    second.save_pretrained(folder / "text_encoder_2")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "image_encoder": [None, None],
        "force_zeros_for_empty_prompt": False,
    }
    index.pop("safety_checker")
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def to_variant(folder: Path, variant: str, shards: bool = False) -> Path:
    """Store the weights of a diffusers folder as a half-precision variant alone, each part in two shards if asked."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    for file in list(folder.glob("*/*.safetensors")):
        tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
        file.unlink()
        if not shards:
            save_file(tensors, file.with_name(f"{file.stem}.{variant}.safetensors"), {"format": "pt"})
            continue
        weight_map = {
            name: f"{file.stem}.{variant}-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)
        }
        for shard in set(weight_map.values()):
            own = {name: tensor for name, tensor in tensors.items() if weight_map[name] == shard}
            save_file(own, file.with_name(shard), {"format": "pt"})
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        file.with_name(f"{file.stem}.safetensors.index.{variant}.json").write_text(json.dumps(index))
    return folder


def write_single_file(file: Path, folder: Path, marks: tuple[str, ...] = ()) -> Path:
    """A diffusers folder's weights under Stable Diffusion's original names in one file, with empty tensors for marks."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder")
    tensors = {}
    for name, tensor in unet.state_dict().items():
        tensors["model.diffusion_model." + _original_unet_name(name, unet)] = tensor
    for name, tensor in vae.state_dict().items():
        is_attention_matrix = ".attentions." in name and tensor.ndim == 2
        original = "first_stage_model." + original_vae_name(name, len(vae.decoder.up_blocks))
        tensors[original] = tensor[..., None, None] if is_attention_matrix else tensor
    for name, tensor in text.state_dict().items():
        tensors["cond_stage_model.transformer.text_model." + name.removeprefix("text_model.")] = tensor
    tensors |= {mark: torch.zeros(0) for mark in marks}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return file


def _original_unet_name(name: str, unet: UNet2DConditionModel) -> str:
    per_level = unet.config.layers_per_block + 1
    head, _, tail = name.partition(".")
    fixed = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    for new, old in fixed.items():
        if name.startswith(new + "."):
            return name.replace(new, old, 1)
    if head == "mid_block":
        place = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
        kind, index, rest = tail.split(".", 2)
        return _original_resnet_name("middle_block." + place[f"{kind}.{index}"] + "." + rest)
    level, kind, index, rest = tail.split(".", 3)
    level, index = int(level), int(index)
    if head == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{per_level * (level + 1)}.0.op.{rest.removeprefix('conv.')}"
        return _original_resnet_name(f"input_blocks.{per_level * level + index + 1}.{int(kind == 'attentions')}.{rest}")
    if kind == "upsamplers":
        place = 2 if hasattr(unet.up_blocks[level], "attentions") else 1
        return f"output_blocks.{per_level * level + per_level - 1}.{place}.{rest}"
    return _original_resnet_name(f"output_blocks.{per_level * level + index}.{int(kind == 'attentions')}.{rest}")


def _original_resnet_name(name: str) -> str:
    names = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    if "transformer_blocks" in name:
        return name
    return re.sub("|".join(names), lambda match: names[match[0]], name)


def original_vae_name(name: str, levels: int) -> str:
    name = re.sub(r"up_blocks\.(\d)\.", lambda match: f"up.{levels - 1 - int(match[1])}.", name)
    name = re.sub(r"down_blocks\.(\d)\.", r"down.\1.", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    if ".attn_1." in name:
        for new, old in {"group_norm": "norm", "to_out.0": "proj_out", "to_q": "q", "to_k": "k", "to_v": "v"}.items():
            name = name.replace(new, old)
    name = name.replace(".resnets.", ".block.").replace("conv_shortcut", "nin_shortcut")
    name = name.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
    return name.replace("conv_norm_out", "norm_out")
