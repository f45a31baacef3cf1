"""Seconds and memory of one guidance step at Stable Diffusion 1.5's size: threestudio's against ours, and ours against
its floor.

    THREESTUDIO_ROOT=~/threestudio python benchmarks/guidance_step.py
    python benchmarks/guidance_step.py --options --repeats 1       # every option, from latents and from pictures
    python benchmarks/guidance_step.py --options --tiny            # a quick check that it runs; ignore the figures

Networks have the architecture of Stable Diffusion 1.5 and random weights, which cost the same as trained ones. Everything
is measured in one process, in alternating turns, so that a slowdown of the machine affects all equally; ratios are
medians over the turns. The floor of a step is the denoiser on 2 B rows (classifier-free guidance) and, for pictures,
the autoencoder's encoder forward and backward. Forward and backward are both counted. Peak memory is torch's on CUDA,
and elsewhere the growth of the process during the step.
"""

import argparse
import importlib.util
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "custom"))

LATENTS, PICTURES = "latents", "pictures"


def networks(device: torch.device, dtype: torch.dtype, tiny: bool = False):
    """(UNet, VAE, scheduler) of Stable Diffusion 1.5 with random weights, frozen; of a few channels if `tiny`."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    narrow = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4} if tiny else {}
    # diffusers' defaults are SD 1.5's
    unet = UNet2DConditionModel(sample_size=8 if tiny else 64, cross_attention_dim=768, **narrow)
    levels = 4
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=2,
        sample_size=64 if tiny else 512,
        **(narrow or {"block_out_channels": (128, 256, 512, 512)}),
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    for module in (unet, vae):
        module.to(device, dtype).eval().requires_grad_(False)
    return unet, vae, scheduler


class Prompts:
    """Prompt embeddings without a text encoder, under either host's contract."""

    use_perp_neg = False

    def __init__(self, batch: int, device: torch.device):
        self.embeddings = torch.randn(2 * batch, 77, 768, generator=torch.Generator().manual_seed(1)).to(device)

    def get_text_embeddings(self, *cameras, **options) -> Tensor:
        return self.embeddings


def theirs(unet, vae, scheduler, device: torch.device) -> Callable:
    """threestudio's own `stable-diffusion-guidance` over the given networks: only its loading is bypassed."""
    import threestudio
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    pipe = mock.MagicMock(unet=unet, vae=vae)
    pipe.to.return_value = pipe
    with (
        mock.patch.object(StableDiffusionPipeline, "from_pretrained", return_value=pipe),
        mock.patch.object(DDIMScheduler, "from_pretrained", return_value=scheduler),
    ):
        return threestudio.find("stable-diffusion-guidance")(
            {"half_precision_weights": unet.dtype == torch.float16, "guidance_scale": 100.0}
        )


def ours(unet, vae, scheduler, device: torch.device, **options):
    """Our prior over the given networks, without a text encoder."""
    from latent_prior.models.autoencoder import Autoencoder
    from latent_prior.models.denoiser import Denoiser
    from latent_prior.models.latent_prior import LatentPrior
    from latent_prior.models.networks import UNetNetwork
    from latent_prior.models.options import PriorOptions
    from latent_prior.prior import DiffusionSchedule

    denoiser = Denoiser(UNetNetwork(unet), DiffusionSchedule(scheduler.alphas_cumprod.to(device)), "epsilon")
    return LatentPrior(denoiser, Autoencoder(vae), None, PriorOptions(guidance_scale=101.0, **options))


@dataclass(frozen=True)
class Step:
    """A step to measure: `loss` of the input (None if there is no backward pass), under a `setting`."""

    loss: Callable[[Tensor], Tensor | None]
    setting: Callable[[], AbstractContextManager] = nullcontext


