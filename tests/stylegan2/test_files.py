"""Files of StyleGAN2 generators: what was written is read, and what is no such generator is refused without running it."""

import argparse
import io
import os
import pickle
import pickletools
from collections import OrderedDict

import pytest
import torch
from latent_prior import cli
from latent_prior.stylegan2 import files as stylegan2_files
from latent_prior.stylegan2 import nvidia as stylegan2_nvidia
from latent_prior.stylegan2.files import load_generator, save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from latent_prior.stylegan2.pretrained import load_pretrained
from nvidia_pickles import Network, dumped, network, snapshot
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def toy():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        cfg = StyleGAN2Config.of_size(32, z_dim=16, w_dim=16, mapping_layers=2, base=256, most=16)
        generator = StyleGAN2(cfg).eval().requires_grad_(False)
        for name, value in generator.named_parameters():
            if "noise_strength" in name or name.endswith("bias"):
                value.add_(0.3 * torch.randn_like(value))
        generator.mapping.w_avg.normal_()
    return generator


def pictures(generator, truncation=0.7):
    z = torch.randn(3, generator.cfg.z_dim, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return generator(z, truncation)


def assert_same(found, wanted):
    """Every tensor to the bit, and the pictures to 1e-5 of their range."""
    assert found.cfg == wanted.cfg and not found.training
    torch.testing.assert_close(dict(found.state_dict()), dict(wanted.state_dict()), rtol=0, atol=0)
    expected = pictures(wanted)
    span = float(expected.max() - expected.min())
    torch.testing.assert_close(pictures(found), expected, rtol=0, atol=1e-5 * span)


def refusal(path):
    """The one line that a file is refused with."""
    with pytest.raises(ValueError) as caught:
        load_generator(path)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{path}: ")
    return message


def written(path, content):
    """`content` in a file: bytes as they are, a state dict by the suffix."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def test_the_fake_snapshot_names_what_nvidias_name(toy):
    found = {op[1].replace(" ", ".") for op in pickletools.genops(snapshot(toy, protocol=3)) if op[0].name == "GLOBAL"}
    assert found == {
        "torch_utils.persistence._reconstruct_persistent_obj",
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.storage._load_from_bytes",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "builtins.set",
        "dnnlib.util.EasyDict",
    }


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_round_trip_through_every_format(toy, tmp_path, protocol):
    read = load_generator(written(tmp_path / "n.pkl", snapshot(toy, protocol)))
    assert_same(read, toy)
    for name in ("ours.safetensors", "theirs.pt", "again.safetensors", "theirs.pth"):
        save_generator(read, tmp_path / name)
        read = load_generator(str(tmp_path / name))
        assert_same(read, toy)
    assert all(value.requires_grad for value in read.parameters())


def test_a_snapshot_of_a_gpu_is_read_without_one(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:1")
    data = snapshot(toy)
    assert b"cuda:1" in data
    assert_same(load_generator(written(tmp_path / "n.pkl", data)), toy)


def test_a_pickle_of_the_network_alone(toy, tmp_path):
    learned = {name for name, _ in toy.named_parameters()}
    root = network(toy.state_dict(), learned)
    root.meta["state"]["_parameters"]["nothing"] = None
    root.meta["state"]["_buffers"]["scratch"] = torch.ones(3)
    root.meta["state"]["_non_persistent_buffers_set"].add("scratch")
    assert_same(load_generator(written(tmp_path / "n.pkl", dumped(root))), toy)


def test_strided_parameters_are_read_as_they_look(toy, tmp_path):
    state = {
        name: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for name, v in toy.state_dict().items()
    }
    assert not state["synthesis.b8.conv0.weight"].is_contiguous()
    root = network(state, {name for name, _ in toy.named_parameters()})
    assert_same(load_generator(written(tmp_path / "n.pkl", dumped({"G_ema": root}))), toy)


def test_rosinalitys_names(toy, tmp_path):
    save_generator(toy, tmp_path / "g.pt")
    content, ours = torch.load(tmp_path / "g.pt", weights_only=True), toy.state_dict()
    assert set(content) == {"g_ema", "latent_avg"}
    state = content["g_ema"]
    torch.testing.assert_close(content["latent_avg"], ours["mapping.w_avg"])
    same = {
        "style.1.weight": ours["mapping.fc0.weight"],
        "style.2.bias": ours["mapping.fc1.bias"],
        "input.input": ours["synthesis.b4.const"][None],
        "conv1.conv.weight": ours["synthesis.b4.conv1.weight"][None],
        "to_rgb1.conv.modulation.bias": ours["synthesis.b4.torgb.affine.bias"],
        "convs.2.conv.weight": ours["synthesis.b16.conv0.weight"][None],
        "convs.5.conv.modulation.weight": ours["synthesis.b32.conv1.affine.weight"],
        "convs.3.activate.bias": ours["synthesis.b16.conv1.bias"],
        "convs.0.noise.weight": ours["synthesis.b8.conv0.noise_strength"].reshape(1),
        "to_rgbs.1.bias": ours["synthesis.b16.torgb.bias"].reshape(1, 3, 1, 1),
        "noises.noise_0": ours["synthesis.b4.conv1.noise_const"][None, None],
        "noises.noise_3": ours["synthesis.b16.conv0.noise_const"][None, None],
        "noises.noise_6": ours["synthesis.b32.conv1.noise_const"][None, None],
        "convs.4.conv.blur.kernel": 4 * ours["synthesis.b32.conv0.resample_filter"],
        "to_rgbs.2.upsample.kernel": 4 * ours["synthesis.b32.resample_filter"],
    }
    for name, value in same.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0, msg=name)
    layers, rgbs, ups = 7, 4, 3
    assert len(state) == 2 * 2 + 1 + layers * 6 + rgbs * 4 + 2 * ups


def training_file(toy, tmp_path, **more):
    """What rosinality's train.py writes."""
    save_generator(toy, tmp_path / "converted.pt")
    g_ema = torch.load(tmp_path / "converted.pt", weights_only=True)["g_ema"]
    weight = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.Adam([weight], betas=(0.0, 0.99))
    weight.sum().backward()
    optimiser.step()
    other = {name: torch.zeros_like(value) for name, value in g_ema.items()}
    content = {"g": other, "d": {"final_linear.1.bias": torch.zeros(1)}, "g_ema": g_ema}
    content |= {"g_optim": optimiser.state_dict(), "d_optim": optimiser.state_dict(), "ada_aug_p": 0.1}
    return content | {"args": argparse.Namespace(path="lmdb", size=32, wandb=False, lr=0.002, ckpt=None)} | more


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_file(toy, tmp_path, zipped):
    path = tmp_path / "550000.pt"
    torch.save(training_file(toy, tmp_path), path, _use_new_zipfile_serialization=zipped)
    read = load_generator(path)
    with torch.no_grad():
        w = toy.mapping(torch.randn(50_000, 16, generator=torch.Generator().manual_seed(9)))
    assert ((read.mapping.w_avg - w.mean(0)).abs() < 4.5 * w.std(0) * (1 / 4096 + 1 / 50_000) ** 0.5).all()
    read.mapping.w_avg.copy_(toy.mapping.w_avg)
    assert_same(read, toy)


def test_bare_state_dicts_and_shapes_of_the_mean(toy, tmp_path):
    content = training_file(toy, tmp_path)
    average = toy.mapping.w_avg
    for bare in (
        content["g_ema"] | {"latent_avg": average},
        OrderedDict(g_ema=content["g_ema"], latent_avg=average[None]),
    ):
        assert_same(load_generator(written(tmp_path / "bare.pt", bare)), toy)
    bad = written(tmp_path / "bad.pt", {"g_ema": content["g_ema"], "latent_avg": average.expand(8, -1)})
    assert "latent_avg has shape [8, 16]" in refusal(bad)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pkl"])
def test_half_precision_becomes_single(toy, tmp_path, suffix):
    half = {name: value.half() for name, value in toy.state_dict().items()}
    path = tmp_path / f"half.{suffix}"
    if suffix == "safetensors":
        save_file(half, path)
    elif suffix == "pkl":
        path.write_bytes(dumped({"G_ema": network(half, {name for name, _ in toy.named_parameters()})}))
    else:
        content = training_file(toy, tmp_path, latent_avg=half["mapping.w_avg"])
        torch.save(content | {"g_ema": {name: value.half() for name, value in content["g_ema"].items()}}, path)
    for name, value in load_generator(path).state_dict().items():
        torch.testing.assert_close(value, half[name].float(), rtol=0, atol=0, msg=name)


class Calls:
    """Pickled as a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def stored(payload):
    """A call of torch's reader of storages, as tensors in pickles have it, on bytes that are no storage."""
    return Calls(torch.storage._load_from_bytes, payload)


def old_torch_file(content):
    head = (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True})
    return b"".join(pickle.dumps(part, protocol=2) for part in (*head, content, []))


