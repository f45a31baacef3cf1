"""Files written by `torch.save`, read as data: tensors, containers and plain values, never code.

Both formats are read: a zip archive of a pickle and one entry for each storage, and the older one, in which pickles and
storages follow one another. Nothing is allocated that the file does not hold.
"""

import io
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latent_prior import OptionError
from latent_prior.files import shown
from latent_prior.files.pickles import PLAIN, Function, Record, keyed, members, read_pickle

MAX_PICKLE = 1 << 25  # bytes of the pickle in an archive; that of a thousand tensors has 250,000
MAX_DIRECTORY = 1 << 24  # bytes of an archive's directory, 100 for each storage
MAX_DIMS = 16
EXPANDED = 1 << 26  # bytes by which tensors may exceed twice the file: views that repeat their values
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the older format

STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16},
        **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8},
        **{"Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
    }.items()
} | {"torch.storage.UntypedStorage": torch.uint8}
DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
VALUES = {  # what does not depend on the file
    **(PLAIN | STORAGES | DTYPES),
    "torch._utils._rebuild_parameter": Function(lambda tensor, *_: tensor),
    "torch.Size": Function(lambda sizes=(): tuple(sizes)),
    "collections.Counter": Function(lambda counts=None: Counter(keyed((counts or {}).items()))),
    "argparse.Namespace": Function(lambda: Record()),  # training files keep `args` in one
}


def read_torch(file: Path | io.BytesIO, *, data: bool = True) -> Any:
    """The contents of the file, on the CPU.

    Parameters come as tensors and an argparse.Namespace as a Record. data: False leaves the storages in the file, and
    gives tensors on the meta device.

    Raises:
        OptionError: a broken file, or one that refers to more than plain data.
    """
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return _read(opened, data)
    return _read(file, data)


def _read(file: io.BufferedIOBase, data: bool) -> Any:
    try:
        zipped = file.read(4) == b"PK\3\4"
        file.seek(0)
        return _Archive(file, data).read() if zipped else _Sequence(file, data).read()
    except OptionError:
        raise
    except Exception as error:  # corrupt bytes may raise anything
        raise OptionError.because(f"truncated, or not a torch file ({type(error).__name__})") from error


class _Storages:
    """The storages of an open file, as tensors of one axis, and the tensors that are views of them."""

    def __init__(self, file: io.BufferedIOBase, data: bool) -> None:
        self.file, self.data = file, data
        self.size = file.seek(0, io.SEEK_END)
        self.free = self.size  # bytes that storages may still take
        self.visible = 2 * self.size + EXPANDED  # and tensors, several of which may share one
        self.found: dict[Any, Tensor] = {}
        file.seek(0)

    def pickle(self, file: io.BufferedIOBase) -> Any:
        """The next pickle of the file."""
        # not kept: a file that refers to itself would hold its storages until the next garbage collection
        tensors = {
            "torch._utils._rebuild_tensor_v2": Function(self.view),
            "torch._utils._rebuild_tensor_v3": Function(
                lambda values, offset, size, stride, grad, hooks, dtype, *_: self.view(
                    values.view(dtype), offset, size, stride
                )
            ),
        }
        return read_pickle(file, VALUES | tensors, self.storage)

    def storage(self, identity: Any) -> Tensor:
        """The storage of a persistent id."""
        kind, dtype, key, _, count = identity[:5]
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(part is not None for part in identity[5:]):
            raise OptionError.because("refused: it has persistent ids of an unknown kind")
        (key,) = keyed([(key, None)])
        if key not in self.found:
            values = torch.empty(0, dtype=dtype)
            if type(count) is not int or not 0 <= count * values.itemsize <= self.free:
                raise OptionError.because("refused: its storages are larger than the file")
            self.free -= count * values.itemsize
            self.found[key] = torch.empty(count, dtype=dtype, device="cpu" if self.data else "meta")
            self.added(key, count * values.itemsize)
        if (len(self.found[key]), self.found[key].dtype) != (count, dtype):
            raise OptionError.because("refused: it gives a storage two sizes or types")
        return self.found[key]

    def added(self, key: Any, length: int) -> None:
        """Called for a storage when it is first named; `length` in bytes."""

    def fill(self, key: Any, start: int) -> None:
        """Read a storage from the file, unless its values are not wanted."""
        values = self.found[key]
        if self.data and len(values):
            self.file.seek(start)
            if self.file.readinto(values.view(torch.uint8).numpy()) != values.nbytes:
                raise EOFError

    def view(
        self, values: Any, offset: Any, size: Any, stride: Any, grad: Any = None, hooks: Any = None, flags: Any = None
    ) -> Tensor:
        """A tensor: a view of a storage, all of it within."""
        sizes, strides = tuple(size), tuple(stride)
        whole = all(type(number) is int and number >= 0 for number in (offset, *sizes, *strides))
        if flags or not (whole and isinstance(values, Tensor) and len(sizes) == len(strides) <= MAX_DIMS):
            raise OptionError.because("refused: it has a tensor without a proper size")
        last = offset + sum((number - 1) * step for number, step in zip(sizes, strides, strict=True))
        count = 0 if 0 in sizes else 1
        for number in sizes:
            count *= number
        self.visible -= count * values.itemsize
        if (count and last >= len(values)) or self.visible < 0:
            raise OptionError.because("refused: its tensors are larger than the file")
        if not count:
            return values.new_empty(sizes)
        return values.as_strided(sizes, strides, offset)


