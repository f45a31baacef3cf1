"""Tables of known results."""

import csv
import io
import statistics

import pytest
from latent_prior.evaluate import table
from latent_prior.evaluate.results import Result


def result(seed=0, held_out=False, label="full", **figures):
    good = {
        "r_single": True,
        "r_ring": 1.0,
        "r_ring_mean": True,
        "iou": 0.8,
        "psnr": 24.0,
        "fog": 0.01,
        "chamfer": 0.02,
        "loads": True,
        "bodies": 1,
        "one_body": True,
        "colour": "red",
        "colour_right": True,
        "mean_colour": (0.5, 0.1, 0.1),
        "seconds": 90.0,
        "peak_bytes": 2_000_000_000,
    }
    return Result(label, "a red mug", seed, held_out, **{**good, **figures})


def test_groups_apart_and_together():
    rows = [result(iou=0.8), result(iou=0.6, held_out=True), result(iou=0.9, held_out=True, r_single=False)]
    training, held_out, everything = table.summarise(rows)
    assert [s.group for s in (training, held_out, everything)] == ["training", "held out", "all"]
    assert (training.runs, held_out.runs, everything.runs) == (1, 2, 3)
    assert held_out.iou == pytest.approx(0.75)
    assert (training.r_single, held_out.r_single, everything.r_single) == (1, 1, 2)


def test_variants_are_apart():
    summaries = table.summarise([result(), result(label="LSD alone", iou=0.5)])
    assert [(s.label, s.group, s.iou) for s in summaries] == [
        ("full", "training", 0.8),
        ("full", "all", 0.8),
        ("LSD alone", "training", 0.5),
        ("LSD alone", "all", 0.5),
    ]


def test_a_failed_run_counts_against_its_variant():
    failed = Result("full", "a red mug", 0, False, error="exit code 1")
    summary = table.summarise([result(), failed])[-1]
    assert (summary.runs, summary.failed, summary.r_single, summary.one_body) == (2, 1, 1, 1)
    assert summary.iou == pytest.approx(0.4) and summary.r_ring == pytest.approx(0.5)
    assert summary.psnr == 24  # of the one that has any


def test_spread_is_over_the_seeds_means():
    rows = [result(seed, iou=value + bump) for seed, value in enumerate((0.5, 0.7, 0.9)) for bump in (-0.1, 0.1)]
    summary = table.summarise(rows)[-1]
    assert summary.spread["iou"] == pytest.approx(statistics.pstdev((0.5, 0.7, 0.9)))
    assert "± 0.163" in table.grid(table.SUMMARY_COLUMNS, [summary])
    assert table.summarise(rows[:2])[-1].spread == {}


def test_spread_counts_a_failed_run_as_the_mean_does():
    rows = [result(0, iou=0.8), result(1, iou=0.8), result(1, iou=None, psnr=None, error="exit code 1")]
    summary = table.summarise(rows)[-1]
    assert summary.iou == pytest.approx(1.6 / 3)
    assert summary.spread["iou"] == pytest.approx(statistics.pstdev((0.8, 0.4)))
    assert summary.spread["psnr"] == 0


def test_markdown_has_a_cell_for_every_column():
    rows = [
        result(),
        result(held_out=True, r_single=None, r_ring=None, r_ring_mean=None, colour="a|b", colour_right=False),
    ]
    rows.append(Result("full", "a blue mug", 1, True, error="exit code 2: the field is empty"))
    text = table.to_markdown(rows, "Title", ["A note."])
    lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(table.SUMMARY_COLUMNS) + 1}
    assert len(table.RESULT_COLUMNS) == len(table.SUMMARY_COLUMNS)  # or the line above needs two cases
    assert "A note." in text and "- full, a blue mug, seed 1: exit code 2: the field is empty" in text


def test_csv_keeps_the_figures():
    rows = list(csv.DictReader(io.StringIO(table.to_csv([result(iou=0.812345), result(psnr=None)]))))
    assert float(rows[0]["iou"]) == 0.812345 and rows[1]["psnr"] == ""
    assert rows[0]["mean_colour"] == "0.5000 0.1000 0.1000"
    seeds = table.summarise([result(0), result(1, iou=0.6)])
    assert float(list(csv.DictReader(io.StringIO(table.to_csv(seeds))))[-1]["spread_iou"]) == pytest.approx(0.1)


def test_a_result_survives_its_file(tmp_path):
    before = result()
    before.write(tmp_path / "deep" / "r.json")
    assert Result.read(tmp_path / "deep" / "r.json") == before
    assert Result.read(tmp_path / "nothing.json") is None
    (tmp_path / "old.json").write_text('{"label": "of an older version"}')
    assert Result.read(tmp_path / "old.json") is None