@pytest.mark.parametrize("place", ["whole", "G_ema", "hook", "storage", "state", "pt", "args"])
@pytest.mark.parametrize("function", ["system", "eval"])
def test_nothing_in_a_file_is_run(toy, tmp_path, place, function):
    marker = tmp_path / "marker"
    if function == "system":
        evil, named = Calls(os.system, f"echo > {marker}"), f"{os.name}.system"
    else:
        evil, named = Calls(eval, f"open({str(marker)!r}, 'w')"), "eval"
    root = network(toy.state_dict(), {name for name, _ in toy.named_parameters()})
    state = root.meta["state"]
    path = tmp_path / "evil.pkl"
    if place == "whole":
        path.write_bytes(pickle.dumps(evil))
    elif place == "G_ema":
        path.write_bytes(dumped({"G_ema": evil, "G": root}))
    elif place == "hook":
        state["_backward_hooks"]["x"] = evil
        path.write_bytes(dumped({"G_ema": root}))
    elif place == "storage":
        inner = old_torch_file(evil)
        tensor = Calls(torch._utils._rebuild_tensor_v2, stored(inner), 0, (1,), (1,), False, OrderedDict())
        state["_parameters"]["x"] = tensor
        path.write_bytes(dumped({"G_ema": root}))
        torch.load(io.BytesIO(inner), weights_only=False)
    elif place == "state":
        root.meta["state"] = evil
        path.write_bytes(dumped({"G_ema": root}))
    else:
        path = tmp_path / "evil.pt"
        content = training_file(toy, tmp_path)
        torch.save(content | ({"args": argparse.Namespace(x=evil)} if place == "args" else {"g_ema": evil}), path)
    if place == "whole":
        pickle.loads(path.read_bytes())
    if place in ("whole", "storage"):  # so that a payload that does nothing cannot pass for one that was refused
        assert marker.exists()
        marker.unlink()
    message = refusal(path)
    assert named in message
    assert not marker.exists()


