"""The fixed edits: what they are made of, and what their pictures and masks hold."""

import pytest
import torch
from latent_prior.files.pictures import read_mask, read_picture, to_tensor
from latent_prior.pocket import edits
from latent_prior.pocket.captions import is_held_out, parse
from latent_prior.pocket.edits import EDITS, TUNING_EDITS


def changes_kind(edit) -> bool:
    return parse(edit.source).kind != parse(edit.target).kind


def test_the_list_is_what_was_promised():
    assert len(EDITS) == 10 and len({edit.name for edit in (*EDITS, *TUNING_EDITS)}) == 14
    assert sum(changes_kind(edit) for edit in EDITS) == 2
    assert sum(is_held_out(parse(edit.target)) for edit in EDITS) == 3
    assert not any(is_held_out(parse(edit.source)) for edit in (*EDITS, *TUNING_EDITS))
    assert not any(is_held_out(parse(edit.target)) for edit in TUNING_EDITS)
    assert not {edit.target for edit in EDITS} & {edit.target for edit in TUNING_EDITS}


@pytest.mark.parametrize("edit", [EDITS[0], EDITS[5]], ids=lambda edit: edit.name)
def test_before_and_truth_differ_only_inside_the_mask(edit):
    scene = edit.scene(32)
    outside = scene.mask.expand(3, -1, -1) == 0
    assert torch.equal(scene.before[outside], scene.truth[outside])
    assert torch.allclose(scene.before[outside], torch.tensor(edit.background))
    inside = (scene.before - scene.truth).abs().amax(0)[scene.mask[0] == 1]
    assert (inside > 0.02).float().mean() > (0.1 if changes_kind(edit) else 0.9)


def test_written_files_read_back(tmp_path):
    scene = EDITS[0].scene(24)
    before, truth, mask = edits.write(EDITS[0], tmp_path, 24)
    picture = read_picture(before)
    assert (to_tensor(picture) - scene.before).abs().max() <= 0.5 / 255 + 1e-6
    assert (to_tensor(read_picture(truth)) - scene.truth).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(to_tensor(read_mask(mask, picture)), scene.mask)
