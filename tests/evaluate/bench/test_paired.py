"""Paired differences against sums by hand, and their intervals against the normal approximation."""

import csv
import dataclasses
import math

import numpy as np
import pytest
from latent_prior.evaluate.bench import paired
from latent_prior.evaluate.bench.results import Result
from latent_prior.evaluate.bench.table import Column
from PIL import Image

COLUMNS = (
    Column("IoU", "iou", 3, missing=0, better="more"),
    Column("PSNR", "psnr", 2, better="more"),
    Column("error", "error_of_it", 2, better="less"),
    Column("faces", "faces"),
)


def result(label, prompt, seed, **figures):
    return Result(label, prompt, seed, figures=figures)


def many(label, shift, count=400):
    draw = np.random.default_rng(1)
    hard = draw.normal(0, 10, count)  # prompts differ far more than variants
    noise = np.random.default_rng(len(label)).normal(0, 1, count)
    return [
        result(label, f"prompt {k}", k % 3, iou=0.5, psnr=float(hard[k] + shift + noise[k]), error_of_it=1.0)
        for k in range(count)
    ]


def of(found, label, figure):
    (one,) = [one for one in found if (one.label, one.column.figure) == (label, figure)]
    return one


def test_differences_by_hand():
    results = [
        result("base", "a", 0, iou=0.5, psnr=10.0),
        result("base", "a", 1, iou=0.6, psnr=11.0),
        result("base", "b", 0, iou=0.7, psnr=None),
        result("new", "a", 0, iou=0.7, psnr=13.0),
        result("new", "a", 1, psnr=12.0, iou=0.5),
        result("new", "b", 0, iou=0.8, psnr=9.0),
        result("new", "c", 0, iou=0.9, psnr=9.0),  # without a partner
    ]
    found = paired.differences(results, COLUMNS, "base")
    iou, psnr = of(found, "new", "iou"), of(found, "new", "psnr")
    assert (iou.pairs, psnr.pairs) == (3, 2)
    assert iou.mean == pytest.approx((0.2 - 0.1 + 0.1) / 3) and psnr.mean == pytest.approx(2.0)
    assert iou.low is None and iou.verdict == "" and iou.cell == "+0.067"  # an interval of three says nothing
    assert not [one for one in found if one.column.figure == "faces"]  # no way is better
    assert of(found, "new", "error_of_it").mean is None


def test_a_failed_run_counts_as_the_columns_missing():
    failed = dataclasses.replace(result("new", "a", 0), error="it broke")
    found = paired.differences([result("base", "a", 0, iou=0.5, psnr=9.0), failed], COLUMNS, "base")
    assert of(found, "new", "iou").mean == pytest.approx(-0.5) and of(found, "new", "psnr").pairs == 0


def test_intervals_are_those_of_the_normal_approximation():
    results = many("base", 0.0) + many("other", 0.3)
    one = of(paired.differences(results, COLUMNS, "base"), "other", "psnr")
    values = [b.figures["psnr"] - a.figures["psnr"] for a, b in zip(results[:400], results[400:], strict=True)]
    half = 1.96 * np.std(values) / math.sqrt(len(values))
    assert one.low == pytest.approx(one.mean - half, abs=0.1 * half)
    assert one.high == pytest.approx(one.mean + half, abs=0.1 * half)


def test_verdicts_look_at_which_way_is_better():
    results = many("base", 0.0) + many("worse", -1.0) + many("same", 0.0)
    for r in results:
        r.figures["error_of_it"] = -r.figures["psnr"]
    found = paired.differences(results, COLUMNS, "base")
    assert [of(found, "worse", name).verdict for name in ("psnr", "error_of_it", "iou")] == ["worse", "worse", ""]
    assert of(found, "same", "psnr").verdict == "" and of(found, "same", "iou").cell == "+0.000 [+0.000, +0.000]"
    assert of(found, "worse", "psnr").cell.startswith("**-")


def test_what_is_written(tmp_path):
    found = paired.differences(many("base", 0.0) + many("worse", -1.0), COLUMNS, "base")
    table, plot = paired.write(found, "base", tmp_path)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["figure"], row["verdict"]) for row in rows] == [
        ("worse", "iou", ""),
        ("worse", "psnr", "worse"),
        ("worse", "error_of_it", ""),
    ]
    assert float(rows[1]["low"]) < float(rows[1]["mean"]) < float(rows[1]["high"]) < 0
    assert Image.open(plot).size[0] > 800
    text = paired.to_markdown(found, "base")
    assert "| minus base | pairs | IoU (more) | PSNR (more) | error (less) |" in text and "| worse | 400 |" in text