def test_persistent_ids_other_versions_and_other_objects(toy, tmp_path):
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer)
    pickler.persistent_id = lambda thing: "id" if thing == "ask" else None
    pickler.dump(["ask"])
    assert "persistent ids" in refusal(written(tmp_path / "p.pkl", buffer.getvalue()))
    assert "version 5" in refusal(written(tmp_path / "v.pkl", dumped(Network(version=5))))
    assert "found G, D" in refusal(written(tmp_path / "g.pkl", dumped({"G": Network(), "D": None})))
    assert "found list" in refusal(written(tmp_path / "l.pkl", dumped([1])))
    loop = Network()
    loop.meta["state"]["_modules"].update(one=Network(), two=Network())
    inner = loop.meta["state"]["_modules"]["one"].meta["state"]["_modules"]
    inner["three"] = loop.meta["state"]["_modules"]["two"]
    assert "occurs twice" in refusal(written(tmp_path / "o.pkl", dumped(loop)))


@pytest.mark.parametrize("suffix", ["pkl", "pt", "safetensors"])
@pytest.mark.parametrize("part", [0, 0.01, 0.5, 0.98])
def test_files_cut_short(toy, tmp_path, suffix, part):
    path = tmp_path / f"g.{suffix}"
    if suffix == "pkl":
        path.write_bytes(snapshot(toy))
    else:
        save_generator(toy, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    assert "truncated" in refusal(path)


def test_a_file_that_claims_to_be_huge(toy, tmp_path, monkeypatch):
    learned = {name for name, _ in toy.named_parameters()}
    view = toy.state_dict() | {"mapping.fc0.weight": torch.zeros(1).expand(16, 16)}
    path = written(tmp_path / "view.pkl", dumped({"G_ema": network(view, learned)}))
    assert "mapping.fc0.weight cannot be read: shape [16, 16] of 1 numbers" in refusal(path)

    state = {name: value.clone() for name, value in toy.state_dict().items()}
    state |= {"mapping.fc0.weight": torch.zeros(1, 2**40, dtype=torch.half, device="meta")}
    assert "mapping.fc0.weight is torch.float16" in _error(state)
    state |= {"mapping.fc0.weight": torch.zeros(1).expand(16, 2**40)}
    assert "more than the" in _error(state)
    state |= {"mapping.fc0.weight": torch.ones(16, 1 << 15), "mapping.fc1.weight": torch.ones(1 << 15, 16)}
    assert "more than the" in _error(state)  # what these two call for, which is 2^30 numbers

    path = written(tmp_path / "g.pkl", snapshot(toy))
    monkeypatch.setattr(stylegan2_nvidia, "MAX_BYTES", 10_000)
    assert "bytes are more than the 10000" in refusal(path)
    one = torch.ones(500)
    again = Network({f"p{i}": one for i in range(20)})  # 20 tensors, and the bytes of one
    path = written(tmp_path / "again.pkl", dumped(again))
    assert path.stat().st_size < 10_000
    assert f"its tensors have more than the {2 * path.stat().st_size} bytes" in refusal(path)


def _error(state):
    with pytest.raises(ValueError) as caught:
        stylegan2_files.generator_of(state)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"synthesis.L0_36_512.weight": (4, 4, 3, 3)}, "StyleGAN3"),
        ({"synthesis.input.freqs": (4, 2)}, "StyleGAN3"),
        ({"progression.0.conv1.conv.weight": (4, 4, 3, 3)}, "StyleGAN1 or a progressive GAN"),
        ({"mapping.embed.weight": (16, 10), "mapping.fc0.weight": (16, 32)}, "conditional StyleGAN2"),
        ({"synthesis.b8.skip.weight": (16, 16, 1, 1)}, "'resnet'"),
        ({"synthesis.b16.torgb.weight": None}, "'orig' (no synthesis.b16.torgb)"),
        ({"synthesis.b8.torgb.weight": (1, 16, 1, 1)}, "1 channels, expected the 3 of RGB"),
        ({"b8.conv0.weight": (16, 16, 3, 3)}, "discriminator"),
        ({"betas": (4,)}, "unknown tensor betas"),
        ({"synthesis.b8.conv1.extra": (4,)}, "unknown synthesis.b8.conv1.extra"),
        ({"synthesis.b8.conv1.bias": None}, "missing synthesis.b8.conv1.bias"),
        ({"synthesis.b8.conv1.bias": (3,)}, "synthesis.b8.conv1.bias has shape [3], expected [16]"),
        ({"synthesis.b8.conv1.weight": ()}, "synthesis.b8.conv1.weight is torch.float32 of shape []"),
        ({"synthesis.b8.conv1.weight": None}, "resolutions [4, 16, 32]"),
    ],
)
def test_other_networks_are_refused_by_name(toy, tmp_path, changes, message):
    state = {name: value for name, value in toy.state_dict().items() if changes.get(name, ()) is not None}
    state |= {name: torch.ones(shape) for name, shape in changes.items() if shape is not None}
    assert message in refusal(written(tmp_path / "g.safetensors", state))
    assert message in refusal(written(tmp_path / "g.pkl", dumped({"G_ema": network(state, set(state))})))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"style.1.weight": (16, 32)}, "conditional StyleGAN2"),
        ({"final_linear.0.weight": (16, 32)}, "discriminator"),
        ({"generator.progression.0.conv1.weight": (4, 4)}, "StyleGAN1 or a progressive GAN"),
        ({"mapping.fc0.weight": (16, 16)}, "NVIDIA's names"),
        ({"convs.1.activate.bias": None}, "missing convs.1.activate.bias; unknown nothing"),
        ({"style.1.weight": None}, "missing style.1.weight"),
        ({"convs.1.activate.bias": (3,)}, "synthesis.b8.conv1.bias has shape [3], expected [16]"),
    ],
)
def test_other_torch_files_are_refused_by_name(toy, tmp_path, changes, message):
    state = training_file(toy, tmp_path)["g_ema"]
    state = {name: value for name, value in state.items() if changes.get(name, ()) is not None}
    state |= {name: torch.ones(shape) for name, shape in changes.items() if shape is not None}
    assert message in refusal(written(tmp_path / "g.pt", {"g_ema": state}))


