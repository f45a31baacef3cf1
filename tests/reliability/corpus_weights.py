"""Hostile files of weights: pickles, torch's files, safetensors, and the folders of JSON around them."""

import io
import json
import os
import pickle
import random
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from nvidia_pickles import snapshot
from reliability.corpus import Case, damaged
from reliability.pickle_attacks import bombs, called, calls, integer, mapping, named, text
from safetensors.torch import save
from tiny_checkpoints import GEOMETRIES, write_checkpoint, write_clip

# Readers: what a user's flag or config key reaches. --------------------------------------------------------------------


def read_generator(path: Path) -> None:
    """system.pretrained_generator, `latent-prior convert-stylegan`."""
    from latent_prior.stylegan2.pretrained import load_pretrained

    load_pretrained(str(path))


def read_run_checkpoint(path: Path) -> None:
    """`latent-prior resume` passes over what it cannot read; resume= and system.weights refuse it."""
    from latent_prior import host
    from latent_prior.runs import checkpoint
    from latent_prior.runs.folder import step_of

    step_of(path)
    checkpoint.read(str(path))
    host.load_module_weights(str(path))


def read_prior(path: Path, **adapters: list[str]) -> None:
    """system.guidance.pretrained_model_name_or_path, and the prompt processor's."""
    from latent_prior.models.latent_prior import LatentPrior

    prior = LatentPrior.from_pretrained(str(path), device="cpu", **adapters)
    prior.text_encoder(["a red mug"])


def read_words(path: Path) -> None:
    """system.guidance.textual_inversion."""
    read_prior(prior_folder(), textual_inversion=[str(path)])


def read_lora(path: Path) -> None:
    """system.guidance.lora."""
    read_prior(prior_folder(), lora=[str(path)])


def read_clip(path: Path) -> None:
    """clip_name_or_path, --clip, --judge."""
    from latent_prior.models.clip import Clip

    clip = Clip.from_pretrained(str(path))
    clip.embed_texts(["a cat"])
    clip.embed_images(torch.rand(1, 3, 24, 24))


READERS: dict[str, Callable[[Path], None]] = {
    "generator": read_generator,
    "checkpoint": read_run_checkpoint,
    "prior": read_prior,
    "words": read_words,
    "lora": read_lora,
    "clip": read_clip,
}

# Valid files. ----------------------------------------------------------------------------------------------------------


@cache
def shared() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="valid")


def prior_folder() -> Path:
    """A valid prior; children find the one that their parent wrote."""
    folder = Path(os.environ.setdefault("VALID_WEIGHTS", shared().name)) / "prior"
    return folder if folder.is_dir() else write_checkpoint(folder, GEOMETRIES["pocket"])


def clip_folder() -> Path:
    folder = Path(os.environ.setdefault("VALID_WEIGHTS", shared().name)) / "clip"
    return folder if folder.is_dir() else write_clip(folder)


@cache
def generator() -> Any:
    from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config

    torch.manual_seed(0)
    return StyleGAN2(StyleGAN2Config.of_size(32, z_dim=16, w_dim=16, mapping_layers=2, base=256, most=16))


def saved(content: Any, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@cache
def run_checkpoint() -> bytes:
    model = torch.nn.Linear(4, 3)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(4)).sum().backward()
    optimiser.step()
    return saved({**LIGHTNING, "state_dict": model.state_dict(), "optimizer_states": [optimiser.state_dict()]})


@cache
def converted(zipped: bool = True) -> bytes:
    from latent_prior.stylegan2.rosinality import to_rosinality

    return saved(to_rosinality({name: value.detach() for name, value in generator().state_dict().items()}), zipped)


LIGHTNING = {"epoch": 0, "global_step": 3, "lr_schedulers": [], "loops": {}, "pytorch-lightning_version": "2.6.6"}
WORD = {"<blob>": torch.ones(2, 32)}
LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
LORA = {f"{LAYER}.lora_A.weight": torch.ones(2, 32), f"{LAYER}.lora_B.weight": torch.ones(16, 2)}