class _Archive(_Storages):
    """The zip format."""

    def read(self) -> Any:
        self.entries = _entries(self.file, self.size)
        (self.root,) = (name.removesuffix("data.pkl") for name in self.entries if name.endswith("/data.pkl"))
        order = self.entries.get(f"{self.root}byteorder")
        if order is not None and self.part(*order, most=6) != b"little":
            raise OptionError.because("it was written on a big-endian machine, expected little-endian")
        return self.pickle(io.BytesIO(self.part(*self.entries[f"{self.root}data.pkl"], most=MAX_PICKLE)))

    def part(self, start: int, length: int, most: int) -> bytes:
        if length > most:
            raise OptionError.because(f"refused: it has an entry of {length} bytes, expected {most} or less")
        self.file.seek(start)
        return self.file.read(length)

    def added(self, key: Any, length: int) -> None:
        start, stored = self.entries[f"{self.root}data/{key}"]
        if stored != length:
            raise OptionError.because(f"truncated: a storage of {length} bytes has {stored}")
        self.fill(key, start)


class _Sequence(_Storages):
    """The older format: three pickles that describe the file, its contents, the storages' keys, and the storages."""

    def read(self) -> Any:
        magic, protocol, system = self.pickle(self.file), self.pickle(self.file), self.pickle(self.file)
        if (magic, protocol) != (MAGIC, PROTOCOL):
            raise OptionError.because("truncated, or not a torch file")
        if not system["little_endian"]:
            raise OptionError.because("it was written on a big-endian machine, expected little-endian")
        content, keys = self.pickle(self.file), self.pickle(self.file)
        if members(keys) != set(self.found):
            raise OptionError.because("truncated: some storages are missing")
        for key in keys:
            (count,) = struct.unpack("<q", self.file.read(8))
            if count != len(self.found[key]):
                raise OptionError.because("refused: it gives a storage two sizes")
            start = self.file.tell()
            self.fill(key, start)
            self.file.seek(start + self.found[key].nbytes)
        if self.file.tell() > self.size:
            raise EOFError
        return content


def _entries(file: io.BufferedIOBase, size: int) -> dict[str, tuple[int, int]]:
    """Where the entries of an archive begin, and how long they are. They must be stored as they are."""
    file.seek(-98, io.SEEK_END)
    end64 = struct.unpack("<4s36xQ", file.read(48))
    file.seek(-22, io.SEEK_END)
    end = struct.unpack("<4s8xI", file.read(16))
    directory = end64[1] if end64[0] == b"PK\6\6" else end[1]
    if end[0] != b"PK\5\6" or directory > MAX_DIRECTORY:
        raise OptionError.because("truncated, or not an archive of torch's")
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    found, total = {}, 0
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise OptionError.because(f"refused: its entry {shown(info.filename)} is compressed")
        file.seek(info.header_offset)
        signature, name, extra = struct.unpack("<4s22xHH", file.read(30))
        start = info.header_offset + 30 + name + extra
        total += info.file_size
        if signature != b"PK\3\4" or info.filename in found or max(start + info.file_size, total) > size:
            raise OptionError.because(f"refused: its entry {shown(info.filename)} overlaps others")
        found[info.filename] = start, info.file_size
    return found
