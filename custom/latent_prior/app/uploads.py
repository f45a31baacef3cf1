"""Files that a browser sends: checked by the readers that the runs use, and kept under names of our own.

A name from the client is only looked at for its suffix, and becomes no path. Each file gets a folder of its own, since a
glTF or OBJ file may name others beside it.
"""

import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from latent_prior import OptionError
from latent_prior.files import shown

MB = 1_000_000
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".ppm")
MESHES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
GENERATORS = (".safetensors", ".pkl", ".pt", ".pth")
CANVAS = 1024  # pixels of the long side of the copy that a mask is painted on
_MATERIALS = re.compile(rb"(?m)^[ \t]*mtllib\b")


class Uploads:
    """The folder of uploaded files. most: bytes of one."""

    def __init__(self, folder: Path, most: int):
        self.folder, self.most = folder, most

    def picture(self, source: Path, name: str) -> tuple[Path, str]:
        """Keep a picture to edit; returns its new path and a line about it. OptionError for what cannot be used."""

        def check(path: Path) -> str:
            from latent_prior.files import pictures

            found = pictures.read_with_alpha(path, "the picture")
            pictures.require_size(found, "it", "the picture")
            return f"{found.width} x {found.height} pixels"

        return self._keep(source, name, "picture", PICTURES, check)

    def mesh(self, source: Path, name: str) -> tuple[Path, str]:
        """The same of a mesh."""

        def check(path: Path) -> str:
            from latent_prior.meshes.asset import Asset

            if path.suffix == ".obj":  # its materials are not uploaded, and may not be taken from elsewhere
                path.write_bytes(_MATERIALS.sub(b"# mtllib", path.read_bytes()))
            parts = Asset.read(path, prefix="").selected
            faces = sum(len(part.faces) for part in parts)
            return f"{len(parts)} {'part' if len(parts) == 1 else 'parts'}, {faces} faces"

        return self._keep(source, name, "mesh", MESHES, check)

    def generator(self, source: Path, name: str) -> tuple[Path, str, int]:
        """The same of a StyleGAN2 generator, and the size of its z."""
        sizes: list[int] = []

        def check(path: Path) -> str:
            from latent_prior.stylegan2.files import load_generator

            cfg = load_generator(path).cfg
            sizes.append(cfg.z_dim)
            return f"{cfg.resolution} x {cfg.resolution} pixels, z of {cfg.z_dim}"

        path, line = self._keep(source, name, "generator", GENERATORS, check)
        return path, line, sizes[0]

    def mask(self, layers: list[bytes], picture: Path) -> Path | None:
        """Keep what was painted over a picture as a mask of its size; None if nothing was.

        layers: picture files, transparent where nothing was painted.
        """
        from latent_prior.files import pictures

        painted: Image.Image | None = None
        for data in layers:
            self._require_size(len(data), "the mask")
            alpha = pictures.from_bytes(data, "the painted mask").convert("RGBA").getchannel("A")
            if painted is not None and painted.size != alpha.size:
                raise OptionError.because("the layers of the painted mask differ in size")
            painted = alpha if painted is None else ImageChops.lighter(painted, alpha)
        if painted is None or painted.getbbox() is None:
            return None
        size = pictures.read_picture(picture, "the picture").size
        path = self._new("mask.png")
        painted.resize(size, Image.Resampling.BILINEAR).save(path)
        return path

    def canvas(self, picture: Path) -> Path:
        """A smaller copy of a kept picture, to paint on."""
        from latent_prior.files import pictures

        copy = pictures.read_picture(picture, "the picture")
        copy.thumbnail((CANVAS, CANVAS))
        path = picture.with_name("canvas.png")
        copy.save(path)
        return path

    def settings(self, text: str) -> Path:
        """Keep an edited config."""
        self._require_size(len(text.encode()), "the settings")
        path = self._new("settings.yaml")
        path.write_text(text, encoding="utf-8")
        return path

    def _keep(
        self, source: Path, name: str, kind: str, suffixes: tuple[str, ...], check: Callable[[Path], str]
    ) -> tuple[Path, str]:
        """Copy `source` to a new folder and check it there; nothing is left of one that is refused."""
        suffix = _suffix(name, kind, suffixes)
        self._require_size(source.stat().st_size, shown(name))
        path = self._new(f"{kind}{suffix}")
        try:
            shutil.copyfile(source, path)
            return path, check(path)
        except OptionError as error:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise OptionError.because(f"{shown(name)}: {str(error).replace(str(path), 'the file')}") from error
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise

    def _new(self, name: str) -> Path:
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return folder / name

    def _require_size(self, size: int, name: str) -> None:
        if size > self.most:
            raise OptionError.because(
                f"{name} has {size / MB:.0f} MB; expected at most {self.most // MB} (--max-upload)"
            )


def _suffix(name: str, kind: str, suffixes: tuple[str, ...]) -> str:
    """The suffix of a client's file name. OptionError for a name with folders, or of another kind of file."""
    if re.search(r"[/\\\0]", name) or name.startswith("."):
        raise OptionError.because(f"the file's name is {shown(name)}; expected one without folders")
    suffix = Path(name).suffix.lower()
    if suffix not in suffixes:
        raise OptionError.because(f"{shown(name)} is not a {kind} that can be read; expected {', '.join(suffixes)}")
    return suffix


def raw_layers(editor: Any) -> Callable[[Any], list[bytes]]:
    """For gradio's ImageEditor, in place of its `preprocess`: the painted layers as files, not unpacked.

    Its own unpacks whatever it is sent, before anything could be checked.
    """

    def preprocess(payload: Any) -> list[bytes]:
        if payload is None:
            return []
        sent = editor.blob_storage.pop(payload.id, None) if payload.id is not None else payload
        layers = [layer for layer in (sent.layers or [] if sent is not None else []) if layer is not None]
        return [bytes(layer) if hasattr(layer, "__len__") else Path(layer.path).read_bytes() for layer in layers]

    return preprocess
