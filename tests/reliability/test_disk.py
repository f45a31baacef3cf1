"""No room, no right: one line that names the path and the need, nothing whole is damaged, what was computed is kept.

A table: a command, the moment at which its disk is full (or something is in the way), and the line that follows. Once
there is room again, the command that the line names ends well.
"""

import errno
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from latent_prior.cli import main
from latent_prior.files.pictures import to_picture
from latent_prior.runs.folder import config_path, last_step
from latent_prior.stylegan2.files import save_generator
from latent_prior.stylegan2.generator import StyleGAN2, StyleGAN2Config
from PIL import Image
from reliability import disks
from reliability.accidents import LAUNCH, MAIN, start
from reliability.disks import Befalls, FilesUpTo, Refuses, TemporaryFilesIn, WithoutPrivileges, at, small_disk
from small_configs import small_job

pytestmark = pytest.mark.slow

SYSTEM = "latent_prior.systems.text_to_3d:LatentPriorSystem."
STEP = f"{SYSTEM}training_step"
EXPORTER = "latent_prior.meshes.exporter:VertexColorMeshExporter."
TRAINED = "latent_prior.runs.callbacks:SaveOnInterrupt.on_train_end"
CONFIG = config_path("latent_prior")
RUN = "out/latent_prior/run"
KB = 1024


@dataclass(frozen=True)
class Case:
    """`names` is a part of the line, `code` the exit code; `then` the command that the line names, which ends well."""

    command: str
    moment: Any  # None: before it starts
    names: str
    accident: Any = disks.fill
    how: tuple[Any, ...] = ()
    code: int = 1
    then: str = ""
    more: tuple[Any, ...] = ()  # armed in the child as well
    options: str = "size=4m"
    changes: dict[str, Any] = field(default_factory=dict)


