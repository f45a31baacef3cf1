"""What only CUDA can show; launch_scripts/gpu_check.sh runs it. Skips without a GPU, and part by part without packages."""

import importlib.util

import pytest
import torch
from latent_prior import rasteriser
from latent_prior.host.embedded.hash_grid import GridEncoding
from latent_prior.host.embedded.networks import SphericalHarmonics
from latent_prior.models.latent_prior import LatentPrior
from latent_prior.rasteriser import antialiasing, interpolation, rasterization, texturing
from reference.clip_meshes import octahedron, seen

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
CUDA = torch.device("cuda")


def gradients(prior, images, prompt="a red mug"):
    """The gradients of the three terms on the pictures, by a fixed seed."""
    found = {}
    for term in ("lsd", "fm", "kl"):
        x = images.clone().requires_grad_()
        out = prior(x, prompt=prompt, generator=torch.Generator(images.device).manual_seed(0))
        (found[term],) = torch.autograd.grad(getattr(out, term), x)
    return found


def test_half_precision_gives_the_gradients_of_full_precision():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).to(CUDA)
    half, full = (
        gradients(LatentPrior.from_pretrained("pocket", device=CUDA, half_precision_weights=halved), images)
        for halved in (True, False)
    )
    for term in full:
        assert torch.isfinite(half[term]).all(), term
        cosine = torch.nn.functional.cosine_similarity(half[term].flatten(), full[term].flatten(), dim=0).item()
        assert cosine > 0.99, (term, cosine)
        assert half[term].norm().item() == pytest.approx(full[term].norm().item(), rel=0.05), term


def test_the_gpu_gives_what_the_cpu_gives():
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    eps = []
    for device in (torch.device("cpu"), CUDA):
        prior = LatentPrior.from_pretrained("pocket", device=device, half_precision_weights=False)
        embedding = prior.text_encoder(["a red mug"] * 2)
        eps.append(prior.denoiser(latents.to(device), torch.tensor([300, 700], device=device), embedding)[0].cpu())
    torch.testing.assert_close(*eps, rtol=1e-2, atol=1e-3)


needs_tinycudann = pytest.mark.skipif(
    importlib.util.find_spec("tinycudann") is None, reason="tinycudann is not installed"
)


@needs_tinycudann
def test_our_grids_are_tiny_cuda_nns():
    import tinycudann

    config = {"n_levels": 4, "log2_hashmap_size": 12, "base_resolution": 8, "per_level_scale": 1.5}
    theirs = tinycudann.Encoding(3, {"otype": "HashGrid", **config}, dtype=torch.float32)
    ours = GridEncoding(3, config).to(CUDA)
    assert theirs.params.shape == ours.params.shape
    with torch.no_grad():
        ours.params.copy_(theirs.params.uniform_(-1, 1))
    x = torch.rand(1000, 3, device=CUDA)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-3, atol=1e-3)


@needs_tinycudann
def test_our_spherical_harmonics_are_tiny_cuda_nns():
    import tinycudann

    theirs = tinycudann.Encoding(3, {"otype": "SphericalHarmonics", "degree": 4}, dtype=torch.float32)
    x = torch.nn.functional.normalize(torch.randn(1000, 3, device=CUDA), dim=-1) / 2 + 0.5
    torch.testing.assert_close(SphericalHarmonics(3, {"degree": 4}).to(CUDA)(x), theirs(x), rtol=1e-3, atol=1e-3)


def test_nerfaccs_kernels_agree_with_its_plain_torch():
    nerfacc = pytest.importorskip("nerfacc")
    starts = torch.linspace(0, 1, 9)[:-1].expand(5, -1)
    density = torch.rand(5, 8, generator=torch.Generator().manual_seed(3)) * 5
    weights = [
        nerfacc.render_weight_from_density(starts.to(d), starts.to(d) + 0.125, density.to(d))[0].cpu()
        for d in ("cpu", "cuda")
    ]
    torch.testing.assert_close(*weights)


def rasterised(operations, pos, tri, tex):
    """A textured, antialiased picture by these operations, and its gradients."""
    pos, tex = (x.detach().requires_grad_() for x in (pos, tex))
    uv = torch.rand(1, 6, 2, generator=torch.Generator().manual_seed(0)).to(pos)
    rast, rast_db = operations["rasterize"](pos, tri, (33, 40))
    at, at_da = operations["interpolate"](uv, rast, tri, rast_db, "all")
    picture = operations["texture"](tex, at, at_da) * (rast[..., 3:] > 0)
    picture = operations["antialias"](picture, rast, pos, tri)
    weight = torch.linspace(0.5, 1, picture.numel()).to(pos).reshape(picture.shape)
    return [x.cpu() for x in (rast, picture, *torch.autograd.grad((picture * weight).sum(), (pos, tex)))]


OURS = {
    "rasterize": rasterization.rasterize,
    "interpolate": interpolation.interpolate,
    "texture": texturing.texture,
    "antialias": antialiasing.antialias,
}


def test_the_gpu_rasterises_what_the_cpu_does():
    vertices, tri = octahedron()
    pos, tex = seen(vertices, [0.3, 1.1]), torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1)).double()
    wanted = rasterised(OURS, pos, tri, tex)
    for a, b in zip(rasterised(OURS, pos.to(CUDA), tri.to(CUDA), tex.to(CUDA)), wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(importlib.util.find_spec("nvdiffrast") is None, reason="nvdiffrast is not installed")
def test_nvdiffrast_rasterises_what_we_do():
    vertices, tri = octahedron()
    pos = seen(vertices, [0.3, 1.1]).float().to(CUDA)
    tex = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1)).to(CUDA)
    context = rasteriser.RasterizeCudaContext()
    theirs = {name: getattr(rasteriser, name) for name in OURS}
    theirs["rasterize"] = lambda *given: rasteriser.rasterize(context, *given)
    wanted = rasterised(OURS, pos, tri.to(CUDA), tex)
    found = rasterised(theirs, pos, tri.to(CUDA), tex)
    assert context.of_nvdiffrast is not None
    same = found[0][..., 3] == wanted[0][..., 3]
    assert same.float().mean() > 0.99  # nvdiffrast rounds corners to a sixteenth of a pixel
    close = (found[1] - wanted[1]).abs().amax(-1) <= 0.05  # but where we look for silhouettes beyond a triangle
    assert close[same].float().mean() > 0.99
    for a, b in zip(found[2:], wanted[2:], strict=True):
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.98
