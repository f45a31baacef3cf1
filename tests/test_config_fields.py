"""Every field of every registered type's config acts; see config_fields.py."""

import dataclasses
import sys
from types import SimpleNamespace

import latent_prior.registration  # noqa: F401
import pytest
import torch
import trimesh
from config_fields import Idle, Refused, Table, To, plain, same
from field_tables import data, fields, guidance, systems
from latent_prior.files.pictures import to_picture
from latent_prior.host.embedded.registry import __modules__ as registered
from latent_prior.models.checkpoint import POCKET_FOLDER
from latent_prior.models.efficiency import Efficiency
from latent_prior.models.options import PriorOptions
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from safetensors.torch import save_file
from tiny_checkpoints import GEOMETRIES, write_checkpoint

TABLES = [table for module in (guidance, data, fields, systems) for table in module.TABLES]


def name_of(table: Table) -> str:
    return table.config.__qualname__.removesuffix(".Config")


@pytest.fixture(scope="module")
def given(tiny_prior, tmp_path_factory) -> SimpleNamespace:
    """Files that values name: checkpoints, adapters, pictures, generators, weights of earlier runs."""
    folder = tmp_path_factory.mktemp("given")
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=g)

    found = SimpleNamespace(
        prior=tiny_prior, other_prior=write_checkpoint(folder / "prior", GEOMETRIES["pocket"], seed=1)
    )
    found.word, found.lora, found.text_lora = (str(folder / f"{name}.safetensors") for name in ("word", "lora", "text"))
    save_file({"<b>": draw(2, 32)}, found.word)
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    save_file({f"{layer}.lora_A.weight": draw(2, 32), f"{layer}.lora_B.weight": draw(16, 2)}, found.lora)
    layer = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    save_file({f"{layer}.lora_A.weight": draw(2, 32), f"{layer}.lora_B.weight": draw(32, 2)}, found.text_lora)

    found.other_clip = folder / "clip"
    found.other_clip.mkdir()
    for file in (POCKET_FOLDER / "clip").iterdir():
        (found.other_clip / file.name).symlink_to(file)
    (found.other_clip / "preprocessor_config.json").unlink(missing_ok=True)
    (found.other_clip / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')

    for name, picture in {
        "picture": draw(3, 24, 32),
        "other_picture": draw(3, 24, 32),
        "mask": draw(3, 24, 32),
    }.items():
        to_picture(picture.sigmoid()).save(folder / f"{name}.png")
        setattr(found, name, folder / f"{name}.png")
    for name, extents in (("sketch", (1.0, 0.3, 0.5)), ("other_sketch", (0.5, 0.5, 1.0))):
        setattr(found, name, str(folder / f"{name}.obj"))
        trimesh.creation.box(extents).export(getattr(found, name))

    for name in ("noisy", "other_generator"):
        generator = StyleGAN2(StyleGAN2Config.of_size(16, z_dim=8, w_dim=8, mapping_layers=2, base=64, most=8))
        for parameter, values in generator.named_parameters():
            values.data = draw(*values.shape) if parameter.endswith(("weight", "strength")) else values.data
        generator.mapping.estimate_average()
        setattr(found, name, folder / f"{name}.safetensors")
        save_generator(generator, getattr(found, name))

    found.prompts = guidance.processor({"use_cache": False}, found)()
    found.systems = {}
    for name, see in {
        "text_to_3d": systems.see_text_to_3d,
        "stylegan": systems.see_stylegan,
        "layered": systems.see_layered,
    }.items():
        torch.manual_seed(0)
        found.systems[name] = folder / f"{name}.ckpt"
        write_weights(found.systems[name], {key: value + 0.1 for key, value in see({}, found)["weights"].items()})
    return found


def write_weights(path, state) -> None:
    torch.save({"state_dict": state, "epoch": 0, "global_step": 0}, path)


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("table", "field"), [pytest.param(t, f, id=f"{name_of(t)}-{f}") for t in TABLES for f in t.fields]
)
def test_it_acts(table, field, given):
    table.check(field, given)


@pytest.mark.parametrize("table", TABLES, ids=name_of)
def test_every_field_has_an_entry(table):
    assert table.gaps() == set(), "tests/field_tables: a field without an entry, or an entry without a field"


def test_every_registered_type_has_a_table():
    configs = {table.config for table in TABLES}
    for name, cls in registered.items():
        if cls.__module__.startswith("latent_prior."):
            config = getattr(cls, "Config", None) or getattr(sys.modules[cls.__module__], f"{cls.__name__}Config", None)
            assert config in configs, f"{name}: tests/field_tables has no table for {config}"


def test_the_guidance_offers_every_option_under_its_default():
    config = {field.name: field.default for field in dataclasses.fields(guidance.LatentPriorGuidance.Config)}
    assert {field.name: field.default for field in dataclasses.fields(PriorOptions)}.items() <= config.items()
    efficiency = {
        field.name: field.default for field in dataclasses.fields(Efficiency) if field.name.startswith("enable")
    }
    assert efficiency and efficiency.items() <= config.items()


@dataclasses.dataclass
class Example:
    scale: float = 1.0
    nobody_reads_this: int = 0
    only_read: bool = True


def see_example(settings, given):
    config = Example(**settings)
    if config.only_read:
        pass
    return {"scaled": torch.ones(2) * config.scale, "draws": torch.rand(1)}


def test_the_test_can_fail():
    table = Table(Example, see_example, {"scale": 2.0, "nobody_reads_this": 1, "only_read": False, "gone": 1})
    assert table.gaps() == {"gone"}
    table.check("scale", None)
    for field in ("nobody_reads_this", "only_read"):
        with pytest.raises(AssertionError, match=f"{field} does nothing"):
            table.check(field, None)
    with pytest.raises(AssertionError, match="scale acts"):
        Table(Example, see_example, {"scale": Idle(2.0, "")}).check("scale", None)
    with pytest.raises(BaseException, match="DID NOT RAISE"):
        Table(Example, see_example, {"scale": Refused(2.0, "scale")}).check("scale", None)
    with pytest.raises(AssertionError, match="from one look to the next"):
        Table(Example, lambda *_: object(), {"scale": To(2.0)}).check("scale", None)
    assert Table(Example, see_example, {"scale": 2.0}).gaps() == {"nobody_reads_this", "only_read"}


def test_what_counts_as_the_same():
    a = plain({"x": [torch.ones(2), 1, None], "y": "b"})
    assert same(a, plain({"x": [torch.ones(2), 1, None], "y": "b"}))
    for other in (
        {"x": [torch.ones(3), 1, None], "y": "b"},
        {"x": [torch.ones(2), 1.0, None], "y": "b"},
        {"x": a["x"]},
    ):
        assert not same(a, plain(other))
    assert not same(plain(torch.ones(2)), plain(torch.ones(2, dtype=torch.float64)))