CANARY = Path(tempfile.gettempdir()) / f"canary-{os.getpid()}"  # made by any code that runs
# Pickles in each place that holds one. ---------------------------------------------------------------------------------


def archive(data: bytes, *more: tuple[str, bytes], compressed: tuple[str, ...] = (), root: str = "x") -> bytes:
    """A zip of torch's, with these entries besides its pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, content in [("data.pkl", data), ("version", b"3\n"), *more]:
            kind = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            target.writestr(f"{root}/{name}", content, kind)
    return file.getvalue()


def sequence(content: bytes, keys: Any = (), tail: bytes = b"", system: Any = None) -> bytes:
    """A file of torch's older format."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True} if system is None else system)
    data = b"".join(pickle.dumps(part, protocol=2) for part in head) + content
    return data + (keys if isinstance(keys, bytes) else pickle.dumps(list(keys), protocol=2)) + tail


def whole(stream: bytes) -> bytes:
    return b"\x80\x02" + stream + b"."


def in_state(stream: bytes) -> bytes:
    """The stream among the values of a run's checkpoint."""
    return whole(mapping((text("state_dict"), b"}"), (text("global_step"), b"K\x01"), (text("epoch"), stream)))


PLACES: dict[str, tuple[str, str, Callable[[bytes], bytes]]] = {  # name: reader, file, its bytes
    "nvidia": ("generator", "g.pkl", whole),
    "rosinality": ("generator", "g.pt", lambda stream: archive(whole(stream))),
    "older": ("generator", "g.pth", lambda stream: sequence(whole(stream))),
    "run": ("checkpoint", "last.ckpt", lambda stream: archive(in_state(stream))),
    "words": ("words", "learned_embeds.bin", lambda stream: archive(whole(stream))),
    "clip": ("clip", "clip/pytorch_model.bin", lambda stream: archive(whole(stream))),
}


def pickled() -> Iterator[Case]:
    draw = random.Random(1)
    for kind, attacks in (("call", calls(CANARY)), ("bomb", bombs())):
        for name, stream in attacks.items():
            # everywhere would be 600 files: in two places each, and a run's checkpoint for all
            for place in ["run", *draw.sample(sorted(PLACES.keys() - {"run"}), 2)]:
                reader, file, contained = PLACES[place]
                content = lambda c=contained, s=stream: c(s)  # noqa: E731
                number = name == "integer" and place == "run"  # an epoch
                yield Case(f"{kind}-{name}-{place}", reader, partial(_write, file, content), readable=number)


def _write(name: str, content: Callable[[], bytes], folder: Path) -> Path:
    """The file, and for a folder the folder around it, completed with valid files."""
    path = folder / name
    if "/" in name:
        kind, _, inner = name.partition("/")
        return _folder(kind, {inner: content()}, folder)
    path.write_bytes(content())
    return path


def _folder(kind: str, changes: dict[str, bytes | None], folder: Path) -> Path:
    """A copy of a valid folder in which some files have other bytes, or are missing."""
    valid = {"clip": clip_folder, "prior": prior_folder}[kind]()
    target = folder / kind
    for path in (path for path in valid.rglob("*") if path.is_file()):
        name = str(path.relative_to(valid))
        if name in changes or (name == "model.safetensors" and "pytorch_model.bin" in changes):
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to(path)
    for name, content in changes.items():
        if content is not None:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
    return target


# Tensors and archives. -------------------------------------------------------------------------------------------------


def stored(count: int, key: str = "0", kind: str = "Float") -> bytes:
    return b"(" + text("storage") + named(f"torch.{kind}Storage") + text(key) + text("cpu") + integer(count) + b"tQ"


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def tensor(storage: bytes, offset: int = 0, size: tuple = (2,), stride: tuple = (1,)) -> bytes:
    tail = (b"\x89", called("collections.OrderedDict"))
    return called("torch._utils._rebuild_tensor_v2", storage, integer(offset), numbers(*size), numbers(*stride), *tail)


