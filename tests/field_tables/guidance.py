"""The guidances and the prompt processor, over a tiny checkpoint and the pocket CLIP."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from config_fields import Idle, Refused, Table, To
from latent_prior.guidance.clip_guidance import ClipGuidance
from latent_prior.guidance.latent_prior import LatentPriorGuidance
from latent_prior.guidance.prompt_processor import LatentPriorPromptProcessor
from latent_prior.models import variational

CAMERAS = {
    "elevation": torch.tensor([10.0, 20.0, 80.0, 10.0, 5.0]),
    "azimuth": torch.tensor([10.0, 170.0, 60.0, 100.0, 50.0]),
    "camera_distances": torch.full((5,), 2.0),
}


def pictures(count: int, size: int, seed: int) -> torch.Tensor:
    return torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(seed))


def processor(settings, given):
    return LatentPriorPromptProcessor({"pretrained_model_name_or_path": str(given.prior), "prompt": "a <b>"} | settings)


def see_processor(settings, given):
    shutil.rmtree(".threestudio_cache", ignore_errors=True)
    out = processor(settings, given)()
    cameras = CAMERAS.values()
    return {
        "plain": out.get_text_embeddings(*cameras, False),
        "by view": out.get_text_embeddings(*cameras),
        "perp-neg": out.get_text_embeddings_perp_neg(*cameras) if out.use_perp_neg else None,
        "bridge": out.bridge.get_text_embeddings(*cameras) if hasattr(out, "bridge") else None,
        "files": len(list(Path(".threestudio_cache").rglob("*.*"))),
    }


def see_guidance(settings, given):
    merged = []
    stub = SimpleNamespace(apply_patch=lambda unet, **options: merged.append(options))
    # patch.dict would also drop what is imported meanwhile, and torch does not bear being imported twice
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tomesd", stub)
        guidance = LatentPriorGuidance(
            {"pretrained_model_name_or_path": str(given.prior), "guidance_scale": 7.0, "grad_clip": None} | settings
        )
    unet, vae = guidance.prior.denoiser.module, guidance.prior.autoencoder.vae
    out = {
        "merged": merged,
        "compiled": unet._compiled_call_impl is not None,
        "channels last": unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last),
        "attention": [type(entry).__name__ for entry in unet.attn_processors.values()],
        "recomputed": [getattr(part, "gradient_checkpointing", None) for part in (vae.encoder, vae.decoder)],
        "types": [next(part.parameters()).dtype for part in (unet, vae)],
    }
    if "enable_compile" in settings:  # a compiled network takes minutes and gives the same
        return out
    if "textual_inversion" in settings:
        return out | {"words": guidance.prior.text_encoder(["a <b>"])}
    rgb = pictures(2, 48, 0).requires_grad_()
    cameras = {name: values[:2] for name, values in CAMERAS.items()}
    cameras |= {"points": pictures(2, 48, 2), "opacity": torch.ones(2, 48, 48, 1)}
    for step in (0, 10) if "trainer_max_steps" in settings else (0,):
        guidance.update_step(0, step)
        showing = {"guidance_eval": "max_items_eval" in settings and step == 0}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(variational, "UNPROMPTED", 1.0)  # in a tenth of a LoRA's steps: here in all
            losses = guidance(rgb, given.prompts, **cameras, source_rgb=pictures(2, 48, 1), **showing)
        out[f"step {step}"] = losses
    loss = sum(value for name, value in losses.items() if name.startswith("loss_"))
    return out | {"gradient": torch.autograd.grad(loss, rgb)}


def see_clip(settings, given):
    guidance = ClipGuidance({"prompt": "a golden mug", "source_prompt": "a mug", "use_text": True} | settings)
    cameras = {name: values[:1] for name, values in CAMERAS.items()}
    return guidance(pictures(1, 32, 0), None, **cameras, source_rgb=pictures(1, 32, 1))


ANNEALED = {"timestep_annealing": "linear", "trainer_max_steps": 100}
PERP_NEG = {"use_perp_neg": True}
SDI, ISM, VSD = ({"score": name} for name in ("sdi", "ism", "vsd"))
REWARDED = {"reward_strategy": "weighted", "n_noises": 2}
TABLES = [
    Table(
        LatentPriorGuidance.Config,
        see_guidance,
        {
            "pretrained_model_name_or_path": lambda given: str(given.other_prior),
            "prediction_type": "epsilon",
            "textual_inversion": To(lambda given: [given.word], {"textual_inversion": []}),
            "lora": lambda given: [given.lora],
            "embedded_guidance_scale": Idle(7.0, "Flux dev alone is told it: tests/models/test_transformers.py"),
            "half_precision_weights": Idle(False, "weights are float32 on a CPU"),
            "view_dependent_prompting": False,
            "max_items_eval": To(1, {"max_items_eval": 2, "max_step_percent": 0.05}),
            "trainer_max_steps": To(11, ANNEALED),
            "noise_cell": 0.1,
            "noise_seed": To(1, {"noise_cell": 0.1}),
            "enable_channels_last_format": True,
            "enable_attention_slicing": True,
            "enable_gradient_checkpointing": True,
            "token_merging": True,
            "token_merging_params": To({"ratio": 0.25}, {"token_merging": True}),
            "enable_compile": To(True, {"enable_compile": False}),
            "use_directional": True,
            "guidance_scale": 3.0,
            "guidance_rescale": 0.5,
            "score": "csd",
            "inversion_guidance_scale": To(1.0, SDI),
            "inversion_n_steps": To(3, SDI),
            "inversion_eta": To(0.0, SDI),
            "ism_step_s": To(100, ISM),
            "ism_step_t": To(10, ISM),
            "guidance_scale_lora": To(3.0, VSD | {"trainer_max_steps": 100}),
            "lora_cfg_training": To(False, VSD | {"trainer_max_steps": 100}),
            "lora_lr": To(0.1, VSD | {"trainer_max_steps": 100}),
            "reward_strategy": To("best", REWARDED),
            "reward_clip": To(lambda given: str(given.other_clip), REWARDED),
            "weighting_strategy": "uniform",
            "grad_clip": 0.01,
            "pixel_grad_clip": 0.5,
            "use_sds": False,
            "use_fm": False,
            "fm_target": "denoised",
            "fm_step": "sigma_over_alpha",
            "fm_max_step_percent": 0.1,
            "fm_guidance_scale": 2.0,
            "fm_loss": "mse",
            "fm_normalise": "shared",
            "fm_level_weights": [1.0, 0.5, 0.25],
            "fm_layers": ["mid"],
            "sqrt_anneal": Refused(True, "sqrt_anneal is True; expected false: that is timestep_annealing: sqrt"),
            "t_anneal": Refused(True, "t_anneal is True; expected false: that is timestep_annealing: linear"),
            "use_img_loss": Refused(True, "use_img_loss is True; expected false: that is fm_target: pixels"),
            "use_sjc": Refused(True, "use_sjc is True; expected false"),
            "var_red": Idle(False, "it belongs to use_sjc, which is refused"),
            "enable_sequential_cpu_offload": Refused(True, "enable_sequential_cpu_offload is True; expected false"),
            "enable_memory_efficient_attention": Idle(True, "torch's attention is, and is always used"),
            "use_kl": False,
            "kl_form": "paper",
            "min_step_percent": 0.6,
            "max_step_percent": 0.3,
            "timestep_sampling": "logit_normal",
            "timestep_annealing": To("linear", {"trainer_max_steps": 20}),
            "anneal_end_percent": To(0.5, ANNEALED | {"trainer_max_steps": 10}),
            "n_noises": 3,
            "sample_latents": True,
            "resize_input": False,
            "input_size": 32,
        },
    ),
    Table(
        LatentPriorPromptProcessor.Config,
        see_processor,
        {
            "pretrained_model_name_or_path": lambda given: str(given.other_prior),
            "textual_inversion": lambda given: [given.word],
            "lora": lambda given: [given.text_lora],
            "use_cache": False,
            "spawn": Refused(True, "spawn is true"),
            "prompt": "a mug",
            "prompt_front": "a face",
            "prompt_side": "an ear",
            "prompt_back": "a neck",
            "prompt_overhead": "hair",
            "negative_prompt": "a blur",
            "overhead_threshold": 15.0,
            "front_threshold": 5.0,
            "back_threshold": 5.0,
            "view_dependent_prompt_front": True,
            "use_perp_neg": True,
            "src_modifier": ", blurry",
            "tgt_modifier": To(", sharp", {"src_modifier": ", blurry"}),
            "perp_neg_f_sb": To([2, 0.5, -0.6], PERP_NEG),
            "perp_neg_f_fsb": To([2, 0.5, 0.9], PERP_NEG),
            "perp_neg_f_fs": To([5, 0.5, -2.4], PERP_NEG),
            "perp_neg_f_sf": To([5, 0.5, -2.4], PERP_NEG),
        },
    ),
    Table(
        ClipGuidance.Config,
        see_clip,
        {
            "clip_name_or_path": lambda given: str(given.other_clip),
            "prompt": "a red duck",
            "source_prompt": To("a house", {"use_directional": True}),
            "use_directional": True,
            "use_text": False,
            "views": 2,
        },
    ),
]