@pytest.mark.parametrize("content", [[1], {"g_ema": 3}, {"g_ema": {"style.1.weight": 1}}, {}, {3: torch.ones(2)}])
def test_torch_files_that_hold_no_state_dict(tmp_path, content):
    assert "expected" in refusal(written(tmp_path / "g.pt", content))


def test_buffers_that_may_be_missing(toy, tmp_path):
    state = {name: value for name, value in toy.state_dict().items() if not name.endswith("resample_filter")}
    path = tmp_path / "g.safetensors"
    assert_same(load_generator(written(path, state)), toy)

    name = "synthesis.b16.conv0.noise_const"
    kept = {key: value for key, value in state.items() if key != name}
    assert f"{name} is missing, and its strength is not 0" in refusal(written(path, kept))
    kept["synthesis.b16.conv0.noise_strength"] = torch.zeros([])
    once, twice = load_generator(written(path, kept)), load_generator(path)
    torch.testing.assert_close(dict(once.state_dict()), dict(twice.state_dict()), rtol=0, atol=0)
    assert float(once.state_dict()[name].std()) == pytest.approx(1, abs=0.2)  # 256 draws
    quiet = load_generator(written(path, state | {"synthesis.b16.conv0.noise_strength": torch.zeros([])}))
    torch.testing.assert_close(pictures(once), pictures(quiet))


