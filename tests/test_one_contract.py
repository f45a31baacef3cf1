"""Nothing above `models/` asks which kind of model a checkpoint is."""

import re
from pathlib import Path

import latent_prior

PACKAGE = Path(latent_prior.__file__).parent
BELOW = ("models", "prior", "metrics", "rasteriser")
KINDS = re.compile(
    r"\.family\b|\bis_xl\b|models\.families|\b(Diffusion|Flow)Schedule\b|\b(UNet|SD3|Flux)Network\b|"
    r"\b(UNet2DCondition|SD3Transformer2D|FluxTransformer2D)Model\b|_prediction\b"
)
# what makes a model of one kind asks for that kind, and so does the pipeline of diffusers that takes no other
MAKERS = ("pocket/training/", "editing/blended_diffusion.py")


def asks(text: str) -> list[str]:
    """The lines of a module that ask for a kind of model."""
    return [line.strip() for line in text.splitlines() if KINDS.search(line) and not line.lstrip().startswith("#")]


def test_nothing_above_the_models_asks_for_their_kind():
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name.split("/")[0] not in BELOW and not name.startswith(MAKERS):
            found |= {name: lines} if (lines := asks(file.read_text())) else {}
    assert found == {}


def test_it_would_be_noticed():
    assert asks("if prior.denoiser.schedule.__class__ is FlowSchedule:\n    pass") != []
    assert asks("    if checkpoint.family is SD3:\n        return 1") != []
    assert asks("x = prior.denoiser(z, t, condition)") == []
    assert asks((PACKAGE / "models" / "networks.py").read_text()) != []
