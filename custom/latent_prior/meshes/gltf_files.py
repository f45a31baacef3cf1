"""Reads glTF 2.0 files: .glb, and .gltf with external or inlined buffers and images, which all come into the document."""

import binascii
import os
import struct
import urllib.parse
from pathlib import Path
from typing import Any

from latent_prior import OptionError, host
from latent_prior.files import shown
from latent_prior.files.json_file import parse_json
from latent_prior.meshes.gltf import Document, array, inner, objects, text, whole

MOST_VALUES = 4_000_000  # of the JSON; a scene of 10,000 nodes has some 500,000
COPIES = 4  # of a file's bytes that reading it takes
PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"\xabKTX 20\xbb": "image/ktx2"}
# Those by which a mesh's numbers are stored in another way than glTF's own; none is decoded here.
COMPRESSIONS = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
DRACO = COMPRESSIONS[0]
KINDS = ("accessors", "animations", "buffers", "bufferViews", "cameras", "images", "materials", "meshes", "nodes")
KINDS = (*KINDS, "samplers", "scenes", "skins", "textures")


def read_document(path: Path) -> Document:
    """See Document.read."""
    data = _bytes(path)
    if data[:4] == b"glTF":
        tree, blob = _chunks(data)
    elif data.lstrip()[:1] == b"{":
        tree, blob = parse_json(data, MOST_VALUES), None
    else:
        raise OptionError.because("it is not a glTF file: it begins neither with glTF nor with JSON")
    version = text(inner(tree, "asset"), "version")
    if version.split(".")[0] != "2":
        raise OptionError.because(f"it is of glTF {shown(version, 20) or 'of no version'}; expected 2.0")
    for kind in KINDS:
        for index, entry in enumerate(array(tree, kind, "the file")):
            if not isinstance(entry, dict):
                raise OptionError.because(f"{kind}[{index}] is a {type(entry).__name__}; expected an object")
    _refuse_compressed(tree)
    document = Document(tree, _buffers(tree, blob, path.parent))
    for index in range(len(array(tree, "bufferViews", "the file"))):
        document.view(index)
    for index in range(len(array(tree, "images", "the file"))):
        _take_in(document, index, path.parent)
    return document


def _bytes(path: Path) -> bytes:
    """A file, if there is memory for it."""
    try:
        host.require_memory(COPIES * path.stat().st_size / 4, {"mesh": path.name})
        return path.read_bytes()
    except OSError as error:
        raise OptionError.because(
            f"{shown(path.name)} cannot be read: {(error.strerror or str(error)).lower()}"
        ) from error


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The JSON and the binary chunk of a GLB (glTF 2.0, section 4.4)."""
    if len(data) < 20:
        raise OptionError.because(f"it is cut off after {len(data)} bytes")
    version, length = struct.unpack("<II", data[4:12])
    if version != 2:
        raise OptionError.because(f"it is a GLB of version {version}; expected 2")
    if length > len(data):
        raise OptionError.because(f"it is cut off: it has {len(data)} of {length} bytes")
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= length and len(found) < 2:
        size, kind = struct.unpack("<I4s", data[at : at + 8])
        if at + 8 + size > length:
            raise OptionError.because(f"it is cut off: a chunk of {size} bytes begins at byte {at} of {length}")
        found.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size + -size % 4
    if b"JSON" not in found:
        raise OptionError.because("it is a GLB without JSON")
    return parse_json(found[b"JSON"], MOST_VALUES), found.get(b"BIN\0")


def _refuse_compressed(tree: dict[str, Any]) -> None:
    """OptionError for a mesh that is stored compressed. A compressed copy beside the plain data is left out."""
    required = array(tree, "extensionsRequired", "the file")
    for name in COMPRESSIONS:
        if name in required:
            raise OptionError.because(f"it is compressed ({name}): export it without compression")
    used = array(tree, "extensionsUsed", "the file")
    if DRACO in used:
        raise OptionError.because(f"it is compressed ({DRACO}): export it without compression")
    for name in set(COMPRESSIONS).intersection(name for name in used if isinstance(name, str)):
        used.remove(name)
        for kind in ("bufferViews", "buffers"):
            for entry in objects(tree, kind):
                if isinstance(entry.get("extensions"), dict):
                    entry["extensions"].pop(name, None)
                    if not entry["extensions"]:
                        del entry["extensions"]
    if not used:
        tree.pop("extensionsUsed", None)


def _buffers(tree: dict[str, Any], blob: bytes | None, folder: Path) -> list[bytes]:
    """The bytes of every buffer. OptionError for one that is shorter than it says."""
    found: list[bytes] = []
    for index, buffer in enumerate(array(tree, "buffers", "the file")):
        name = f"buffers[{index}]"
        length = whole(buffer, "byteLength", name)
        if "uri" in buffer:
            data = _fetched(buffer["uri"], folder, name)
        elif index == 0 and blob is not None:
            data = blob
        else:
            raise OptionError.because(f"{name} has no data")
        if len(data) < length:
            raise OptionError.because(f"{name} is cut off: it has {len(data)} of {length} bytes")
        tree["buffers"][index] = {key: value for key, value in buffer.items() if key != "uri"}
        found.append(data[:length] if len(data) > length else data)
    return found


def _take_in(document: Document, index: int, folder: Path) -> None:
    """An image's bytes into a buffer of the document, unless they are in one."""
    image = document.entry("images", index)
    if "uri" not in image:
        document.view(image.get("bufferView"))
        return
    data = _fetched(image.pop("uri"), folder, f"images[{index}]")
    kind = next((kind for start, kind in PICTURES.items() if data.startswith(start)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "image/webp"
    if kind is None:
        raise OptionError.because(f"images[{index}] is neither PNG, JPEG, WebP nor KTX2")
    image.update(mimeType=kind, bufferView=document.add_view(data))


def _fetched(uri: Any, folder: Path, name: str) -> bytes:
    """What a URI stands for: its own data, or a file in the folder or below, since others are not the mesh's."""
    if not isinstance(uri, str):
        raise OptionError.because(f"{name}.uri is a {type(uri).__name__}; expected a text")
    if uri[:5].lower() == "data:":
        head, _, body = uri.partition(",")
        try:
            return binascii.a2b_base64(body) if head.endswith(";base64") else urllib.parse.unquote_to_bytes(body)
        except ValueError as error:
            raise OptionError.because(f"{name}.uri is not readable base64") from error
    relative = os.path.normpath(urllib.parse.unquote(uri))
    if ":" in uri.split("/")[0] or os.path.isabs(relative) or relative.startswith("..") or "\0" in relative:
        raise OptionError.because(f"{name} is {shown(uri, 80)}; expected a file in the mesh's folder")
    if not os.path.isfile(folder / relative):
        raise OptionError.because(f"{name} is {shown(uri, 80)}, and there is no such file beside it")
    return _bytes(folder / relative)