def steps(args: argparse.Namespace, device: torch.device, parts: tuple, latents: bool) -> dict[str, Step]:
    """The steps to compare, by label, from latents or from pictures."""
    from latent_prior.models.condition import Condition

    unet, vae, _ = parts
    prompts, batch = Prompts(args.batch, device), args.batch
    condition = Condition(*prompts.embeddings.chunk(2))

    def floor(x: Tensor) -> Tensor | None:
        with torch.no_grad():
            z = torch.randn(2 * batch, 4, *(unet.config.sample_size,) * 2, device=device, dtype=unet.dtype)
            t = torch.full((2 * batch,), 500, device=device)
            unet(z, t, encoder_hidden_states=prompts.embeddings.to(unet.dtype))
        return None if latents else vae.encode((x * 2 - 1).to(vae.dtype)).latent_dist.mode().float().square().sum()

    def objective(prior) -> Callable[[Tensor], Tensor]:
        def loss(x: Tensor) -> Tensor:
            back = prior.options.needs_latent_gradient
            v = prior.to_latents(x, latents=latents, options=prior.options, differentiable=back)
            pictures = None if latents else x
            out = prior.score(v, condition, prior.timestep_bounds(prior.options), pictures=pictures)
            weights = {"sds": 1.0, "fm": 0.1, "kl": 0.01}
            return out.total({name: weights[name] for name in out.terms()})

        return loss

    found = {"floor": Step(floor)}
    if args.threestudio:
        guidance, angles = theirs(*parts, device), torch.zeros(batch, device=device)

        def plain(x: Tensor) -> Tensor:
            picture = x.permute(0, 2, 3, 1)
            return guidance(picture, prompts, angles, angles, angles, rgb_as_latents=latents)["loss_sds"]

        found["threestudio"] = Step(plain)
    found["LSD"] = Step(objective(ours(*parts, device, use_fm=False, use_kl=False)))
    whole = ours(*parts, device, fm_layers=args.fm_layers)
    if not latents:
        alone = {"use_sds": False, "use_kl": False}
        for target in ("pixels", "pixel_step"):
            found[f"FM of {target} alone"] = Step(objective(ours(*parts, device, fm_target=target, **alone)))
    found["LSD + FM + KL"] = Step(objective(whole))
    if args.options:
        found |= {label: Step(objective(whole), setting) for label, setting in settings(unet, vae, whole).items()}
    return found


def settings(unet, vae, prior) -> dict[str, Callable[[], AbstractContextManager]]:
    """The options of `Efficiency`, each as a context manager that turns it on."""
    from latent_prior.models.efficiency import Efficiency, make_efficient

    compiled_call, processors = [], unet.attn_processors

    def contiguous() -> None:
        for module in (unet, vae):
            module.to(memory_format=torch.contiguous_format)

    def interpreted() -> None:
        compiled_call[:] = [unet._compiled_call_impl]
        unet._compiled_call_impl = None

    def unmerged() -> None:
        import tomesd

        tomesd.remove_patch(unet)

    undo = {
        "+ channels_last": ({"enable_channels_last_format": True}, contiguous),
        "+ attention slicing": ({"enable_attention_slicing": True}, lambda: unet.set_attn_processor(dict(processors))),
        "+ gradient checkpointing": ({"enable_gradient_checkpointing": True}, vae.disable_gradient_checkpointing),
        "+ torch.compile": ({"enable_compile": True}, interpreted),
        "+ token merging 0.5": ({"token_merging": True, "token_merging_params": {"ratio": 0.5}}, unmerged),
    }
    if importlib.util.find_spec("tomesd") is None:
        print("token merging is skipped: pip install tomesd", file=sys.stderr)
        undo.pop("+ token merging 0.5")

    @contextmanager
    def switched_on(options: dict, off: Callable[[], None]) -> Iterator[None]:
        if "enable_compile" in options and compiled_call:  # done once, in the uncounted turn
            unet._compiled_call_impl = compiled_call[0]
        else:
            make_efficient(prior.denoiser, prior.autoencoder, Efficiency(**options))
        yield
        off()

    return {label: partial(switched_on, *how) for label, how in undo.items()}