def test_files_that_are_none(tmp_path):
    assert "there is no such file" in refusal(tmp_path / "nothing.pkl")
    assert "'.ckpt' is not a StyleGAN2 format" in refusal(tmp_path / "g.ckpt")
    (tmp_path / "folder.pt").mkdir()
    assert "there is no such file" in refusal(tmp_path / "folder.pt")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_failed_save_leaves_the_old_file(toy, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"g.{suffix}"
    save_generator(toy, path)

    def half_written(state, target, **_):
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(stylegan2_files.torch, "save", half_written)
    monkeypatch.setattr(stylegan2_files, "save_file", half_written)
    with pytest.raises(ValueError, match=f"g.{suffix}: not written: no space left on device"):
        save_generator(toy, path)
    monkeypatch.undo()
    assert_same(load_generator(path), toy)
    assert list(tmp_path.iterdir()) == [path]


def test_rosinalitys_format_has_one_size_for_z_and_w(tmp_path):
    generator = StyleGAN2(StyleGAN2Config.of_size(8, z_dim=32, w_dim=16, mapping_layers=2, base=64)).eval()
    with pytest.raises(ValueError, match="g.pt: not written: .* here they are 32 and 16"):
        save_generator(generator, tmp_path / "g.pt")
    assert not list(tmp_path.iterdir())
    save_generator(generator, tmp_path / "g.safetensors")
    assert_same(load_generator(tmp_path / "g.safetensors"), generator)


def test_convert_stylegan(toy, tmp_path, capsys):
    source, target = written(tmp_path / "n.pkl", snapshot(toy)), tmp_path / "ours.safetensors"
    assert cli.main(["convert-stylegan", str(source), str(target)]) == 0
    expected = f"{source}: 32 px, z 16, w 16, 2 mapping layers, channels 16-16-16-8; written to {target}\n"
    assert capsys.readouterr().out == expected
    assert_same(load_generator(target), toy)
    assert set(load_file(target)) == set(toy.state_dict())

    before = target.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(target)
    for given, out, message in (
        (target, target, "this is the input file"),
        (target, tmp_path / "link.safetensors", "this is the input file"),
        (source, tmp_path / "n2.pkl", "'.pkl' cannot be written"),
        (tmp_path / "absent.pkl", target, "there is no such file"),
        (source, tmp_path / "absent" / "g.pt", "not written"),
    ):
        assert cli.main(["convert-stylegan", str(given), str(out)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.safetensors", "n.pkl", "ours.safetensors"]


def test_home_is_understood_in_the_path_of_a_pretrained_generator(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    generator = StyleGAN2(StyleGAN2Config.of_size(8, z_dim=4, w_dim=4, mapping_layers=1, base=32))
    save_generator(generator, tmp_path / "mine.safetensors")
    assert load_pretrained("~/mine.safetensors").cfg == generator.cfg


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_written_generator_has_an_ordinary_mode(toy, tmp_path, suffix):
    before = os.umask(0o022)
    try:
        save_generator(toy, tmp_path / f"generator{suffix}")
    finally:
        os.umask(before)
    assert (tmp_path / f"generator{suffix}").stat().st_mode & 0o777 == 0o644


def test_files_below_home_are_found(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_generator(toy, "~/generator.safetensors")
    assert (tmp_path / "generator.safetensors").is_file()
    assert load_pretrained("~/generator.safetensors").cfg == toy.cfg
    stylegan2_files.convert("~/generator.safetensors", "~/generator.pt")
    assert load_generator("~/generator.pt").cfg == toy.cfg