def odd_tensors() -> dict[str, bytes]:
    """What a pickle says of a tensor whose storage has 8 bytes."""
    two = stored(2)
    shared = two + b"q\x00"
    return {
        "stride_0": tensor(two, 0, (1 << 20, 1 << 20), (0, 0)),
        "stride_0_modest": tensor(two, 0, (1 << 28,), (0,)),
        "stride_negative": tensor(two, 1, (2,), (-1,)),
        "stride_huge": tensor(two, 0, (2,), (1 << 62,)),
        "size_negative": tensor(two, 0, (-2,), (1,)),
        "size_overflow": tensor(two, 0, (1 << 40, 1 << 40), (0, 0)),
        "size_beyond": tensor(two, 0, (3,), (1,)),
        "size_2_64": tensor(two, 0, (1 << 64,), (0,)),
        "size_text": called("torch._utils._rebuild_tensor_v2", two, b"K\x00", text("ab"), text("ab"), b"\x89", b"N"),
        "size_float": tensor(two)[:-1] + b"R" + b"0G" + struct.pack(">d", 1e300),
        "dimensions": tensor(two, 0, (1,) * 500, (1,) * 500),
        "offset_beyond": tensor(two, 2, (1,), (1,)),
        "offset_negative": tensor(two, -1, (1,), (1,)),
        "offset_huge": tensor(two, 1 << 62, (1,), (1,)),
        "ranks_differ": tensor(two, 0, (2, 1), (1,)),
        "count_huge": tensor(stored(1 << 40), 0, (2,), (1,)),
        "count_negative": tensor(stored(-2)),
        "count_text": tensor(b"(" + text("storage") + named("torch.FloatStorage") + text("0") * 3 + b"tQ"),
        "type_wider": tensor(stored(2, kind="Double")),
        "type_none": tensor(b"(" + text("storage") + b"N" + text("0") + text("cpu") + b"K\x02tQ"),
        "key_missing": tensor(stored(2, "7")),
        "key_outside": tensor(stored(2, "../../../etc/passwd")),
        "key_long": tensor(stored(2, "k" * 100_000)),
        "not_a_storage": tensor(text("storage")),
        "module_id": b"(" + text("module") + named("collections.OrderedDict") + text("/etc/passwd") + text("x") + b"tQ",
        "often_expanded": b"](" + shared + tensor(b"h\x00", 0, (1 << 22,), (0,)) * 2000 + b"e",
        "sparse": called(
            "torch._utils._rebuild_sparse_tensor",
            called("torch.serialization._get_layout", text("torch.sparse_coo")),
            b"(" + tensor(two) + tensor(two) + numbers(1 << 40, 1 << 40) + b"t",
        ),
        "quantised": called(
            "torch._utils._rebuild_qtensor",
            *(two, b"K\x00", numbers(1 << 40), numbers(0), b"(" + named("torch.per_tensor_affine") + b"K\x01K\x00t"),
            *(b"\x89", b"N"),
        ),
        "meta": called(
            "torch._utils._rebuild_meta_tensor_no_storage",
            *(named("torch.float32"), numbers(1 << 30, 1 << 30), numbers(1, 1), b"\x89"),
        ),
        "nested": called("torch._utils._rebuild_nested_tensor", tensor(two), tensor(two), tensor(two), tensor(two)),
        "subclass": called(
            "torch._utils._rebuild_wrapper_subclass",
            *(
                named("torch.Tensor"),
                named("torch.float32"),
                numbers(1 << 40),
                numbers(1),
                b"K\x00",
                b"N",
                b"N",
                b"\x89",
            ),
        ),
        "from_numpy": called(
            "torch._utils._rebuild_device_tensor_from_numpy", b"]", named("torch.float32"), text("cpu"), b"\x89"
        ),
        "from_type": called(
            "torch._tensor._rebuild_from_type_v2", named("torch.Tensor"), named("torch.Size"), b")", b"}"
        ),
        "built": named("torch.Tensor") + b")R(" + two + b"K\x00" + numbers(1 << 40) + numbers(0) + b"tb",
        "new_tensor": called("torch.Tensor", integer(1 << 34)),
        "new_storage": called("torch.storage.UntypedStorage", integer(1 << 36)),
        "new_float_storage": called("torch.FloatStorage", integer(1 << 36)),
        "parameter_of_text": called("torch._utils._rebuild_parameter", text("x"), b"\x88", b"N"),
        "device": called("torch.device", text("cuda:" + "9" * 50)),
    }


