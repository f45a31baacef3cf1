"""Tiny random checkpoints of Stable Diffusion 3's and Flux's architectures, as folders and as single files."""

import json
import re
import string
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
)
from safetensors.torch import load_file, save_file
from tiny_checkpoints import original_vae_name, write_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel
from transformers.models.t5 import T5Tokenizer

LENGTH = 20  # tokens of a CLIP
WIDTH = 48  # of the transformers' text
# width and width of the projection; single files have none of the first, which then is the identity
CLIPS = {"text_encoder": (32, 32), "text_encoder_2": (16, 20)}


def _vae() -> AutoencoderKL:
    """16 channels, with a shift and without the convolutions between encoder, latents and decoder."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=16,
        sample_size=64,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _clip(folder: Path, part: str, projects: bool) -> None:
    vocabulary = write_tokenizer(folder / part.replace("text_encoder", "tokenizer"), LENGTH)
    width, projected = CLIPS[part]
    cls = CLIPTextModelWithProjection if projects else CLIPTextModel
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=projected,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
    )
    model = cls(config)
    if projects and width == projected:
        torch.nn.init.eye_(model.text_projection.weight)
    model.save_pretrained(folder / part)


def _t5(folder: Path, part: str) -> None:
    letters = [(letter, -3.0) for letter in string.ascii_letters + string.digits + ",.<>+-"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters, ("▁a", -2.5), ("mug", -4.0)]
    tokenizer = T5Tokenizer(vocab=vocabulary, extra_ids=0)
    tokenizer.save_pretrained(folder / part.replace("text_encoder", "tokenizer"))
    sizes = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    # at a factor of 1 the attention of so narrow a T5 magnifies the rounding
    config = T5Config(vocab_size=len(tokenizer), **sizes, initializer_factor=0.3)
    T5EncoderModel(config).save_pretrained(folder / part)


def write_sd3(folder: Path, t5: bool = True, seed: int = 0) -> Path:
    """A folder of Stable Diffusion 3.5 medium's architecture: two of its blocks attend twice."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=3,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=sum(projected for _, projected in CLIPS.values()),
            pos_embed_max_size=12,
            dual_attention_layers=(0, 1),
            qk_norm="rms_norm",
        )
        transformer.save_pretrained(folder / "transformer")
        _vae().save_pretrained(folder / "vae")
        for part in CLIPS:
            _clip(folder, part, projects=True)
        if t5:
            _t5(folder, "text_encoder_3")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    parts = {
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "text_encoder_3": ["transformers", "T5EncoderModel"] if t5 else [None, None],
        "tokenizer_3": ["transformers", "T5Tokenizer"] if t5 else [None, None],
        "image_encoder": [None, None],
        "feature_extractor": [None, None],
    }
    return _write_index(folder, "StableDiffusion3Pipeline", parts)


