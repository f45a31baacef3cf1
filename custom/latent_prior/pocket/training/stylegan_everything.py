"""Training the whole pocket StyleGAN from scratch: `latent-prior train-pocket-stylegan`.

Each stage has its own folder under the work folder and is resumable; finished stages are only loaded.
"""

import json
from pathlib import Path

import torch
from tqdm import tqdm

from latent_prior import metrics
from latent_prior.files import write_text
from latent_prior.pocket.captions import Subject
from latent_prior.pocket.judge import Judge
from latent_prior.pocket.mug_scenes import KIND, truth
from latent_prior.pocket.solids import KINDS
from latent_prior.pocket.training import adversarial, stylegan
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import StyleGAN2

FEW, MANY = 200, 2000  # pictures per kind for finding the nearest one, and for measuring
MADE_SEED, TRUE_SEED, OTHER_SEED = 700_000, 710_000, 720_000  # of the codes for measuring
BATCH = 50


def train_stylegan(work: Path, out: Path, quick: bool = False, path_weight: float = 0.0) -> None:
    """Render, train, measure and write `out`/generator.safetensors and quality.json; an existing model card is kept.

    quick: a few steps of everything. path_weight: of path length regularisation in the adversarial stage; 0 disables
    it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    few = {"steps": 2} if quick else {}
    zs, images = stylegan.true_pictures(work / "pictures", 1 if quick else stylegan.PICTURES)
    torch.manual_seed(0)
    generator = StyleGAN2(stylegan.SHAPE)
    stylegan.train_mapping(work / "mapping", generator.mapping, **few)
    generator = stylegan.fit(work / "regression", generator, zs, images, device, **few)
    fitted = stylegan.unseen_psnr(generator)
    generator = adversarial.train_adversarially(
        work / "adversarial", generator, zs, images, device, path_weight=path_weight, **few
    ).cpu()
    generator.mapping.estimate_average()
    out.mkdir(parents=True, exist_ok=True)
    save_generator(generator, out / "generator.safetensors")
    quality = {"PSNR before the adversarial stage (dB)": round(fitted, 2)} | measure(generator, quick)
    write_text(out / "quality.json", json.dumps(quality, indent=2, allow_nan=False) + "\n")
    print(json.dumps(quality, indent=2))


@torch.no_grad()
def measure(generator: StyleGAN2, quick: bool = False) -> dict[str, float | str]:
    """PSNR on unseen z, and Fréchet distances by the judge's features: to the domain, and from there to the nearest kind.

    For every other kind the same scenes are rendered in z's own colours. The floor is the distance between two sets of
    true pictures.
    """
    few, many = (8, 8) if quick else (FEW, MANY)
    features = Judge.load().project_images

    def true_features(kind: str, count: int, seed: int) -> torch.Tensor:
        batches = tqdm(range(0, count, BATCH), desc=f"pictures: {kind}", unit="batch", disable=None)
        parts = [
            truth(stylegan.codes(seed + k, min(BATCH, count - k)), Subject(kind, "red"), own_paint=True)
            for k in batches
        ]
        return torch.cat([features(part) for part in parts])

    made = []
    for k in range(0, many, BATCH):
        pictures = generator(stylegan.codes(MADE_SEED + k, min(BATCH, many - k)), noise_mode="none")
        made.append(features(((pictures + 1) / 2).clamp(0, 1)))
    domain = true_features(KIND, many, TRUE_SEED)
    others = [kind for kind in KINDS if kind != KIND]
    distances = {kind: metrics.frechet_distance(domain[:few], true_features(kind, few, OTHER_SEED)) for kind in others}
    nearest = min(distances, key=distances.get)
    own = metrics.frechet_distance(torch.cat(made), domain)
    other = metrics.frechet_distance(true_features(nearest, many, OTHER_SEED), domain)
    floor = metrics.frechet_distance(true_features(KIND, many, OTHER_SEED), domain)
    return {
        "PSNR to the truth of unseen z (dB)": round(stylegan.unseen_psnr(generator), 2),
        "pictures": many,
        "Fréchet distance to the domain": round(own, 3),
        "Fréchet distance of two true sets": round(floor, 3),
        "nearest other kind": nearest,
        "Fréchet distance from the domain to it": round(other, 2),
        "share": round(own / other, 4),
    }