def many_entries(count: int) -> bytes:
    return archive(whole(b"N"), *((f"data/{i}", b"") for i in range(count)))


def overlapping() -> bytes:
    """A thousand storages that are the same 4 MB: the directory names one entry again and again."""
    names = [str(i) for i in range(1000)]
    stream = b"](" + b"".join(tensor(stored(1 << 20, name), 0, (1 << 20,), (1,)) for name in names) + b"e"
    data = archive(whole(stream), ("data/0", bytes(1 << 22)))
    start = data.rindex(b"PK\1\2")  # of the storage's record, the last
    end = data.index(b"PK\5\6")
    record, head, closing = data[start:end], data[: data.index(b"PK\1\2")], data[end:]
    directory = data[data.index(b"PK\1\2") : start]
    for name in names:
        full = f"x/data/{name}".encode()
        directory += record[:28] + struct.pack("<H", len(full)) + record[30:46] + full
    sizes = struct.pack("<HHII", 1002, 1002, len(directory), len(head))
    return head + directory + closing[:8] + sizes + closing[20:]


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data and len(old) == len(new)
    return data.replace(old, new)


def archives() -> dict[str, Callable[[], bytes]]:
    good = whole(mapping((text("a"), tensor(stored(2)))))
    eight = ("data/0", b"\0" * 8)
    return {
        "inflated_pickle": lambda: archive(b"N0" * 100_000_000, compressed=("data.pkl",)),
        "inflated_text": lambda: archive(whole(text("x" * 200_000_000)), compressed=("data.pkl",)),
        "inflated_storage": lambda: archive(
            whole(tensor(stored(1 << 28), 0, (1 << 28,), (1,))), ("data/0", bytes(1 << 30)), compressed=("data/0",)
        ),
        "overlapping": overlapping,
        "many_entries": lambda: many_entries(60_000),
        "two_pickles": lambda: archive(good, ("y/data.pkl", good), eight),
        "no_pickle": lambda: archive(good, eight).replace(b"data.pkl", b"atad.pkl"),
        "no_storage": lambda: archive(good),
        "short_storage": lambda: archive(good, ("data/0", b"\0" * 4)),
        "long_storage": lambda: archive(good, ("data/0", bytes(400))),
        "duplicate": lambda: archive(good, eight, eight),
        "encrypted": lambda: patched(
            archive(good, eight), b"PK\1\2\x14\x03\x14\x00\x00\x00", b"PK\1\2\x14\x03\x14\x00\x01\x00"
        ),
        "big_endian": lambda: archive(good, eight, ("byteorder", b"big")),
        "torchscript": lambda: archive(good, eight, ("constants.pkl", whole(b")")), ("code/a.py", b"import os")),
        "directory_huge": lambda: archive(good, eight)[:-10] + struct.pack("<IIH", 0xFFFFFFF0, 0, 0),
        "directory_empty": lambda: b"PK\3\4" + bytes(200) + b"PK\5\6" + bytes(18),
        "only_end": lambda: b"PK\5\6" + bytes(18),
        "long_root": lambda: archive(good, eight, root="r" * 60_000),
        "odd_root": lambda: archive(good, eight, root="../../../../tmp/\x1b[2J"),
        "comment": lambda: archive(good, eight)[:-2] + struct.pack("<H", 60_000) + b"PK\5\6" * 15_000,
        "entry_size": lambda: _resized(archive(good, eight), 1 << 31),
        "tar": lambda: b"storages" + bytes(92) + b"0000644" + bytes(1000) + b"ustar\x0000" + bytes(10_000),
    }


def _resized(data: bytes, size: int) -> bytes:
    """The archive with another length of its last entry."""
    at = data.rindex(b"PK\1\2") + 20
    return data[:at] + struct.pack("<II", size, size) + data[at + 8 :]