class Memory:
    """Peak memory of a block, in bytes: torch's on CUDA, else the growth of this process, sampled."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"

    def __enter__(self) -> "Memory":
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            import psutil

            process = psutil.Process()
            self.before = self.peak = process.memory_info().rss
            self.stop = threading.Event()

            def watch() -> None:
                while not self.stop.wait(0.02):
                    self.peak = max(self.peak, process.memory_info().rss)

            self.watcher = threading.Thread(target=watch, daemon=True)
            self.watcher.start()
        return self

    def __exit__(self, *exception) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            self.peak = torch.cuda.max_memory_allocated()
        else:
            self.stop.set()
            self.watcher.join()
        self.bytes = self.peak - self.before


def measure(found: dict[str, Step], x: Tensor, repeats: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """({label: seconds of each turn}, {label: peak megabytes}), after one uncounted turn."""
    seconds: dict[str, list[float]] = {label: [] for label in found}
    megabytes = dict.fromkeys(found, 0.0)
    for turn in range(repeats + 1):
        for label, step in found.items():
            with step.setting(), Memory(x.device) as memory:
                begun = time.perf_counter()
                loss = step.loss(x.requires_grad_())
                if loss is not None:
                    loss.backward()
                if x.device.type == "cuda":
                    torch.cuda.synchronize()
                taken = time.perf_counter() - begun
            x.grad = None
            if turn:
                seconds[label].append(taken)
                megabytes[label] = max(megabytes[label], memory.bytes / 2**20)
            print(f"turn {turn}/{repeats}  {label}: {taken:.2f} s", file=sys.stderr, flush=True)
    return seconds, megabytes


def table(seconds: dict[str, list[float]], megabytes: dict[str, float]) -> str:
    """Markdown; ratios are medians of ratios within a turn."""

    def over(label: str, other: str) -> str:
        if other not in seconds:
            return "-"
        return f"{statistics.median(a / b for a, b in zip(seconds[label], seconds[other], strict=True)):.2f}"

    lines = [
        "| step | seconds (median) | over threestudio | over the floor | peak MB |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for label, taken in seconds.items():
        median = f"{statistics.median(taken):.2f}"
        ratios = f"{over(label, 'threestudio')} | {over(label, 'floor')}"
        lines.append(f"| {label} | {median} | {ratios} | {megabytes[label]:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    both = (LATENTS, PICTURES)
    parser.add_argument("--input", nargs="+", choices=both, default=both, help="what the step starts from")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="counted turns, after an uncounted one")
    parser.add_argument("--fm-layers", nargs="+", default=["up_0"], help="decoder layers of feature matching")
    parser.add_argument("--options", action="store_true", help="also the full objective with each option")
    parser.add_argument("--tiny", action="store_true", help="networks of a few channels, to see whether it runs")
    parser.add_argument("--out", metavar="FILE", help="write the tables there too")
    args = parser.parse_args()
    args.threestudio = bool(os.environ.get("THREESTUDIO_ROOT"))
    os.environ["LATENT_PRIOR_HOST"] = "threestudio" if args.threestudio else "embedded"
    from latent_prior import host

    device = host.get_device()
    parts = networks(device, torch.float16 if device.type == "cuda" else torch.float32, args.tiny)
    side, tables = parts[0].config.sample_size, []
    for kind in args.input:
        size = (4, side, side) if kind == LATENTS else (3, 8 * side, 8 * side)
        x = torch.rand(args.batch, *size, generator=torch.Generator().manual_seed(2)).to(device)
        text = table(*measure(steps(args, device, parts, kind == LATENTS), x, args.repeats))
        threads, layers = torch.get_num_threads(), " ".join(args.fm_layers)
        tables.append(f"{kind}, batch {args.batch}, {device}, {threads} threads, FM of {layers}\n\n{text}\n")
        print(tables[-1], flush=True)
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text("\n".join(tables))


if __name__ == "__main__":
    main()
