"""The sheet shows what it is given, where it says."""

import numpy as np
import torch
from latent_prior.evaluate.bench import contact_sheet as sheet
from PIL import Image


def test_a_strip_is_the_views_side_by_side():
    pictures = torch.rand(3, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    strip = np.asarray(sheet.to_strip(pictures))
    assert strip.shape == (5, 15, 3)
    for i, picture in enumerate(pictures):
        expected = (picture * 255).round().byte().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(strip[:, 5 * i : 5 * i + 5], expected)


def test_cells_are_drawn_in_their_places():
    colours = [[(200, 30, 30), (30, 200, 30)], [(30, 30, 200), (90, 90, 90)]]
    rows = [[sheet.Cell(Image.new("RGB", (40, 10), colour), "title", "note") for colour in row] for row in colours]
    drawn = np.asarray(sheet.draw([sheet.Section("Heading", rows)], columns=2, views=4))
    for i, row in enumerate(colours):
        for j, colour in enumerate(row):
            y = sheet.MARGIN + sheet.HEADING + i * (sheet.CAPTION + sheet.TILE + sheet.GAP) + sheet.CAPTION
            x = sheet.MARGIN + j * (4 * sheet.TILE + sheet.GAP)
            patch = drawn[y + 2 : y + sheet.TILE - 2, x + 2 : x + 4 * sheet.TILE - 2]
            assert (patch == colour).all()
            assert (drawn[y - 10 : y - 4, x : x + 20] < 128).any()  # the title above it


def test_what_the_judge_missed_is_framed_in_red():
    rows = [[sheet.Cell(None, "t", missed=True)], [sheet.Cell(None, "t", missed=False)]]
    drawn = np.asarray(sheet.draw([sheet.Section("h", rows)], columns=1, views=4)).reshape(-1, 3)
    reds = (drawn == sheet.MISSED).all(axis=1).sum()
    assert reds == 2 * 4 * sheet.TILE + 2 * sheet.TILE - 4


def test_long_notes_stay_in_their_cell():
    cell = sheet.Cell(None, "a checkered white fire hydrant", "word " * 100)
    drawn = np.asarray(sheet.draw([sheet.Section("h", [[cell]])], columns=1, views=2))
    assert (drawn[:, : sheet.MARGIN] == 255).all()
