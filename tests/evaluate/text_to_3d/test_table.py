"""Tables of known results."""

import csv
import io
import statistics

import pytest
from latent_prior.evaluate.bench import table
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.text_to_3d.evaluation import COLUMNS, evaluation
from latent_prior.files.csv_files import to_csv


def result(seed=0, held_out=False, label="full", **figures):
    good = {
        "r_single": True,
        "r_ring": 1.0,
        "r_ring_mean": True,
        "iou": 0.8,
        "psnr": 24.0,
        "field_iou": 0.9,
        "field_psnr": 25.0,
        "fog": 0.01,
        "chamfer": 0.02,
        "normals_to": 12.0,
        "normals_from": 14.0,
        "area": 1.1,
        "area_right": True,
        "volume": 0.7,
        "volume_right": False,
        "watertight": True,
        "crossings": 0,
        "hidden": 0,
        "whole": True,
        "thinnest": 0.08,
        "hollow": None,
        "loads": True,
        "bodies": 1,
        "one_body": True,
        "colour": "red",
        "colour_right": True,
        "mean_colour": [0.5, 0.1, 0.1],
    }
    return Result(label, "a red mug", seed, held_out, good | figures, seconds=90.0, peak_bytes=2_000_000_000)


def failed_run(prompt="a red mug", seed=0, held_out=False, error="exit code 1"):
    return Result("full", prompt, seed, held_out, error=error)


def summarise(results):
    return evaluation([], None).rows(results)


def test_groups_apart_and_together():
    rows = [result(iou=0.8), result(iou=0.6, held_out=True), result(iou=0.9, held_out=True, r_single=False)]
    training, held_out, everything = summarise(rows)
    assert [row.heads["prompts"] for row in (training, held_out, everything)] == ["training", "held out", "all"]
    assert (training.runs, held_out.runs, everything.runs) == (1, 2, 3)
    assert held_out.values["iou"] == pytest.approx(0.75)
    assert [row.values["r_single"] for row in (training, held_out, everything)] == [1, 1, 2]


def test_variants_are_apart():
    rows = summarise([result(), result(label="LSD alone", iou=0.5)])
    assert [(row.label, row.heads["prompts"], row.values["iou"]) for row in rows] == [
        ("full", "training", 0.8),
        ("full", "all", 0.8),
        ("LSD alone", "training", 0.5),
        ("LSD alone", "all", 0.5),
    ]


def test_a_failed_run_counts_against_its_variant():
    row = summarise([result(), failed_run()])[-1]
    assert (row.runs, row.failed, row.values["r_single"], row.values["whole"]) == (2, 1, 1, 1)
    assert row.values["iou"] == pytest.approx(0.4) and row.values["r_ring"] == pytest.approx(0.5)
    assert row.values["psnr"] == 24  # of the one that has any
    assert "| full (1 of 2 failed) | all | 2 | 0.500 (1/2) | 1/2 |" in table.summary_table(
        COLUMNS, [row], with_runs=True
    )


def test_spread_is_over_the_seeds_means():
    rows = [result(seed, iou=value + bump) for seed, value in enumerate((0.5, 0.7, 0.9)) for bump in (-0.1, 0.1)]
    row = summarise(rows)[-1]
    assert row.spread["iou"] == pytest.approx(statistics.pstdev((0.5, 0.7, 0.9)))
    assert "0.700 ± 0.163" in table.summary_table(COLUMNS, [row])
    assert summarise(rows[:2])[-1].spread == {}


def test_spread_counts_a_failed_run_as_the_mean_does():
    row = summarise([result(0, iou=0.8), result(1, iou=0.8), failed_run(seed=1)])[-1]
    assert row.values["iou"] == pytest.approx(1.6 / 3)
    assert row.spread["iou"] == pytest.approx(statistics.pstdev((0.8, 0.4)))
    assert row.spread["psnr"] == 0


def test_the_table_reads_as_in_the_readme():
    rows = summarise([result(hollow=0.6), result(hidden=1, whole=False, r_ring=0.5, r_ring_mean=False)])
    heading, _, _, line = table.summary_table(COLUMNS, rows, with_runs=True).splitlines()
    assert heading == (
        "| variant | prompts | runs | R@1 ring | R@1 | IoU (field) | PSNR (field) | normals | area | volume | Chamfer | "
        "whole (hidden) | wall | hollow | colour | seconds (most) | peak MB |"
    )
    assert line == (
        "| full | all | 2 | 0.750 (1/2) | 2/2 | 0.800 (0.900) | 24.00 (25.00) | 12.0 (14.0) | 1.10 (2/2) | 0.70 (0/2) | "
        "0.0200 | 1/2 (1) | 0.080 | 0.60 | 2/2 | 90 (90) | 2,000 |"
    )


def test_without_a_judge_its_columns_are_dashes():
    rows = summarise([result(r_single=None, r_ring=None, r_ring_mean=None)])
    assert "| full | all | 1 | – | – | 0.800 (0.900) |" in table.summary_table(COLUMNS, rows, with_runs=True)


def test_markdown_has_a_cell_for_every_column():
    rows = [
        result(),
        result(held_out=True, r_single=None, r_ring=None, r_ring_mean=None, colour="a|b", colour_right=False),
        result(bodies=2, crossings=3, watertight=False, whole=False),
    ]
    rows.append(failed_run("a blue mug", 1, True, "exit code 2: the field is empty"))
    text = evaluation([], None).to_markdown(rows, ["A note."])
    lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 4}
    assert (
        "| ✗ 2 pieces, open, 3 crossed |" in text
        and "✗ a\\|b |" in text
        and "1.000 ✓" in text
        and "### Held-out prompts" in text
    )
    assert "A note." in text and "- full, a blue mug, seed 1: exit code 2: the field is empty" in text


def test_csv_keeps_the_figures():
    records = [result(iou=0.812345).record(), result(psnr=None).record()]
    rows = list(csv.DictReader(io.StringIO(to_csv(records))))
    assert float(rows[0]["iou"]) == 0.812345 and rows[1]["psnr"] == ""
    assert rows[0]["mean_colour"] == "0.5000 0.1000 0.1000"
    seeds = [row.record() for row in summarise([result(0), result(1, iou=0.6)])]
    assert float(list(csv.DictReader(io.StringIO(to_csv(seeds))))[-1]["spread_iou"]) == pytest.approx(0.1)


def test_a_result_survives_its_file(tmp_path):
    before = result()
    before.write(tmp_path / "deep" / "r.json")
    assert Result.read(tmp_path / "deep" / "r.json") == before
    assert Result.read(tmp_path / "nothing.json") is None
    (tmp_path / "old.json").write_text('{"label": "of an older version"}')
    assert Result.read(tmp_path / "old.json") is None


@pytest.mark.parametrize("judged", [True, False])
def test_figures_of_a_run_stand_above_it(judged):
    named = {"r_single": True, "r_ring": 0.75, "r_ring_mean": False} if judged else {}
    figures = {"iou": 0.8512, "psnr": 23.44} | named
    declared, of = evaluation([], None), Result("full", "a red mug", 0, False, figures)
    assert declared.note(of) == "IoU 0.85   23.4 dB" + ("   judge 12/16" if judged else "")
    assert declared.missed(of) is judged
