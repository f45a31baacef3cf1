"""The evaluation of editors: figures by hand, jobs, resuming, tables, and bad flags. No run is really launched."""

import dataclasses
import json

import pytest
import torch
from latent_prior.cli import main
from latent_prior.evaluate.bench import existing
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.editing import evaluation as editing
from latent_prior.evaluate.editing.evaluation import BEFORE, REFERENCES, RESERVED, Blended
from latent_prior.evaluate.editing.measure import PSNR_CAP, Measurer, in_bytes
from latent_prior.files.pictures import to_picture
from latent_prior.pocket.edits import EDITS, TUNING_EDITS, write
from latent_prior.pocket.judge import Judge
from latent_prior.runs.sweep import jobs
from latent_prior.runs.sweep.work import Record


@pytest.fixture(scope="module")
def measurer() -> Measurer:
    return Measurer(Judge.load())


def test_the_truth_is_the_best_edit_and_the_picture_as_it_was_is_none(measurer):
    for edit in (EDITS[0], EDITS[6]):
        scene = measurer.scene(edit)
        perfect, none = measurer.figures(edit, scene.truth), measurer.figures(edit, scene.before)
        assert perfect.recognised and not none.recognised
        assert perfect.truth_psnr == PSNR_CAP and none.truth_psnr < 25
        assert perfect.clip_score > none.clip_score
        for figures in (perfect, none):  # both leave the outside alone
            assert figures.outside_psnr == PSNR_CAP and figures.perceptual == pytest.approx(0, abs=1e-6)


def test_figures_outside_see_the_outside_only(measurer):
    edit = EDITS[1]
    scene = measurer.scene(edit)
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    inside = scene.mask * noise + (1 - scene.mask) * scene.before
    outside = (1 - scene.mask) * in_bytes((scene.before + 0.1).clamp(0, 1)) + scene.mask * scene.before
    assert measurer.figures(edit, inside).outside_psnr == PSNR_CAP
    assert measurer.figures(edit, inside).perceptual == pytest.approx(0, abs=1e-6)
    found = measurer.figures(edit, outside)
    assert found.outside_psnr == pytest.approx(20, abs=0.2) and found.perceptual > 1e-3
    assert found.clip_score == pytest.approx(measurer.figures(edit, scene.before).clip_score, abs=1e-4)


def test_pictures_of_another_size_are_refused(measurer):
    with pytest.raises(ValueError, match="the picture is 32x64; expected 64x64"):
        measurer.figures(EDITS[0], torch.zeros(3, 64, 32))


def variants() -> list[jobs.Variant]:
    return jobs.variants(
        [["LSD=pocket_layered_editing_lsd"], ["ours=pocket_layered_editing"]], ["trainer.max_steps=3"], RESERVED
    )


def planned_jobs(out, editors, seeds):
    """As the command plans them."""
    tasks = [editing.task_of(edit, out / "pictures") for edit in EDITS[:2]]
    found = jobs.planned(editors, tasks, seeds, out)
    for task in tasks:
        write(task.about, out / "pictures")
    return existing.with_references(found, dict.fromkeys(REFERENCES, out / "pictures"), out)


def test_every_editor_gets_its_command(tmp_path):
    editors = editing.editors(variants(), ["ours"], Blended(tmp_path / "pictures"))
    assert [editor.label for editor in editors] == ["LSD", "ours", "ours, mask given", "blended"]
    assert len({editor.folder for editor in editors}) == 4
    planned = planned_jobs(tmp_path, editors, [0, 1])
    assert len(planned) == 2 * (2 + 2 * 4)
    assert len({job.result for job in planned}) == len(planned)
    by = {(job.label, job.task.about, job.seed): job for job in planned}
    layered = by["ours", EDITS[0], 1].command
    assert layered[1:3] == ("generate", "a golden mug") and "trainer.max_steps=3" in layered
    before = tmp_path / "pictures" / "a_red_mug_to_a_golden_mug.before.png"
    assert f'data.image="{before}"' in layered and before.is_file()
    assert 'system.source_prompt="a red mug"' in layered
    assert not any(part.startswith("data.mask") for part in layered)
    mask = tmp_path / "pictures" / "a_red_mug_to_a_golden_mug.mask.png"
    assert f'data.mask="{mask}"' in by["ours, mask given", EDITS[0], 0].command
    masked = by["blended", EDITS[0], 1].command
    assert masked[1:3] == ("edit-masked", str(before)) and masked[3:5] == ("--mask", str(mask))
    assert masked[-4:] == ("--seed", "1", "--out", str(by["blended", EDITS[0], 1].run))


@pytest.fixture
def painted(monkeypatch):
    """An engine that paints: the truth for ours, the picture as it was for others, nothing for labels to skip."""

    class Paints:
        at_once = 1
        skip = ()

        def __init__(self):
            self.started = []

        def stream(self, works):
            for work in works:
                label = work.run.parent.name.rpartition("-")[0]
                self.started.append(label)
                if label in self.skip:
                    Record(error="it broke").write(work.record)
                else:
                    self.paint(work, label)
                    Record(0, 7.0, 10).write(work.record)
                yield work

        def paint(self, work, label):
            folder = work.run if label == "blended" else work.run / "save"
            folder.mkdir(parents=True)
            edit = next(e for e in (*EDITS, *TUNING_EDITS) if work.run.name.startswith(f"{e.name}-"))
            scene = edit.scene()
            to_picture(scene.truth if "ours" in label else scene.before).save(folder / "composite.png")
            if label != "blended":
                to_picture(scene.mask).save(folder / "alpha.png")

    engine = Paints()
    monkeypatch.setattr("latent_prior.runs.sweep.arguments.engine", lambda args, out, jobs: engine)
    return engine


