"""What is kept of what a browser sends, and what is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import trimesh
from app.bombs import bomb
from latent_prior import OptionError
from latent_prior.app.uploads import Uploads, raw_layers
from PIL import Image


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path / "kept", 100_000)


def sent(tmp_path, data: bytes) -> Path:
    path = tmp_path / "sent"
    path.write_bytes(data)
    return path


def png(picture: Image.Image) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, "PNG")
        return file.getvalue()


def nothing_kept(uploads) -> bool:
    return not uploads.folder.exists() or not list(uploads.folder.iterdir())


def test_a_picture_is_kept_under_our_own_name(uploads, tmp_path):
    path, line = uploads.picture(sent(tmp_path, png(Image.new("RGB", (40, 30)))), "My <photo>.PNG")
    assert path.name == "picture.png" and path.is_relative_to(uploads.folder) and line == "40 x 30 pixels"
    other, _ = uploads.picture(sent(tmp_path, png(Image.new("RGB", (40, 30)))), "My <photo>.PNG")
    assert other.parent != path.parent


@pytest.mark.parametrize("name", ["../evil.png", "..\\evil.png", "/etc/passwd", "a/b.png", ".png", "a\0.png", ""])
def test_names_with_folders(uploads, tmp_path, name):
    with pytest.raises(OptionError, match="folders|is not a picture"):
        uploads.picture(sent(tmp_path, png(Image.new("RGB", (40, 30)))), name)
    assert nothing_kept(uploads)


def test_bombs_and_large_files(uploads, tmp_path):
    large = bomb()
    assert len(large) < uploads.most
    with pytest.raises(OptionError, match="400 megapixels"):
        uploads.picture(sent(tmp_path, large), "photo.png")
    with pytest.raises(OptionError, match=r"0 MB; expected at most 0 \(--max-upload\)"):
        uploads.picture(sent(tmp_path, bytes(uploads.most + 1)), "photo.png")
    assert nothing_kept(uploads)


@pytest.mark.parametrize(
    ("kind", "name", "data", "reason"),
    [
        ("picture", "photo.png", b"no picture", "cannot be read as a picture"),
        ("picture", "photo.exe", b"MZ", "is not a picture"),
        ("picture", "photo.png", png(Image.new("RGB", (8, 8))), "too small"),
        ("mesh", "mug.glb", b"no mesh", "mug.glb: "),
        ("mesh", "mug.zip", b"PK", "is not a mesh"),
        ("generator", "gan.pt", b"no generator", "gan.pt: "),
    ],
)
def test_refused_in_words_without_our_paths(uploads, tmp_path, kind, name, data, reason):
    with pytest.raises(OptionError, match=reason) as refused:
        getattr(uploads, kind)(sent(tmp_path, data), name)
    assert str(tmp_path) not in str(refused.value) and name in str(refused.value)
    assert nothing_kept(uploads)


def test_a_mesh_takes_nothing_from_elsewhere(uploads, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "secret.mtl").write_text("newmtl m\nKd 0 1 0\n")
    text = trimesh.creation.box().export(file_type="obj", include_normals=False)
    path, line = uploads.mesh(sent(tmp_path, f"mtllib ../../secret.mtl\nusemtl m\n{text}".encode()), "box.obj")
    assert line == "1 part, 12 faces"
    assert all(not row.startswith("mtllib") for row in path.read_text().splitlines())
    gltf = b'{"asset":{"version":"2.0"},"buffers":[{"byteLength":4,"uri":"../../secret.mtl"}],"meshes":[],"nodes":[]}'
    with pytest.raises(OptionError, match="in the mesh's folder"):
        uploads.mesh(sent(tmp_path, gltf), "box.gltf")


def painted(size, box) -> bytes:
    layer = Image.new("RGBA", size)
    layer.paste((255, 0, 0, 255), box)
    return png(layer)


def test_the_mask_has_the_pictures_size(uploads, tmp_path):
    picture, _ = uploads.picture(sent(tmp_path, png(Image.new("RGB", (80, 40)))), "photo.png")
    mask = uploads.mask([painted((40, 20), (0, 0, 20, 20)), painted((40, 20), (30, 0, 40, 20))], picture)
    values = np.asarray(Image.open(mask))
    assert values.shape == (40, 80) and mask.is_relative_to(uploads.folder)
    assert (values[:, :38] == 255).all() and (values[:, 62:] == 255).all() and (values[:, 42:58] == 0).all()


def test_nothing_painted_is_no_mask(uploads, tmp_path):
    picture, _ = uploads.picture(sent(tmp_path, png(Image.new("RGB", (80, 40)))), "photo.png")
    assert uploads.mask([png(Image.new("RGBA", (40, 20)))], picture) is None
    assert uploads.mask([], picture) is None
    with pytest.raises(OptionError, match="400 megapixels"):
        uploads.mask([bomb()], picture)


def test_layers_come_as_files():
    class Sent:
        id, layers = "a", [b"one", None]

    class Editor:
        blob_storage = {"a": Sent}

    assert raw_layers(Editor)(Sent) == [b"one"] and not Editor.blob_storage
    assert raw_layers(Editor)(None) == [] and raw_layers(Editor)(Sent) == []