def sequences() -> dict[str, Callable[[], bytes]]:
    good = whole(mapping((text("a"), tensor(stored(2)))))
    count = struct.pack("<q", 2)
    return {
        "keys_missing": lambda: sequence(good, [], count + bytes(8)),
        "keys_unknown": lambda: sequence(good, ["1"], count + bytes(8)),
        "keys_bomb": lambda: sequence(good, whole(bombs()["list"]), count + bytes(8)),
        "keys_key_bomb": lambda: sequence(good, whole(b"](" + bombs()["value"] + b"e"), count + bytes(8)),
        "keys_text": lambda: sequence(good, whole(text("0")), count),
        "count_differs": lambda: sequence(good, ["0"], struct.pack("<q", 1 << 40) + bytes(8)),
        "count_negative": lambda: sequence(good, ["0"], struct.pack("<q", -1) + bytes(8)),
        "data_missing": lambda: sequence(good, ["0"], count + bytes(3)),
        "big_endian": lambda: sequence(good, ["0"], count + bytes(8), {"little_endian": False}),
        "system_list": lambda: sequence(good, ["0"], count + bytes(8), []),
        "storage_view": lambda: sequence(
            whole(stored(2)[:-2] + b"(" + text("1") + b"K\x00" + integer(1 << 40) + b"ttQ"), ["0"], count + bytes(8)
        ),
        "declared": lambda: sequence(whole(tensor(stored(1 << 36), 0, (1,), (1,))), ["0"], struct.pack("<q", 1 << 36)),
        "often_declared": lambda: sequence(
            whole(b"](" + b"".join(stored(1 << 24, str(i)) for i in range(500)) + b"e"),
            map(str, range(500)),
            bytes(1 << 26),
        ),
        "magic": lambda: whole(integer(0x1950A86A20F9469CFC6D)) + whole(b"M\xe9\x03") + whole(b"}") + good,
        "magic_bomb": lambda: whole(bombs()["value"]) * 5,
    }


def torch_files() -> Iterator[Case]:
    draw = random.Random(2)
    places = ["rosinality", "run", "words", "clip"]
    for i, (name, stream) in enumerate(odd_tensors().items()):
        for place in ("run", places[i % 4] if i % 4 != 1 else "words"):
            reader, file, _ = PLACES[place]
            content = whole(mapping((text("state_dict"), mapping((text("w"), stream))), *COUNTS, (text("x"), stream)))
            yield Case(
                f"tensor-{name}-{place}",
                reader,
                partial(_write, file, lambda c=content: archive(c, ("data/0", bytes(8)))),
            )
    for name, content in archives().items():
        for place in draw.sample(places, 2):
            yield Case(f"zip-{name}-{place}", PLACES[place][0], partial(_write, PLACES[place][1], content))
    for name, content in sequences().items():
        place = draw.choice(places)
        yield Case(f"sequence-{name}-{place}", PLACES[place][0], partial(_write, PLACES[place][1], content))
    valid = {
        ("generator", "g.pkl"): lambda: snapshot(generator()),
        ("generator", "g.pt"): converted,
        ("generator", "g.pth"): lambda: converted(zipped=False),
        ("generator", "g.safetensors"): lambda: save(generator().state_dict()),
        ("checkpoint", "last.ckpt"): run_checkpoint,
        ("words", "word.safetensors"): lambda: save(WORD),
        ("words", "learned_embeds.bin"): lambda: saved(WORD, zipped=False),
        ("lora", "lora.safetensors"): lambda: save(LORA),
    }
    for seed, ((reader, file), content) in enumerate(valid.items()):
        for name, data in damaged(content(), seed, cuts=4, flips=6):
            yield Case(f"{file}-{name}", reader, partial(_write, file, lambda d=data: d), readable=True)


COUNTS = ((text("epoch"), b"K\x00"), (text("global_step"), b"K\x01"))

# Safetensors. ----------------------------------------------------------------------------------------------------------


def tensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + data


