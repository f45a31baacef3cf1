"""A glTF 2.0 document that is edited in place, so that whatever we do not know of stays in it.

Its JSON stays a dict. `buffers` are the bytes of the JSON's buffers; what is added gets a buffer of its own, and
`to_glb` lays all of them into one. Files of others are read by gltf_files.py. What a file says is checked where it is
used: an index, a length or a type that is wrong is an OptionError, before anything of such a size is made.
"""

import copy
import json
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from latent_prior import OptionError
from latent_prior.files import shown

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
SHAPES = {
    "SCALAR": (1, 1),
    "VEC2": (1, 2),
    "VEC3": (1, 3),
    "VEC4": (1, 4),
    "MAT2": (2, 2),
    "MAT3": (3, 3),
    "MAT4": (4, 4),
}
VERTICES, INDICES = 34962, 34963  # targets of buffer views
MOST_ZEROS = 1 << 28  # bytes of an accessor without data, which a few bytes could make as large as they like


@dataclass
class Document:
    """A document: `json` as in the file, and the bytes of each of its buffers. No image or buffer is outside it."""

    json: dict[str, Any]
    buffers: list[bytes] = field(default_factory=list)

    @staticmethod
    def read(path: Path) -> "Document":
        """A .glb, or a .gltf with what it names. OptionError for a file that is broken, compressed, or refers outside."""
        from latent_prior.meshes.gltf_files import read_document

        return read_document(path)

    @staticmethod
    def empty() -> "Document":
        """A document with an empty scene."""
        return Document({"asset": {"version": "2.0", "generator": "latent_prior"}, "scene": 0, "scenes": [{}]})

    def copy(self) -> "Document":
        """A copy that can be edited; buffers, which are never changed, are shared."""
        return Document(copy.deepcopy(self.json), list(self.buffers))

    def entry(self, kind: str, index: Any) -> dict[str, Any]:
        """Entry `index` of an array at the top, such as "nodes". OptionError if there is none, or it is not an object."""
        entries = array(self.json, kind, "the file")
        if not is_index(index, len(entries)):
            raise OptionError.because(f"{kind}[{shown(str(index), 20)}] is referred to; it has {len(entries)} {kind}")
        if not isinstance(entries[index], dict):
            raise OptionError.because(f"{kind}[{index}] is a {type(entries[index]).__name__}; expected an object")
        return entries[index]

    def add(self, kind: str, entry: dict[str, Any]) -> int:
        """Append an entry to an array at the top; returns its index."""
        self.json.setdefault(kind, []).append(entry)
        return len(self.json[kind]) - 1

    def add_view(self, data: bytes, **keys: Any) -> int:
        """Add bytes; returns the index of their buffer view."""
        self.buffers.append(data)
        buffer = self.add("buffers", {"byteLength": len(data)})
        return self.add("bufferViews", {"buffer": buffer, "byteLength": len(data), **keys})

    def view(self, index: Any) -> memoryview:
        """The bytes of a buffer view. OptionError if it reaches beyond its buffer."""
        view = self.entry("bufferViews", index)
        buffer = whole(view, "buffer", f"bufferViews[{index}]", most=len(self.buffers) - 1)
        data = memoryview(self.buffers[buffer])
        start, length = (whole(view, key, f"bufferViews[{index}]", default) for key, default in _EXTENT)
        if start + length > len(data):
            raise OptionError.because(f"bufferViews[{index}] ends at byte {start + length} of a buffer of {len(data)}")
        return data[start : start + length]

    def count(self, index: Any) -> int:
        """The number of elements of an accessor."""
        return whole(self.entry("accessors", index), "count", f"accessors[{index}]", least=1)

    def rows(self, index: Any) -> UInt8[np.ndarray, "N size"]:
        """The bytes of an accessor's elements as they are stored, in an array of their own; sparse ones are put in."""
        accessor, name = self.entry("accessors", index), f"accessors[{index}]"
        count, size = self.count(index), _layout(accessor, name)[2]
        if "bufferView" in accessor:
            rows = self._rows(accessor, accessor["bufferView"], count, size, name)
        elif count * size > MOST_ZEROS:
            raise OptionError.because(f"{name} has {count} elements and no data")
        else:
            rows = np.zeros((count, size), np.uint8)
        if "sparse" in accessor:
            sparse, name = _object(accessor, "sparse", name), f"{name}.sparse"
            changed = whole(sparse, "count", name, least=1, most=count)
            places, values = (_object(sparse, key, name) for key in ("indices", "values"))
            dtype, _, width = _layout({**places, "type": "SCALAR"}, f"{name}.indices")
            where = self._rows(places, places.get("bufferView"), changed, width, f"{name}.indices")
            at = where.view(dtype)[:, 0].astype(np.int64)
            if dtype.kind == "f" or at.min() < 0 or at.max() >= count:
                raise OptionError.because(f"{name}.indices reach beyond the {count} elements")
            rows[at] = self._rows(values, values.get("bufferView"), changed, size, f"{name}.values")
        return rows

    def _rows(self, owner: dict[str, Any], view: Any, count: int, size: int, name: str) -> UInt8[np.ndarray, "N size"]:
        data, start = self.view(view), whole(owner, "byteOffset", name, 0)
        stride = whole(
            self.entry("bufferViews", view), "byteStride", f"bufferViews[{view}]", size, least=size, most=255
        )
        if start + stride * (count - 1) + size > len(data):
            raise OptionError.because(
                f"{name} has {count} elements of {stride} bytes, beyond the {len(data)} of its view"
            )
        return np.ndarray((count, size), np.uint8, data, start, (stride, 1)).copy()

    def accessor(self, index: Any) -> Shaped[np.ndarray, "N ..."]:
        """An accessor's values: (N) scalars, (N, k) vectors, (N, k, k) matrices; normalized integers as floats."""
        accessor = self.entry("accessors", index)
        dtype, (columns, rows), _ = _layout(accessor, f"accessors[{index}]")
        data = self.rows(index)
        if columns > 1:  # each column begins at a multiple of four bytes
            data = data.reshape(len(data), columns, -1)[:, :, : rows * dtype.itemsize]
        values = np.ascontiguousarray(data).view(dtype).reshape(len(data), columns, rows)
        values = values.transpose(0, 2, 1) if columns > 1 else values[:, 0, 0] if rows == 1 else values[:, 0]
        if accessor.get("normalized") is True and dtype.kind in "iu":
            return np.maximum(values / np.float32(np.iinfo(dtype).max), -1).astype(
                np.float32
            )  # glTF 2.0, section 3.6.2.2
        return values

    def add_accessor(self, values: Shaped[np.ndarray, "N ..."], target: int | None = VERTICES, **keys: Any) -> int:
        """Add (N) scalars or (N, k) vectors, of a type of glTF's; returns the accessor's index. keys: others of it."""
        values = values[:, None] if values.ndim == 1 else values
        kind = next(name for name, shape in SHAPES.items() if shape == (1, values.shape[1]))
        component = next(code for code, name in COMPONENTS.items() if np.dtype(name) == values.dtype)
        rows = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        return self.add_rows(rows, {"componentType": component, "type": kind, **keys}, target)

    def add_rows(self, rows: UInt8[np.ndarray, "N size"], like: dict[str, Any], target: int | None = VERTICES) -> int:
        """Add elements in bytes, of the type of the accessor `like`, with new limits where that has some."""
        count, size = rows.shape
        keys: dict[str, Any] = {} if target is None else {"target": target}
        if target == VERTICES and size % 4:  # a vertex's data begins at a multiple of four bytes
            rows = np.pad(rows, ((0, 0), (0, -size % 4)))
            keys["byteStride"] = rows.shape[1]
        view = self.add_view(rows.tobytes(), **keys)
        kept = {key: value for key, value in like.items() if key not in ("byteOffset", "sparse", "min", "max")}
        index = self.add("accessors", {**kept, "bufferView": view, "count": count})
        if "min" in like or "max" in like:
            self.set_limits(index)
        return index

    def set_limits(self, index: int) -> None:
        """Set an accessor's min and max."""
        accessor = self.entry("accessors", index)
        plain = Document({**self.json, "accessors": [{**accessor, "normalized": False}]}, self.buffers).accessor(0)
        values = plain.reshape(len(plain), -1)
        accessor["min"], accessor["max"] = (found.tolist() for found in (values.min(axis=0), values.max(axis=0)))

    def add_image(self, png: bytes, name: str) -> int:
        """Add a picture; returns the image's index."""
        return self.add("images", {"name": name, "mimeType": "image/png", "bufferView": self.add_view(png)})

    def image_bytes(self, index: Any) -> bytes:
        """The bytes of an image's file."""
        return bytes(self.view(self.entry("images", index).get("bufferView")))

    def to_glb(self) -> bytes:
        """The document as a GLB of one buffer, each former one at a multiple of four bytes."""
        starts, size = [], 0
        for data in self.buffers:
            starts.append(size)
            size += len(data) + -len(data) % 4
        tree = dict(self.json)
        tree.pop("buffers", None)
        if self.buffers:
            tree["buffers"] = [{"byteLength": size}]
            tree["bufferViews"] = [
                {**view, "buffer": 0, "byteOffset": view.get("byteOffset", 0) + starts[view["buffer"]]}
                for view in tree.get("bufferViews", [])
            ]
        text = json.dumps(tree, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        body = [struct.pack("<II", len(text), 0x4E4F534A), text]
        if size:
            body.append(struct.pack("<II", size, 0x004E4942))
            body += [bytes(data) + b"\0" * (-len(data) % 4) for data in self.buffers]
        length = 12 + sum(map(len, body))
        if length > 0xFFFFFFFF:
            raise OptionError.because(f"a GLB of {length} bytes is beyond the format's 4 GB")
        return b"".join([struct.pack("<4sII", b"glTF", 2, length), *body])


_EXTENT = (("byteOffset", 0), ("byteLength", None))


def _layout(accessor: dict[str, Any], name: str) -> tuple[np.dtype, tuple[int, int], int]:
    """An accessor's type of number, its columns and rows, and the bytes of an element."""
    component, kind = accessor.get("componentType"), accessor.get("type")
    if not isinstance(component, int) or component not in COMPONENTS or not isinstance(kind, str) or kind not in SHAPES:
        raise OptionError.because(f"{name} is of type {shown(f'{component} {kind}', 40)}; expected one of glTF's")
    dtype, (columns, rows) = np.dtype(COMPONENTS[component]), SHAPES[kind]
    column = rows * dtype.itemsize
    return dtype, (columns, rows), column if columns == 1 else columns * (column + -column % 4)


def is_index(value: Any, count: int) -> bool:
    """Whether a value of a file's JSON is an index below `count`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def whole(
    owner: dict[str, Any], key: str, name: str, default: int | None = None, least: int = 0, most: int = 1 << 40
) -> int:
    """A whole number of an object in a file. OptionError, which begins with `name`, for anything else."""
    value = owner.get(key, default)
    if not is_index(value, most + 1) or value < least:
        raise OptionError.because(
            f"{name}.{key} is {shown(str(value), 30)}; expected a whole number of {least} to {most}"
        )
    return value


def array(owner: dict[str, Any], key: str, name: str) -> list[Any]:
    """An array of an object in a file, empty if there is none. OptionError for anything else."""
    value = owner.get(key, [])
    if not isinstance(value, list):
        raise OptionError.because(f"{key} of {name} is a {type(value).__name__}; expected an array")
    return value


def objects(owner: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in an array of an object in a file; empty where there is none. For parts that nobody has checked."""
    found = owner.get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _object(owner: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    value = owner.get(key)
    if not isinstance(value, dict):
        raise OptionError.because(f"{name}.{key} is a {type(value).__name__}; expected an object")
    return value


def inner(owner: dict[str, Any], *keys: str) -> dict[str, Any]:
    """An object within an object; empty where there is none."""
    for key in keys:
        found = owner.get(key)
        owner = found if isinstance(found, dict) else {}
    return owner


def text(owner: dict[str, Any], key: str) -> str:
    """A text of an object in a file, such as a name; empty if there is none."""
    value = owner.get(key)
    return value if isinstance(value, str) else ""


def numbers(owner: dict[str, Any], key: str, default: list[float], name: str) -> Float[np.ndarray, " k"]:
    """As many finite numbers as the default has. OptionError, which begins with `name`, for anything else."""
    value = owner.get(key, default)
    right = isinstance(value, list) and len(value) == len(default)
    if not right or not all(isinstance(v, int | float) and abs(v) < 1e300 and math.isfinite(v) for v in value):
        raise OptionError.because(f"{name}.{key} is {shown(str(value), 40)}; expected {len(default)} numbers")
    return np.array(value, dtype=np.float64)
