"""The codes a generator is adapted on: likely ones, the same in every evaluation, and a closed path for the video."""

import math

import pytest
import torch
from latent_prior import host
from latent_prior.data.latent_codes import LatentCodesDataModule, path


def test_path_passes_its_keys_and_closes():
    keys = torch.randn(4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = path(keys, 20)
    torch.testing.assert_close(points[::5], keys)
    # from the last key the path goes back to the first, as far on as the step says
    a, b = keys[3], keys[0]
    angle = math.acos((a @ b) / (a.norm() * b.norm()))
    expected = (math.sin(0.2 * angle) * a + math.sin(0.8 * angle) * b) / math.sin(angle)
    torch.testing.assert_close(points[19], expected)


def test_path_keeps_to_the_great_circle_between_keys_of_one_length():
    keys = torch.nn.functional.normalize(torch.randn(3, 64, generator=torch.Generator().manual_seed(1)), dim=1)
    points = path(keys, 30)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(30))
    steps = (points[1:10] * points[:9]).sum(1).acos()  # even steps from the first key towards the second
    torch.testing.assert_close(steps, steps[:1].expand(9), rtol=1e-3, atol=1e-4)


def test_training_draws_from_the_global_generator_and_evaluation_from_its_own():
    dm = host.find("latent-codes-datamodule")({"batch_size": 3, "z_dim": 5, "n_grid": 4, "n_frames": 6})
    dm.setup()
    torch.manual_seed(7)
    expected = torch.randn(3, 5)
    torch.manual_seed(7)
    assert torch.equal(dm.train_dataset.collate(None)["z"], expected)
    batch = next(iter(dm.train_dataloader()))
    assert batch["z"].shape == (3, 5)
    assert {"elevation", "azimuth", "camera_distances"} <= set(batch)  # threestudio's guidances ask for these
    shown = [torch.cat([b["z"] for b in dm.test_dataloader()]) for _ in range(2)]
    assert torch.equal(*shown) and shown[0].shape == (10, 5)
    grid = torch.cat([b["z"] for b in dm.val_dataloader()])
    assert torch.equal(shown[0][:4], grid) and torch.equal(shown[0][4], grid[0])
    frames = torch.cat([b["frame"] for b in dm.test_dataloader()]).tolist()
    assert frames == [-1] * 4 + list(range(6))


@pytest.mark.parametrize(("key", "value"), [("batch_size", 0), ("z_dim", 0), ("n_grid", 0), ("n_frames", -1)])
def test_bad_numbers_name_their_key(key, value):
    with pytest.raises(ValueError, match=rf"data\.{key} is {value}; expected"):
        LatentCodesDataModule({key: value})