NO_STAGE = {"system.mesh_stage.from_step": "null"}  # in training no surface is extracted
LONG = {
    "trainer.max_steps": 80,
    "checkpoint.every_n_train_steps": 10,
    "trainer.val_check_interval": 100,
    "system.loss.lambda_sparsity": 0,  # under a prior of random weights nothing else would be left after so long
}
PREDICT = "on_predict_epoch_end"
CASES = {
    "the disk is full before": Case("train", None, RUN, code=2),
    "no room for the checkpoints": Case(
        "train", None, "3 checkpoints at once, needs about 611.1 kB, but", how=(100 * KB,), code=2
    ),
    "what the run is made from": Case("train", at(STEP), "configs/unresolved.yaml", code=2),
    "its config as given": Case("train", at(STEP), "configs/", how=(12 * KB,), code=2),
    "the first checkpoint": Case("train", at(STEP), "ckpts/epoch=0-step=2.ckpt", how=(60 * KB,)),
    "a later checkpoint": Case("train", at(STEP, 3), "ckpts/epoch=0-step=4.ckpt", how=(40 * KB,), then="resume"),
    "the newest checkpoint again": Case("train", at(TRAINED), "ckpts/last.ckpt", how=(40 * KB,), then="resume"),
    "the logs": Case("train", at(STEP, 12), RUN, then="resume", changes=LONG),
    "a preview": Case("train", at(f"{SYSTEM}validation_step"), "save/it4-0.png", then="resume"),
    "a view": Case("job", at(f"{SYSTEM}test_step"), "save/it6-test/0.png", then="resume"),
    "the turntable": Case("job", at(f"{SYSTEM}on_test_epoch_end"), "save/it6-test.mp4", then="resume"),
    "the curves": Case("job", at("latent_prior.runs.curves:draw"), "save/curves.png", how=(40 * KB,), then="resume"),
    "the mesh": Case("job", at(f"{EXPORTER}__call__"), "save/it6-export/model.glb", how=(40 * KB,), then="export"),
    "the temporary folder": Case(
        "job",
        at(f"{EXPORTER}extract"),
        "TMPDIR",
        how=(8 * KB,),
        then="export",
        more=(TemporaryFilesIn,),
        changes=NO_STAGE,
    ),
    "no more files": Case(
        "train", at(STEP, 3), "too many files", disks.fill_with_files, then="resume", options="size=4m,nr_inodes=200"
    ),
    "a generator": Case(
        "stylegan",
        at(f"latent_prior.systems.stylegan_adaptation:StyleGANAdaptationSystem.{PREDICT}"),
        "save/generator.safetensors",
        how=(12 * KB,),
        then="export",
    ),
    "a layer": Case(
        "layered",
        at("latent_prior.systems.layered_editing:LayeredEditingSystem.predict_step"),
        "save/composite.png",
        how=(5 * KB,),
        then="export",
    ),
    "samples": Case(
        "edit", at("latent_prior.editing.blended_diffusion:BlendedDiffusion.edit", 3), "the samples so far"
    ),
    "an edit's results": Case(
        "edit", at("latent_prior.editing.background_reconstruction:reconstructed"), "the samples so far (3)"
    ),
    "an edit on a full disk": Case("edit", None, "needs about 32.8 kB, but", how=(12 * KB,), code=2),
    "a converted generator": Case("convert", None, "converted.safetensors", how=(12 * KB,), code=2),
    "a generator in the other format": Case("convert to pt", None, "converted.pt", how=(12 * KB,), code=2),
    "a file as the root": Case("train", None, "out is not a folder", disks.put_a_file, ("out",), 2),
    "a file for the checkpoints": Case(
        "train", at(STEP, 2), "ckpts is not a folder", disks.put_a_file, (f"{RUN}/ckpts",)
    ),
    "a file for the pictures": Case(
        "train", at(STEP, 3), "save is not a folder", disks.put_a_file, (f"{RUN}/save",), then="resume"
    ),
    "a file for the CSV log": Case(
        "train",
        at(STEP, 3),
        "csv_logs is not a folder; its checkpoint of step 3 is kept",
        disks.put_a_file,
        (f"{RUN}/csv_logs",),
        then="resume",
    ),
    "a file for the TensorBoard log": Case(
        "train", at(STEP, 3), "tb_logs is not a folder", disks.put_a_file, (f"{RUN}/tb_logs",), then="resume"
    ),
    "a folder for the checkpoint": Case(
        "train",
        at(STEP, 2),
        "ckpts/last.ckpt: is a directory",
        disks.put_a_folder,
        (f"{RUN}/ckpts/last.ckpt",),
        then="resume",
    ),
    "a folder for the mesh": Case(
        "job",
        at(f"{EXPORTER}__call__"),
        "model.glb: is a directory",
        disks.put_a_folder,
        (f"{RUN}/save/it6-export/model.glb",),
        then="export",
    ),
    "the run removed": Case("train", at(STEP, 3), "was removed while the run wrote to it", disks.remove, (RUN,)),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    generator = torch.Generator().manual_seed(0)
    to_picture(torch.rand(3, 64, 64, generator=generator)).save(folder / "photo.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 48, 48))
    mask.save(folder / "mask.png")
    torch.manual_seed(0)
    small = StyleGAN2Config.of_size(16, z_dim=8, w_dim=8, mapping_layers=2, base=64, most=8)
    save_generator(StyleGAN2(small), folder / "generator.safetensors")
    return folder


@pytest.fixture(scope="module")
def commands(tiny_prior, inputs):
    """The programs and arguments of the commands on a disk."""
    names = ("system.guidance", "system.prompt_processor")
    prior = [f"{name}.pretrained_model_name_or_path={tiny_prior}" for name in names]
    common = [*prior, "system.prompt_processor.use_cache=false", "use_timestamp=false", "tag=run"]
    two = ["trainer.max_steps=2", "trainer.val_check_interval=2"]
    generator, photo = inputs / "generator.safetensors", inputs / "photo.png"

    def made(command: str, disk: Path, changes: dict[str, Any]) -> tuple[str, list[str]]:
        root = f"exp_root_dir={disk / 'out'}"
        job = ["--config", CONFIG, *small_job(tiny_prior, disk / "out", **changes)]
        prompt = ["generate", "a golden mug", *common, *two, root, "--config"]
        edit = ["--mask", inputs / "mask.png", "--prompt", "a golden mug", "--checkpoint", tiny_prior, "--clip", "none"]
        edit += ["--samples", 3, "--steps", 4, "--reconstruction-steps", 2, "--out", disk / "edit"]
        toy = [f"system.pretrained_generator={generator}", "data.z_dim=8", "data.batch_size=2", "data.n_grid=4"]
        layer = [f"data.image={photo}", "data.short_side=16", "system.generator.channels=8"]
        program, argv = {
            "train": (LAUNCH, [*job, "--train"]),
            "job": (LAUNCH, job),
            "stylegan": (MAIN, [*prompt, "pocket_stylegan", *toy]),
            "layered": (MAIN, [*prompt, "pocket_layered_editing", *layer]),
            "edit": (MAIN, ["edit-masked", photo, *edit]),
            "convert": (MAIN, ["convert-stylegan", generator, disk / "converted.safetensors"]),
            "convert to pt": (MAIN, ["convert-stylegan", generator, disk / "converted.pt"]),
        }[command]
        return program, [str(part) for part in argv]

    return made


def the_line(run: Any, code: int) -> str:
    """The line that the command ended with."""
    assert run.end() == code, run.err
    assert "Traceback" not in run.err, run.err
    (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_disk_that_refuses(case, commands, tmp_path):
    copy = tmp_path / "copy"
    with small_disk(tmp_path / "disk", case.options) as disk:
        program, argv = commands(case.command, disk, case.changes)
        befalls = Befalls(case.accident, disk, copy, case.how)
        more = [kind(disk) for kind in case.more]
        if case.moment is None:
            befalls._happen()
        run = start(
            argv, tmp_path / "said", *more, *([] if case.moment is None else [befalls, case.moment]), program=program
        )
        line = the_line(run, case.code)
        assert case.names in line and str(disk) in line, line
        if case.accident is not disks.remove:
            assert not (wrong := disks.whole(disk, copy)), wrong
        if case.code == 2 and case.command in ("train", "job"):
            assert not (disk / RUN).exists()
        if case.command == "edit" and case.code == 1:
            assert len(list(disk.glob("edit/samples/seed*.png"))) >= 2
        if case.then:
            told = re.search(r"latent-prior (\w+) (\S+?)[,)]?( |$)", line)
            assert told and told[1] == case.then and Path(told[2]).is_dir(), line
            for path in (disk / disks.FILLER, *(disk / path for path in case.how if isinstance(path, str))):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            again = start([told[1], told[2]], tmp_path / "again")
            assert again.end() == 0, again.err
            assert last_step(Path(told[2])) == (case.changes or {"trainer.max_steps": 6}).get("trainer.max_steps") or 2


@pytest.mark.parametrize("command", [["resume"], ["export"]])
def test_a_run_on_a_read_only_disk(command, commands, tmp_path):
    """It is left as it is, and can be exported to another place."""
    with small_disk(tmp_path / "disk") as disk:
        program, argv = commands("train", disk, {"trainer.max_steps": 2})
        assert start(argv, tmp_path / "made", program=program).end() == 0
        shutil.copytree(disk, tmp_path / "copy")
        disks.make_read_only(disk)
        line = the_line(start([*command, str(disk / RUN)], tmp_path / "said"), 2)
        assert str(disk / RUN) in line and "read-only" in line.lower()
        assert not (wrong := disks.whole(disk, tmp_path / "copy")), wrong
        if command == ["export"]:
            elsewhere = tmp_path / "elsewhere"
            again = start([*command, str(disk / RUN), f"exp_root_dir={elsewhere}"], tmp_path / "again")
            assert again.end() == 0, again.err
            assert (elsewhere / "latent_prior" / "run" / "save" / "it2-export" / "model.glb").is_file()


# without a disk of its own


def test_a_read_only_root(commands, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        disks.make_read_only(disk)
        program, argv = commands("train", disk, {})
        assert "read-only" in the_line(start(argv, tmp_path / "said", program=program), 2)


@pytest.mark.parametrize(
    "refusal, reason",
    [
        (Refuses(errno.EDQUOT, ".ckpt"), "disk quota exceeded"),
        (Refuses(errno.EIO, ".ckpt"), "input/output error"),
        (FilesUpTo(100 * KB), "file too large"),
    ],
)
def test_other_refusals_of_a_checkpoint(refusal, reason, commands, tmp_path):
    program, argv = commands("train", tmp_path, {})
    line = the_line(start(argv, tmp_path / "said", refusal, program=program), 1)
    assert reason in line and f"{tmp_path / RUN}/ckpts/" in line
    assert not (wrong := disks.whole(tmp_path / RUN, tmp_path / "nothing")), wrong


def test_no_right_to_a_folder(commands, tmp_path):
    (tmp_path / "out").mkdir(mode=0o555)
    program, argv = commands("train", tmp_path, {})
    line = the_line(start(argv, tmp_path / "said", WithoutPrivileges(), program=program), 2)
    assert "permission denied" in line and str(tmp_path / "out") in line
    program, argv = commands("convert", tmp_path / "out", {})
    line = the_line(start(argv, tmp_path / "said", WithoutPrivileges(), program=program), 2)
    assert f"cannot write {tmp_path / 'out' / 'converted.safetensors'}: permission denied" in line
    assert not list((tmp_path / "out").iterdir())


def test_a_link_to_nothing_as_the_root(commands, tmp_path, capsys):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    program, argv = commands("train", tmp_path, {})
    line = the_line(start(argv, tmp_path / "said", program=program), 2)
    assert f"{tmp_path / 'out'} is a link to nothing" in line
    (tmp_path / "edit").write_text("")
    _, argv = commands("edit", tmp_path, {})
    assert main(argv) == 2
    assert str(tmp_path / "edit") in capsys.readouterr().err
