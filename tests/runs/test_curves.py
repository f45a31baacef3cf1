"""The curves drawn from a run's CSV log."""

import numpy as np
import pytest
from latent_prior.runs import curves
from PIL import Image


def write(folder, version, rows):
    folder = folder / f"version_{version}"
    folder.mkdir(parents=True)
    names = sorted({name for row in rows for name in row})
    lines = [",".join(names)] + [",".join(str(row.get(name, "")) for name in names) for row in rows]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_versions_of_a_resumed_run_make_one_curve(tmp_path):
    write(tmp_path, 0, [{"step": 0, "train/loss_sds": 4.0}, {"step": 5, "train/loss_sds": 3.0}, {"step": 10, "lr": 1}])
    write(tmp_path, 10, [{"step": 5, "train/loss_sds": 2.0}, {"step": 10, "train/loss_sds": 1.0, "train_params/a": 9}])
    write(tmp_path, 2, [{"step": 5, "train/loss_sds": 7.0}])
    assert curves.read(tmp_path) == {"loss_sds": ([0, 5, 10], [4.0, 2.0, 1.0])}


def test_running_mean_is_unbiased_and_follows():
    assert curves.running_mean([3.0] * 5) == pytest.approx([3.0] * 5)
    values = np.arange(200.0)
    weights = curves.SMOOTHING ** np.arange(200)[::-1]
    assert curves.running_mean(list(values))[-1] == pytest.approx((weights * values).sum() / weights.sum())


def test_a_picture_is_drawn_where_there_are_losses_only(tmp_path):
    curves.draw(tmp_path, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    write(tmp_path, 0, [{"step": s, "train/loss_sds": s, "train/grad_norm": 1} for s in range(20)])
    curves.draw(tmp_path, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.std() > 5


def test_a_log_that_a_kill_cut_short_is_read_up_to_its_last_whole_line(tmp_path):
    write(tmp_path, 0, [{"step": step, "train/loss_sds": 4.25 + step} for step in range(3)])
    log = tmp_path / "version_0" / "metrics.csv"
    whole = log.read_text()
    for length in range(len(whole) + 1):
        log.write_text(whole[:length])
        values = curves.read(tmp_path).get("loss_sds", ([], []))
        assert values == ([0, 1, 2][: len(values[0])], [4.25, 5.25, 6.25][: len(values[0])])
        assert len(values[0]) == max(0, whole[:length].count("\n") - 1)
