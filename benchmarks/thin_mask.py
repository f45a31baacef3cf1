"""The effect of progressive mask shrinking on a mask one latent pixel wide, with the pocket prior.

A line is masked on a green mug, and the prompts ask for mugs of other colours. Prints how far the line's mean colour
moved from the mug's colour to the prompt's (1: all the way), with the published squares of 7, 5 and 3 latent pixels,
and without. The pictures go to outputs/thin_mask.png: a row per setting, a column per prompt.
"""

import sys
from pathlib import Path

import torch
from latent_prior.editing import blended_diffusion
from latent_prior.editing.blended_diffusion import BlendedDiffusion, SamplerOptions
from latent_prior.files.pictures import to_picture
from latent_prior.pocket.captions import parse
from latent_prior.pocket.edits import TUNING_EDITS
from tqdm import tqdm

PROMPTS = ("a turquoise mug", "a red mug", "a white mug", "a blue mug", "a golden mug")
LINES = {"upright": (slice(16, 52), slice(28, 32)), "lying": (slice(32, 36), slice(16, 48))}
SHADE = 0.75  # fraction of a surface's colour that remains under the pocket world's light


def main() -> None:
    editor = BlendedDiffusion.from_pretrained("pocket")
    picture = TUNING_EDITS[0].scene().before[None]
    decode = editor.autoencoder.decode
    with torch.no_grad():
        before = decode(editor.autoencoder.encode(picture))
    rows, lines = [], []
    for name, (down, right) in LINES.items():
        mask = torch.zeros(1, 1, *picture.shape[-2:])
        mask[..., down, right] = 1

        def colour(made: torch.Tensor, mask: torch.Tensor = mask) -> torch.Tensor:
            return (made * mask).sum((2, 3)) / mask.sum()

        for shrink in (True, False):
            shares, made = [], []
            for prompt in tqdm(PROMPTS, f"{name}, {'shrinking' if shrink else 'fixed'}", file=sys.stderr):
                with torch.no_grad():
                    made.append(decode(editor.edit(picture, mask, prompt, options=SamplerOptions(shrink=shrink))))
                target = SHADE * torch.tensor([parse(prompt).rgb]) - colour(before)
                shares.append(((colour(made[-1]) - colour(before)) * target).sum() / target.square().sum())
            rows.append(torch.cat(made, 3)[0])
            shares_of_prompts = ", ".join(
                f"{prompt} {share:.2f}" for prompt, share in zip(PROMPTS, shares, strict=True)
            )
            mean = torch.stack(shares).mean()
            lines.append(f"{name:8} {'shrinking' if shrink else 'fixed':9} mean {mean:.2f}  ({shares_of_prompts})")
    print("\n".join(lines))
    Path("outputs").mkdir(exist_ok=True)
    sheet = to_picture(torch.cat(rows, 1))
    sheet.resize((sheet.width * 3, sheet.height * 3)).save("outputs/thin_mask.png")


if __name__ == "__main__":
    blended_diffusion.REFERENCE_SIDE = 16  # the published squares in pixels of the pocket prior's latents
    main()
