from types import SimpleNamespace

import pytest
import torch
from tiny_checkpoints import GEOMETRIES


@pytest.fixture(scope="session", params=["pocket", "stable"])
def geometry(request):
    """Each geometry in turn."""
    return GEOMETRIES[request.param]


@pytest.fixture(scope="session")
def folder(folders, geometry):
    """The checkpoint folder of the current geometry."""
    return folders[geometry]


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch, tmp_path):
    """Caches are written below the working directory; and everything runs on the CPU."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("LATENT_PRIOR_DEVICE", "cpu")


@pytest.fixture
def make_guidance(folder):
    """Builds the guidance over the current checkpoint."""
    from latent_prior.guidance.latent_prior import LatentPriorGuidance

    return lambda **config: LatentPriorGuidance(
        {"pretrained_model_name_or_path": str(folder), "guidance_scale": 7.0, **config}
    )


@pytest.fixture
def make_processor(folder):
    """Builds the prompt processor over the current checkpoint."""
    from latent_prior.guidance.prompt_processor import LatentPriorPromptProcessor

    return lambda **config: LatentPriorPromptProcessor(
        {"pretrained_model_name_or_path": str(folder), "prompt": "a red mug", **config}
    )


@pytest.fixture
def batch(geometry):
    """What a system hands over: three views, pictures and latents, cameras, and keys that guidance ignores."""
    generator = torch.Generator().manual_seed(0)
    size, latent_size = geometry.image_size, geometry.latent_size
    return SimpleNamespace(
        rgb=torch.rand(3, size, size, 3, generator=generator, requires_grad=True),
        latents=torch.randn(3, latent_size, latent_size, 4, generator=generator, requires_grad=True),
        cameras={
            "elevation": torch.tensor([10.0, 20.0, 80.0]),
            "azimuth": torch.tensor([0.0, 170.0, 60.0]),
            "camera_distances": torch.tensor([1.5, 2.0, 1.8]),
            "fovy": torch.tensor([0.7, 0.7, 0.7]),
            "rays_o": torch.zeros(3, 2, 2, 3),
            "height": size,
        },
    )