def write_flux(folder: Path, seed: int = 0, distilled: bool = True) -> Path:
    """A folder of Flux's architecture; distilled: of Flux dev's, which is told a guidance scale."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=CLIPS["text_encoder"][0],
            guidance_embeds=distilled,
            axes_dims_rope=(2, 2, 4),
        )
        transformer.register_to_config(sample_size=16)  # else it is 128, that of the real one
        transformer.save_pretrained(folder / "transformer")
        _vae().save_pretrained(folder / "vae")
        _clip(folder, "text_encoder", projects=False)
        _t5(folder, "text_encoder_2")
    FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=distilled).save_pretrained(folder / "scheduler")
    parts = {
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer_2": ["transformers", "T5Tokenizer"],
        "image_encoder": [None, None],
        "feature_extractor": [None, None],
    }
    return _write_index(folder, "FluxPipeline", parts)


def _write_index(folder: Path, pipeline: str, parts: dict[str, list]) -> Path:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **parts}))
    return folder


# Single files. --------------------------------------------------------------------------------------------------------

SD3_NAMES = {
    r"^pos_embed\.pos_embed$": "pos_embed",
    r"^pos_embed\.proj": "x_embedder.proj",
    r"^time_text_embed\.timestep_embedder\.linear_1": "t_embedder.mlp.0",
    r"^time_text_embed\.timestep_embedder\.linear_2": "t_embedder.mlp.2",
    r"^time_text_embed\.text_embedder\.linear_1": "y_embedder.mlp.0",
    r"^time_text_embed\.text_embedder\.linear_2": "y_embedder.mlp.2",
    r"^proj_out": "final_layer.linear",
    r"^norm_out\.linear": "final_layer.adaLN_modulation.1",
    r"^transformer_blocks\.(\d+)\.": r"joint_blocks.\1.",
    r"\.norm1\.linear": ".x_block.adaLN_modulation.1",
    r"\.norm1_context\.linear": ".context_block.adaLN_modulation.1",
    r"\.attn(2?)\.to_out\.0": r".x_block.attn\1.proj",
    r"\.attn\.to_add_out": ".context_block.attn.proj",
    r"\.attn\.norm_added_([qk])": r".context_block.attn.ln_\1",
    r"\.attn(2?)\.norm_([qk])": r".x_block.attn\1.ln_\2",
    r"\.attn(2?)\.to_qkv": r".x_block.attn\1.qkv",
    r"\.attn\.add_qkv_proj": ".context_block.attn.qkv",
    r"\.ff\.net\.0\.proj": ".x_block.mlp.fc1",
    r"\.ff\.net\.2": ".x_block.mlp.fc2",
    r"\.ff_context\.net\.0\.proj": ".context_block.mlp.fc1",
    r"\.ff_context\.net\.2": ".context_block.mlp.fc2",
}
FLUX_NAMES = {
    r"^time_text_embed\.timestep_embedder\.linear_1": "time_in.in_layer",
    r"^time_text_embed\.timestep_embedder\.linear_2": "time_in.out_layer",
    r"^time_text_embed\.text_embedder\.linear_1": "vector_in.in_layer",
    r"^time_text_embed\.text_embedder\.linear_2": "vector_in.out_layer",
    r"^time_text_embed\.guidance_embedder\.linear_1": "guidance_in.in_layer",
    r"^time_text_embed\.guidance_embedder\.linear_2": "guidance_in.out_layer",
    r"^context_embedder": "txt_in",
    r"^x_embedder": "img_in",
    r"^proj_out": "final_layer.linear",
    r"^norm_out\.linear": "final_layer.adaLN_modulation.1",
    r"^single_transformer_blocks\.(\d+)\.norm\.linear": r"single_blocks.\1.modulation.lin",
    r"^single_transformer_blocks\.(\d+)\.proj_out": r"single_blocks.\1.linear2",
    r"^single_transformer_blocks\.(\d+)\.attn\.to_qkv": r"single_blocks.\1.linear1",
    r"^single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight": r"single_blocks.\1.norm.query_norm.scale",
    r"^single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight": r"single_blocks.\1.norm.key_norm.scale",
    r"^transformer_blocks\.(\d+)\.": r"double_blocks.\1.",
    r"\.norm1\.linear": ".img_mod.lin",
    r"\.norm1_context\.linear": ".txt_mod.lin",
    r"\.attn\.to_out\.0": ".img_attn.proj",
    r"\.attn\.to_add_out": ".txt_attn.proj",
    r"\.attn\.norm_added_q\.weight": ".txt_attn.norm.query_norm.scale",
    r"\.attn\.norm_added_k\.weight": ".txt_attn.norm.key_norm.scale",
    r"\.attn\.norm_q\.weight": ".img_attn.norm.query_norm.scale",
    r"\.attn\.norm_k\.weight": ".img_attn.norm.key_norm.scale",
    r"\.attn\.to_qkv": ".img_attn.qkv",
    r"\.attn\.add_qkv_proj": ".txt_attn.qkv",
    r"\.ff\.net\.0\.proj": ".img_mlp.0",
    r"\.ff\.net\.2": ".img_mlp.2",
    r"\.ff_context\.net\.0\.proj": ".txt_mlp.0",
    r"\.ff_context\.net\.2": ".txt_mlp.2",
}


def _original(transformer: torch.nn.Module, names: dict[str, str], swapped: str) -> dict[str, torch.Tensor]:
    """A transformer's tensors under its original names: queries, keys and values together (of Flux's single blocks also
    what the MLP begins with), and scale and shift in the other order in the layers that `swapped` matches."""
    tensors = dict(transformer.state_dict())
    for name in list(tensors):
        for first, others, joined in (
            ("to_q", ("to_k", "to_v"), "to_qkv"),
            ("add_q_proj", ("add_k_proj", "add_v_proj"), "add_qkv_proj"),
        ):
            if f".{first}." in name:
                parts = [tensors.pop(name), *(tensors.pop(name.replace(first, other)) for other in others)]
                mlp = re.sub(r"attn\.to_q\.", "proj_mlp.", name)
                parts += [tensors.pop(mlp)] if name.startswith("single_") else []
                tensors[name.replace(first, joined)] = torch.cat(parts)
    found = {}
    for name, tensor in tensors.items():
        if re.search(swapped, name):
            scale, shift = tensor.chunk(2)
            tensor = torch.cat([shift, scale])
        for pattern, old in names.items():
            name = re.sub(pattern, old, name)
        found[name] = tensor.contiguous()
    return found


def _original_vae(folder: Path) -> dict[str, torch.Tensor]:
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    levels, found = len(vae.decoder.up_blocks), {}
    for name, tensor in vae.state_dict().items():
        matrix = ".attentions." in name and tensor.ndim == 2
        found[original_vae_name(name, levels)] = tensor[..., None, None] if matrix else tensor
    return found


def write_sd3_single_file(file: Path, folder: Path, without: tuple[str, ...] = ()) -> Path:
    """A folder's weights under Stable Diffusion 3's original names, but for the parts that are left out."""
    transformer = SD3Transformer2DModel.from_pretrained(folder / "transformer")
    last = len(transformer.transformer_blocks) - 1
    parts = {
        "model.diffusion_model.": _original(
            transformer, SD3_NAMES, rf"^norm_out\.|^transformer_blocks\.{last}\.norm1_c"
        ),
        "first_stage_model.": _original_vae(folder),
    }
    towers = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"}
    for part, name in towers.items():
        if (folder / part).is_dir():
            parts[f"text_encoders.{name}.transformer."] = load_file(folder / part / "model.safetensors")
    _save(file, parts, without)
    return file


def write_flux_single_file(file: Path, folder: Path) -> Path:
    """A folder's transformer alone under Flux's original names, as it is published."""
    transformer = FluxTransformer2DModel.from_pretrained(folder / "transformer")
    _save(file, {"": _original(transformer, FLUX_NAMES, r"^norm_out\.")})
    return file


def _save(file: Path, parts: dict[str, dict[str, torch.Tensor]], without: tuple[str, ...] = ()) -> None:
    named = {prefix + name: tensor for prefix, tensors in parts.items() for name, tensor in tensors.items()}
    save_file({name: t.contiguous() for name, t in named.items() if not without or not name.startswith(without)}, file)