def test_an_evaluation_writes_its_tables_and_goes_on_where_it_stopped(tmp_path, painted, capsys):
    out = tmp_path / "out"
    command = ["evaluate", "editing", "--edits", "golden mug", "--out", str(out)]
    painted.skip = ("lsd",)
    assert main(command) == 0
    assert painted.started == ["clip", "lsd", "ours", "ours_mask_given", "blended"]
    table, said = (out / "table.md").read_text(), capsys.readouterr().out
    assert "| LSD (1 of 1 failed) | 0/1 |" in table and "it broke" in table
    assert "ours: recognised in 9 of 10: **met** (1 of 1)" in table and "against" in table
    assert "| before | 0/1 |" in table and "| truth | 1/1 |" in table
    assert str(out / "contact_sheet-seed0.png") in said and (out / "contact_sheet-seed0.png").is_file()
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["runs"]) == 7 and {bar["met"] for bar in summary["bars"]} == {True}

    painted.skip = ()
    assert main(command) == 0 and len(painted.started) == 5  # what failed is not repeated unasked
    assert main([*command, "--again"]) == 0 and painted.started[5:] == ["lsd"]
    table = (out / "table.md").read_text()
    assert "| LSD | 0/1 |" in table and "failed" not in table
    # what was measured stands, even if the run is thrown away
    results = [Result.read(path) for path in sorted((out / "results").rglob("*.json"))]
    assert len(results) == 7 and all(result.error is None for result in results)


def test_a_result_stands_until_the_picture_changes(tmp_path, measurer):
    job = planned_jobs(tmp_path, [Blended(tmp_path / "pictures")], [0])[2]
    declared = editing.evaluation([job], measurer)
    job.run.mkdir(parents=True)
    to_picture(job.task.about.scene().before).save(job.run / "composite.png")
    Record(0, 1.0, 1).write(job.record)
    declared.measure_job(job, Record(0, 1.0, 1))
    assert declared.is_current(job)
    assert not dataclasses.replace(declared, settings="others").is_current(job)
    to_picture(job.task.about.scene().truth).save(job.run / "composite.png")
    assert not declared.is_current(job)
    job.record.unlink()
    assert not declared.is_current(job)


def result_of(label: str, edit: str = "a to b", **figures) -> Result:
    values = {"recognised": True, "outside_psnr": 40.0, "truth_psnr": 25.0, "iou": 0.8} | figures
    return Result(label, edit, 0, False, values, seconds=100.0)


def test_means_and_bars_by_hand(measurer):
    results = [result_of("ours", f"{i}", recognised=i > 0, outside_psnr=30 + i, truth_psnr=20 + i) for i in range(10)]
    results += [result_of("LSD", f"{i}", truth_psnr=24.5) for i in range(10)]
    results += [result_of("ours, mask given", f"{i}", outside_psnr=34.9 if i else 50) for i in range(2)]
    results[3] = Result("ours", "3", 0, False, error="it broke")
    declared = editing.evaluation([], measurer)
    rows = declared.rows(results)
    ours = next(row for row in rows if row.label == "ours")
    assert (ours.runs, ours.failed, ours.values["recognised"], ours.values["least_outside_psnr"]) == (10, 1, 8, 30)
    assert ours.values["truth_psnr"] == pytest.approx((sum(range(20, 30)) - 23) / 9)
    bars = {bar["asked"]: bar["met"] for bar in editing.findings(rows).record["bars"]}
    assert bars == {
        "ours: recognised in 9 of 10": False,
        "ours: outside at least 30 dB": True,
        "ours, mask given: outside at least 35 dB": False,
        "ours: IoU at least 0.7 on the mean": True,
        "ours: nearer to the truth than LSD on the mean": True,
        "ours: at most 180 seconds": True,
        "ours, mask given: at most 180 seconds": True,
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--edits", "silver spoon"], "--edits: no edit of the list editing contains 'silver spoon'"),
        (["--seeds", "1", "1"], "--seeds: 1 is duplicated"),
        (["--with-mask", "theirs"], "--with-mask: there is no variant 'theirs'; expected some of CLIP, LSD, ours"),
        (["--config", "blended=pocket_layered_editing"], "--config: the label 'blended' is taken"),
        (["--config", "pocket_stylegan"], "--config: 'pocket_stylegan' edits no picture"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--config", "ours=pocket_layered_editing", "data.image=x.png"], "data.image cannot be overridden"),
    ],
)
def test_bad_flags_are_one_line(flags, message, tmp_path, capsys):
    assert main(["evaluate", "editing", "--out", str(tmp_path / "out"), *flags]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tuning_edits_are_apart(tmp_path, painted):
    command = ["evaluate", "editing", "--list", "tuning", "--no-blended", "--with-mask", "--out", str(tmp_path)]
    assert main([*command, "--config", "ours=pocket_layered_editing"]) == 0
    assert painted.started == ["ours"] * len(TUNING_EDITS)


def test_the_table_reads_as_in_the_readme(measurer):
    before = Result(BEFORE, "a to b", None, False, {"recognised": False, "clip_score": 42.31, "outside_psnr": 100.0})
    heading, _, line = (
        editing.evaluation([], measurer)._table(editing.evaluation([], measurer).rows([before])).split("\n")
    )
    assert heading == (
        "| variant | recognised | CLIP score | outside (least) | perceptual | truth | IoU | seconds (most) | peak MB |"
    )
    assert line == "| before | 0/1 | 42.3 | 100.0 (100.0) | – | – | – | – (–) | – |"
