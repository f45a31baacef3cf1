"""The CSV log keeps its rows whatever happens as a column is added."""

import os

import pytest
from latent_prior.runs.csv_log import WholeCSVLogger


def test_a_new_column_comes_into_a_new_file(tmp_path, monkeypatch):
    log = WholeCSVLogger(str(tmp_path), name="csv_logs", flush_logs_every_n_steps=1)
    log.log_metrics({"a": 1.0}, 0)
    log.log_metrics({"a": 2.0}, 1)
    path = tmp_path / "csv_logs" / "version_0" / "metrics.csv"
    before = path.read_text()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        log.log_metrics({"a": 3.0, "b": 4.0}, 2)
    assert path.read_text() == before == "a,step\n1.0,0\n2.0,1\n"
    again = WholeCSVLogger(str(tmp_path), name="csv_logs", flush_logs_every_n_steps=1)
    again.log_metrics({"a": 1.0}, 0)
    again.log_metrics({"a": 3.0, "b": 4.0}, 2)
    assert (tmp_path / "csv_logs" / "version_1" / "metrics.csv").read_text() == "a,b,step\n1.0,,0\n3.0,4.0,2\n"