def entry(shape: list, start: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def safetensors_attacks() -> dict[str, Callable[[], bytes]]:
    one = {"a": entry([2], 0, 8)}
    return {
        "empty": lambda: b"",
        "no_header": lambda: tensors(b"", length=0),
        "header_huge": lambda: tensors(one, bytes(8), length=1 << 63),
        "header_beyond": lambda: tensors(one, bytes(8), length=1 << 30),
        "header_spaces": lambda: tensors(b"{" + b" " * 90_000_000 + b"}"),
        "header_names": lambda: tensors({f"{i:040d}": entry([0], 0, 0) for i in range(400_000)}),
        "header_deep": lambda: tensors(b'{"a":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
        "header_list": lambda: tensors([]),
        "header_binary": lambda: tensors(b"\xff\xfe" * 100),
        "metadata_number": lambda: tensors({"__metadata__": 7, **one}, bytes(8)),
        "overlap": lambda: tensors({**one, "b": entry([2], 4, 12)}, bytes(12)),
        "same_bytes": lambda: tensors({f"{i}": entry([2], 0, 8) for i in range(1000)}, bytes(8)),
        "gap": lambda: tensors({**one, "b": entry([2], 100, 108)}, bytes(108)),
        "beyond": lambda: tensors({"a": entry([2], 0, 1 << 40)}, bytes(8)),
        "negative": lambda: tensors({"a": entry([2], -8, 0)}, bytes(8)),
        "reversed": lambda: tensors({"a": entry([2], 8, 0)}, bytes(8)),
        "shape_overflow": lambda: tensors({"a": entry([1 << 40, 1 << 40], 0, 8)}, bytes(8)),
        "shape_negative": lambda: tensors({"a": entry([-2], 0, 8)}, bytes(8)),
        "shape_long": lambda: tensors({"a": entry([1] * 5000 + [2], 0, 8)}, bytes(8)),
        "dtype_unknown": lambda: tensors({"a": entry([2], 0, 8, "F99")}, bytes(8)),
        "dtype_rare": lambda: tensors({"a": entry([8], 0, 8, "F8_E8M0")}, bytes(8)),
        "dtype_bits": lambda: tensors({"a": entry([16], 0, 8, "F4")}, bytes(8)),
        "name_ansi": lambda: tensors({"\x1b[2J\x07": entry([2], 0, 8)}, bytes(8)),
        "name_long": lambda: tensors({"n" * 3_000_000: entry([2], 0, 8)}, bytes(8)),
        "zeros": lambda: tensors({"a": entry([0, 1 << 50], 0, 0)}),
        "scalar": lambda: tensors({"a": entry([], 0, 4)}, bytes(4)),
    }


SAFETENSORS_PLACES = [
    ("generator", "g.safetensors"),
    ("words", "word.safetensors"),
    ("lora", "lora.safetensors"),
    ("prior", "model.safetensors"),
    ("prior", "prior/unet/diffusion_pytorch_model.safetensors"),
    ("prior", "prior/text_encoder/model.safetensors"),
    ("clip", "clip/model.safetensors"),
]


def with_value(state: dict[str, torch.Tensor], value: float | None = None, dtype: torch.dtype | None = None) -> bytes:
    """Valid weights in which one number, or the type of one tensor, is another."""
    state = {name: tensor.detach().clone() for name, tensor in state.items()}
    name = next(name for name in state if state[name].ndim > 1)
    if value is not None:
        state[name].view(-1)[0] = value
    if dtype is not None:
        state[name] = state[name].to(dtype)
    return save(state)


def safetensors_files() -> Iterator[Case]:
    draw = random.Random(3)
    for i, (name, content) in enumerate(safetensors_attacks().items()):
        for place in {i % 7, draw.randrange(7)}:
            reader, file = SAFETENSORS_PLACES[place]
            label = f"safetensors-{name}-{file.split('/')[-1]}-{place}"
            yield Case(label, reader, partial(_write, file, content))
    states = {
        ("generator", "g.safetensors"): lambda: generator().state_dict(),
        ("words", "w.safetensors"): lambda: WORD,
    }
    states |= {("lora", "l.safetensors"): lambda: LORA}
    for (reader, file), state in states.items():
        for value in ("nan", "inf"):
            content = lambda s=state, v=value: with_value(s(), float(v))  # noqa: E731
            yield Case(f"{value}-{file}", reader, partial(_write, file, content))
        for dtype in (torch.int64, torch.bool, torch.complex64):
            content = lambda s=state, d=dtype: with_value(s(), dtype=d)  # noqa: E731
            yield Case(f"{dtype}-{file}", reader, partial(_write, file, content))


# Folders with JSON. ----------------------------------------------------------------------------------------------------

ODD_VALUES: dict[str, Any] = {
    "zero": 0,
    "negative": -1,
    "many": 100_000,
    "huge": 1 << 40,
    "overflow": 1 << 70,
    "infinite": float("inf"),
    "nan": float("nan"),
    "text": "x" * 10_000,
    "ansi": "\x1b[2J\x07",
    "null": None,
    "list": [1 << 30] * 50,
    "nested": [[[[]]]],
    "object": {"a": {}},
    "true": True,
}
JSON_FILES = {
    "prior": [
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "model_index.json",
        "latent_prior.json",
    ],
    "clip": ["config.json", "preprocessor_config.json", "tokenizer_config.json"],
}
SIZES = {  # keys whose numbers become memory or time, of the files above
    "unet/config.json": ["sample_size", "layers_per_block", "cross_attention_dim", "attention_head_dim", "in_channels",
                         "norm_num_groups", "block_out_channels", "transformer_layers_per_block", "down_block_types"],
    "vae/config.json": ["layers_per_block", "block_out_channels", "latent_channels", "scaling_factor", "norm_num_groups"],
    "text_encoder/config.json": ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                                 "max_position_embeddings", "intermediate_size"],
    "scheduler/scheduler_config.json": ["num_train_timesteps", "beta_start", "beta_schedule", "trained_betas",
                                        "prediction_type", "steps_offset"],
    "tokenizer/tokenizer_config.json": ["model_max_length", "added_tokens_decoder", "tokenizer_class"],
    "model_index.json": ["force_zeros_for_empty_prompt", "unet"],
    "latent_prior.json": ["guidance_scale"],
    "config.json": ["projection_dim", "logit_scale_init_value", "text_config", "vision_config", "dtype"],
    "vision_config": ["image_size", "patch_size", "num_hidden_layers", "hidden_size", "num_channels"],
    "preprocessor_config.json": ["image_mean", "image_std", "resample"],
    "tokenizer_config.json": ["model_max_length", "pad_token"],
}  # fmt: skip
BROKEN_JSON: dict[str, Callable[[], bytes]] = {
    "deep": lambda: b"[" * 200_000 + b"]" * 200_000,
    "deep_object": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "huge_number": lambda: b'{"sample_size": ' + b"9" * 2_000_000 + b"}",
    "large": lambda: b'{"a": "' + b"x" * 200_000_000 + b'"}',
    "many_keys": lambda: json.dumps(dict.fromkeys(map(str, range(3_000_000)), 0)).encode(),
    "binary": lambda: bytes(range(256)) * 10,
    "utf16": lambda: "{}".encode("utf-16"),
    "surrogate": lambda: b'{"_class_name": "\\ud800"}',
    "list": lambda: b"[]",
    "number": lambda: b"7",
    "null": lambda: b"null",
    "empty": lambda: b"",
    "half": lambda: b'{"sample_size": 16, "in_ch',
}
INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"
INDICES: dict[str, Any] = {
    "outside": {"metadata": {}, "weight_map": {"a": "../../../../../../etc/passwd"}},
    "absolute": {"metadata": {}, "weight_map": {"a": "/etc/passwd"}},
    "itself": {"metadata": {}, "weight_map": {"a": "diffusion_pytorch_model.safetensors.index.json"}},
    "folder": {"metadata": {}, "weight_map": {"a": "."}},
    "device": {"metadata": {}, "weight_map": {"a": "/dev/zero"}},
    "pickle": {"metadata": {}, "weight_map": {"a": "pytorch_model.bin"}},
    "no_map": {"metadata": {}},
    "map_list": {"metadata": {}, "weight_map": ["a"]},
    "map_values": {"metadata": {}, "weight_map": {"a": 7, "b": None, "c": ["x"]}},
    "many": {"metadata": {}, "weight_map": {str(i): f"{i}.safetensors" for i in range(200_000)}},
    "long": {"metadata": {}, "weight_map": {"a": "x" * 100_000}},
    "nul": {"metadata": {}, "weight_map": {"a": "x\0y"}},
}
LURES = {  # keys by which a library fetches or runs something
    "auto_map": {"AutoModel": "evil.Model", "AutoTokenizer": ["evil.Tok", None]},
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "transformers_weights": "adapter_model.bin",
    "_attn_implementation": "kernels-community/flash-attn",
    "attn_implementation": "eager",
    "_name_or_path": "../../../../etc",
    "_class_name": "os.system",
    "architectures": ["os.system"],
    "tokenizer_class": "evil.Tok",
    "custom_pipelines": "evil",
}


def _changed(kind: str, file: str, change: Callable[[dict], object], folder: Path) -> Path:
    """The folder with one JSON file changed."""
    path = {"clip": clip_folder, "prior": prior_folder}[kind]() / file
    config = json.loads(path.read_text()) if path.is_file() else {}
    change(config)
    return _folder(kind, {file: json.dumps(config).encode()}, folder)


def json_files() -> Iterator[Case]:
    draw = random.Random(4)
    for kind, files in JSON_FILES.items():
        for file in files:
            for key in SIZES[file]:
                for name in sorted({"huge", "many", *draw.sample(sorted(ODD_VALUES), 2)}):
                    change = lambda c, k=key, n=name: c.__setitem__(k, ODD_VALUES[n])  # noqa: E731
                    yield Case(
                        f"json-{kind}-{file}-{key}-{name}", kind, partial(_changed, kind, file, change), readable=True
                    )
            for name in draw.sample(sorted(BROKEN_JSON), 4):
                content = BROKEN_JSON[name]
                yield Case(
                    f"json-{kind}-{file}-{name}",
                    kind,
                    partial(_write, f"{kind}/{file}", content),
                    readable="token" in file or file in ("model_index.json", "latent_prior.json"),
                )
    for tower in ("vision_config", "text_config"):
        for key in SIZES["vision_config"]:
            for name in sorted({"huge", "many", draw.choice(sorted(ODD_VALUES))}):
                change = lambda c, t=tower, k=key, n=name: c[t].__setitem__(k, ODD_VALUES[n])  # noqa: E731
                yield Case(
                    f"json-clip-{tower}-{key}-{name}",
                    "clip",
                    partial(_changed, "clip", "config.json", change),
                    readable=True,
                )
    for name, value in LURES.items():
        for kind, file in (
            ("prior", "unet/config.json"),
            ("prior", "text_encoder/config.json"),
            ("clip", "config.json"),
        ):
            change = lambda c, k=name, v=value: c.__setitem__(k, v)  # noqa: E731
            yield Case(f"lure-{name}-{kind}-{file}", kind, partial(_changed, kind, file, change), readable=True)
    for name, index in INDICES.items():
        files = {"unet/diffusion_pytorch_model.safetensors": None, INDEX: json.dumps(index).encode()}
        yield Case(f"index-{name}-unet", "prior", partial(_folder, "prior", files))
        files = {"model.safetensors": None, "model.safetensors.index.json": json.dumps(index).encode()}
        yield Case(f"index-{name}-clip", "clip", partial(_folder, "clip", files))
    tokenizers = {"prior": ["tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer.json"]}
    tokenizers["clip"] = ["vocab.json", "tokenizer.json"]
    for kind, file in ((kind, file) for kind, files in tokenizers.items() for file in files):
        for name in ("deep", "binary", "list", "empty", "half"):
            yield Case(
                f"json-{kind}-{file}-{name}", kind, partial(_write, f"{kind}/{file}", BROKEN_JSON[name]), readable=True
            )


CASES = [*pickled(), *torch_files(), *safetensors_files(), *json_files()]
