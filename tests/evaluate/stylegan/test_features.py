"""Features by networks from files."""

import pytest
import torch
from latent_prior.evaluate.stylegan.features import ScriptFeatures
from torch import Tensor, nn


class Toy(nn.Module):
    """Pictures in [0, 1], 3 x 8 x 8, to five numbers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 192, generator=torch.Generator().manual_seed(0)))

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1) @ self.weight.T


class Detector(Toy):
    """With NVIDIA's argument, for pictures in [0, 255]; without it, class probabilities."""

    def forward(self, pictures: Tensor, return_features: bool = False) -> Tensor:
        features = (pictures / 255).flatten(1) @ self.weight.T
        return features if return_features else features.softmax(1)


@pytest.mark.parametrize("kind", [Toy, Detector])
def test_networks_from_a_file(tmp_path, kind):
    torch.jit.script(kind()).save(str(tmp_path / "n.pt"))
    features = ScriptFeatures(tmp_path / "n.pt")
    pictures = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = (pictures.float() / 255).flatten(1) @ kind().weight.T
    torch.testing.assert_close(features(pictures), expected.detach())
    assert features.name == "n.pt"


class Flat(nn.Module):
    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean(dim=1)


def test_files_that_are_no_such_network(tmp_path):
    with pytest.raises(ValueError, match="--features: there is no file"):
        ScriptFeatures(tmp_path / "n.pt")
    (tmp_path / "n.pt").write_text("nothing")
    with pytest.raises(ValueError, match="--features: .*n.pt is not a TorchScript file"):
        ScriptFeatures(tmp_path / "n.pt")
    torch.jit.script(Flat()).save(str(tmp_path / "flat.pt"))
    pictures = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"flat.pt returned \[2, 4, 4\] for 2 pictures; expected B x D"):
        ScriptFeatures(tmp_path / "flat.pt")(pictures)
    torch.jit.script(Toy()).save(str(tmp_path / "toy.pt"))
    with pytest.raises(ValueError, match=r"toy.pt cannot take pictures of \[3, 4, 4\]"):
        ScriptFeatures(tmp_path / "toy.pt")(pictures)
