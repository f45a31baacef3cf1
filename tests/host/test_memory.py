"""Sizes that cannot fit in memory are refused by name, before anything is made."""

import pytest
import torch
from latent_prior import OptionError, options_under
from latent_prior.host.embedded import memory


@pytest.fixture
def a_megabyte(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 10**6)


def test_what_fits_passes_and_what_does_not_is_named(a_megabyte):
    memory.require_memory(250_000, {"data.height": 500, "data.width": 500})
    memory.require_memory(62_500, {"width": 250}, trained=True)
    with pytest.raises(OptionError) as caught:
        memory.require_memory(250_001, {"data.height": 500, "data.width": 500})
    assert (
        str(caught.value) == "data.height=500, data.width=500: needs 1.0 MB of memory or more, and 1.0 MB are available"
    )
    with pytest.raises(OptionError, match="system.width=10{20}: needs 1600000.0 PB"), options_under("system."):
        memory.require_memory(10**20, {"width": 10**20}, trained=True)


def test_a_container_has_no_more_than_its_limit(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_LIMITS", (str(tmp_path / "none"), str(limit)))
    everything = memory.available()
    limit.write_text("max\n")
    assert memory.available() > everything / 2 > 0
    limit.write_text("12345\n")
    assert memory.available() == 12345


def test_an_allocation_that_failed_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    for error in (caught.value, MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried ...")):
        assert "out of memory" in str(memory.shortage(error))
    assert memory.shortage(RuntimeError("shapes do not fit")) is None
    assert memory.shortage(OSError("not enough memory")) is None


def test_sizes_are_at_least_1():
    memory.check_sizes({"data.height": 1})
    with pytest.raises(OptionError, match="data.height is 0; expected at least 1"):
        memory.check_sizes({"data.width": 1, "data.height": 0})
