import dataclasses

from config_fields import names_read, own_fields, unread_fields
from latent_prior.guidance.clip_guidance import ClipGuidance
from latent_prior.guidance.latent_prior import LatentPriorGuidance
from latent_prior.guidance.prompt_processor import LatentPriorPromptProcessor
from latent_prior.models.efficiency import Efficiency
from latent_prior.models.options import PriorOptions

# options.py only checks the options, which does not count as use; nor does what another guidance reads of its own config
READERS = [
    "guidance/latent_prior.py",
    "guidance/evaluation.py",
    *(f"models/{name}.py" for name in ("latent_prior", "condition", "autoencoder", "text_encoder", "efficiency")),
]


def test_every_field_of_the_guidance_is_read():
    assert unread_fields(LatentPriorGuidance.Config, *READERS) == set()


def test_every_option_is_read():
    assert unread_fields(PriorOptions, *READERS) == set()


def test_every_field_of_the_prompt_processor_is_read():
    assert unread_fields(LatentPriorPromptProcessor.Config, "guidance/prompt_processor.py") == set()


def test_every_field_of_the_clip_guidance_is_read():
    assert unread_fields(ClipGuidance.Config, "guidance/clip_guidance.py") == set()


def test_every_way_to_spend_less_is_read():
    assert unread_fields(Efficiency, *READERS) == set()


def test_the_test_can_fail():
    @dataclasses.dataclass
    class Base:
        inherited: int = 0

    @dataclasses.dataclass
    class Config(Base):
        resize_input: bool = True
        nobody_reads_this: int = 0

    assert own_fields(Config) == {"resize_input", "nobody_reads_this"}
    assert unread_fields(Config, *READERS) == {"nobody_reads_this"}


def test_what_counts_as_reading():
    source = "self.cfg.a; cfg['b']; options.get('c'); self.options.d.e; other.f; self.g; cfg.h = 1; cfg[key]"
    assert names_read(source) == {"a", "b", "c", "get", "d"}
