import pytest
from tiny_checkpoints import GEOMETRIES, write_single_file


@pytest.fixture(scope="session", params=GEOMETRIES)
def geometry(request):
    """Each geometry in turn."""
    return GEOMETRIES[request.param]


@pytest.fixture(scope="session")
def folder(folders, geometry):
    """The checkpoint folder of the current geometry."""
    return folders[geometry]


@pytest.fixture(scope="session")
def single_file(folders, tmp_path_factory):
    """A single-file checkpoint whose configs lie in the folder of the same name, and the folder it was made from."""
    source = folders[GEOMETRIES["stable"]]
    file = tmp_path_factory.mktemp("single") / "model.safetensors"
    beside = file.with_suffix("")
    beside.mkdir()
    for name in ("unet", "vae", "text_encoder", "scheduler", "tokenizer"):
        (beside / name).mkdir()
        for path in (source / name).iterdir():
            if path.suffix != ".safetensors":
                (beside / name / path.name).write_bytes(path.read_bytes())
    return write_single_file(file, source), source
