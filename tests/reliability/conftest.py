import pytest
from latent_prior.host.embedded import registry
from latent_prior.runs import experiment
from reliability import corpus_checkpoints


@pytest.fixture
def toys_registered(monkeypatch):
    """The toys, for one test, next to our own types."""
    experiment.load()  # before there is a copy, or our types would go with it
    monkeypatch.setattr(registry, "__modules__", dict(registry.__modules__))
    corpus_checkpoints.register()
