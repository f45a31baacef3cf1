"""What a run shows of its progress."""

import pytest
import pytorch_lightning as pl
import torch
from latent_prior.runs.callbacks import Progress
from torch.utils.data import DataLoader


class Toy(pl.LightningModule):
    test_progress = ("pictures", "batch")

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        loss = (self.weight * batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        pass

    def test_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*logging interval")
def test_one_bar_for_all_steps_and_one_for_the_test(tmp_path, capsys):
    data = DataLoader(torch.ones(8, 1))  # three epochs and a half
    trainer = pl.Trainer(
        max_steps=30,
        accelerator="cpu",
        logger=False,
        callbacks=[Progress()],
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    system = Toy()
    trainer.fit(system, data, data)
    trainer.test(system, data, verbose=False)
    out, err = capsys.readouterr()
    shown = [line for line in err.replace("\r", "\n").splitlines() if "%|" in line]
    assert {line.split(":")[0] for line in shown} == {"train", "pictures"} and "%|" not in out
    trained = [line for line in shown if line.startswith("train")]
    assert "30/30" in trained[-1] and "step/s" in trained[-1] and "loss=" in trained[-1] and "v_num" not in trained[-1]
    assert "8/8" in shown[-1] and "batch/s" in shown[-1]
