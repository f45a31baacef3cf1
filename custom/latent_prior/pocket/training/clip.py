"""The pocket CLIPs: pictures and captions in one space (transformers' CLIPModel), and the tokenizer of all models.

Two are trained. The *pocket CLIP* is trained on the prior's pictures; its text tower conditions the UNet. The *judge*
has another seed, width and picture set (including held-out pairs) and is used only for scoring.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from latent_prior.models.clip import Clip
from latent_prior.pocket.captions import CAMERAS, VIEWS, every_subject
from latent_prior.pocket.pictures import PictureSet
from latent_prior.pocket.training.loop import mixed_precision, train

MAX_TOKENS = 24
PREPROCESSOR = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)}  # written to preprocessor_config.json
VIEW_SHARE = 0.7  # fraction of training captions that name the view


@dataclass(frozen=True)
class ClipRecipe:
    """Size and schedule of one CLIP."""

    seed: int
    text_width: int
    text_layers: int
    vision_width: int
    vision_layers: int
    steps: int
    batch: int = 128
    peak_lr: float = 1.5e-3


POCKET = ClipRecipe(seed=11, text_width=128, text_layers=3, vision_width=128, vision_layers=4, steps=2900)
JUDGE = ClipRecipe(seed=23, text_width=96, text_layers=2, vision_width=144, vision_layers=4, steps=3700)


def _byte_alphabet() -> list[str]:
    """CLIP's printable characters for the 256 bytes: printable Latin-1 unchanged, the rest from code point 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(spare)) for b in range(256)]


def write_tokenizer(folder: Path, cameras: bool = False) -> CLIPTokenizer:
    """Write a byte-pair tokenizer with one token per word of the pocket world; other words are split into bytes.

    cameras: with the words of cameras as well, which the CLIPs do not learn.
    """
    words = sorted({w for s in every_subject() for w in s.caption.split()} | {w for v in VIEWS for w in v.split()})
    merges: list[tuple[str, str]] = []

    def pieces(word: str) -> list[str]:
        out = [*word[:-1], word[-1] + "</w>"]
        while True:
            pairs = [p for p in zip(out, out[1:], strict=False) if p in merges]
            if not pairs:
                return out
            first = min(pairs, key=merges.index)
            i = list(zip(out, out[1:], strict=False)).index(first)
            out[i : i + 2] = ["".join(first)]

    for word in words:
        # later merges rank below all earlier ones, so complete words stay complete
        while len(parts := pieces(word)) > 1:
            merges.append((parts[0], parts[1]))
    alphabet = _byte_alphabet()
    tokens = alphabet + [c + "</w>" for c in alphabet] + ["".join(m) for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tokenizer = CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=MAX_TOKENS, pad_token="<|endoftext|>"
    )
    if cameras:
        tokenizer.add_tokens(CAMERAS.every)
    tokenizer.save_pretrained(folder)
    return tokenizer


def tokens_of(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids (N, MAX_TOKENS), padded and truncated."""
    return tokenizer(
        list(captions), padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    ).input_ids


def image_embeddings(clip: Clip, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
    """Unit embeddings with gradients; the norm is computed in float32 even under mixed precision."""
    return F.normalize(clip.project_images(images).float(), dim=-1)


def text_embeddings(clip: CLIPModel, ids: Tensor) -> Float[Tensor, "B D"]:
    """Unit embeddings of token ids, with gradients."""
    return F.normalize(clip.text_projection(clip.text_model(input_ids=ids).pooler_output).float(), dim=-1)


def build(recipe: ClipRecipe, tokenizer: CLIPTokenizer) -> CLIPModel:
    def tower(width: int, layers: int) -> dict:
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "projection_dim": 64,
        }

    text = tower(recipe.text_width, recipe.text_layers) | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = tower(recipe.vision_width, recipe.vision_layers) | {"image_size": 64, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def augmented(images: Float[Tensor, "B 3 H W"], generator: torch.Generator) -> Float[Tensor, "B 3 H W"]:
    """Half of the pictures mirrored (captions do not distinguish left from right), all shifted by a few pixels (their
    borders are uniform grey), with a little noise added, so that rough renders are recognised as well as clean ones."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    down, right = torch.randint(-3, 4, (2,), generator=generator).tolist()
    strength = 0.04 * torch.rand(1, generator=generator).item()
    return images.roll((down, right), (-2, -1)) + torch.randn(images.shape, generator=generator) * strength


def train_clip(
    folder: Path,
    recipe: ClipRecipe,
    pictures: PictureSet,
    tokenizer: CLIPTokenizer,
    device: torch.device,
    label: str,
    start: CLIPModel | None = None,
    train_text: bool = True,
) -> CLIPModel:
    """Train (or resume, or load) a CLIP with the symmetric contrastive loss; equal captions in a batch are matches.

    Training starts from `start` if given. Without `train_text` the text tower is frozen, so that a UNet trained on it
    stays valid.
    """
    torch.manual_seed(recipe.seed)
    clip = (build(recipe, tokenizer) if start is None else copy.deepcopy(start).requires_grad_(True)).to(device)
    wrapped = Clip(clip, tokenizer, PREPROCESSOR)  # freezes the model
    clip.requires_grad_(True).text_model.requires_grad_(train_text)
    if device.type == "cpu":
        clip.set_attn_implementation("eager")  # torch's fused attention has a slow backward pass on a CPU
    captions = [s.caption for s in pictures.subjects]
    with_view = [f"{c}, {v}" for c, v in zip(captions, pictures.views, strict=True)]
    unique = sorted(set(captions) | set(with_view))
    ids = tokens_of(tokenizer, unique).to(device)
    number = {c: i for i, c in enumerate(unique)}
    plain, viewed = (torch.tensor([number[c] for c in cs]) for cs in (captions, with_view))

    def loss(g: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(pictures), (recipe.batch,), generator=g)
        said = torch.where(torch.rand(recipe.batch, generator=g) < VIEW_SHARE, viewed[rows], plain[rows])
        # pictures are compared with each distinct caption of the batch once
        distinct, which = said.unique(return_inverse=True)
        images = augmented(pictures.images[rows].float() / 255, g).to(device)
        with mixed_precision(device):
            i, t = image_embeddings(wrapped, images), text_embeddings(clip, ids[distinct])
        logits = clip.logit_scale.clamp(max=4.6).exp() * i.float() @ t.float().T
        which = which.to(device)
        # text to picture: every picture with that caption is a match
        match = F.one_hot(which, len(distinct)).float()
        to_text = F.cross_entropy(logits, which)
        to_image = -((match / match.sum(0)).T * F.log_softmax(logits.T, dim=-1)).sum(-1).mean()
        top1 = (logits.argmax(1) == which).float().mean().item()
        return (to_text + to_image) / 2, {"top1": top1, "scale": clip.logit_scale.exp().item()}

    train(folder, clip, loss, recipe.steps, recipe.peak_lr, recipe.seed, weight_decay=0.02, label=label)
    return clip.requires_grad_(False)


@torch.no_grad()
def retrieval_top1(clip: Clip, pictures: PictureSet) -> float:
    """Fraction of pictures whose own caption (without view) is the nearest among all captions of the set."""
    captions = [s.caption for s in pictures.subjects]
    unique = sorted(set(captions))
    texts = clip.embed_texts(unique)
    right = 0
    for start in range(0, len(captions), 250):
        images = pictures.images[start : start + 250].to(texts.device).float() / 255
        nearest = (clip.embed_images(images) @ texts.T).argmax(1).tolist()
        right += sum(unique[n] == c for n, c in zip(nearest, captions[start : start + 250], strict=True))
    return right / len(captions)
