"""Memory is said before it runs out: what is read, where it lies, and what training takes."""

import types

import numpy as np
import pytest

from tests import toys
from tests.small_runs import make_run
from utils.datasets import DeviceDataset, HostDataset
from utils.errors import UserError
from utils.runs import memory

DATA = toys.transitions(100)
SIZE = 100 * 4 * (2 * 5 + 3 + 2) / 2**30


def test_data_of_some_size_are_announced(tmp_path, capsys, monkeypatch):
    settings = make_run(tmp_path, tmp_path, env_name="scene-play").settings
    np.savez_compressed(tmp_path / "scene-play-v0.npz", observations=np.zeros((1000, 40)))
    memory.say_reading(settings)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(memory, "_WORTH_SAYING", 1000 * 40 * 8)
    memory.say_reading(settings)
    said = capsys.readouterr().out
    assert said.startswith("reading 0.000298 GiB of data; ")  # unpacked
    assert said.endswith(" GiB of memory can be had\n")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (DeviceDataset(DATA, 8), f"{SIZE:.3g} GiB on the device"),
        (HostDataset(DATA, 8, 7), f"{SIZE:.3g} GiB in host memory, 7 batches sent at once"),
    ],
)
def test_training_that_does_not_fit_is_refused_before_it_begins(source, words, capsys, monkeypatch):
    trainer = types.SimpleNamespace(source=source, memory=lambda state: 3 * 2**30)
    monkeypatch.setattr(memory, "device_memory", lambda: 4 * 2**30)
    memory.require_device_memory(trainer, None)
    assert capsys.readouterr().out == f"memory: 3 GiB of 4 GiB per device; data: {words}\n"
    monkeypatch.setattr(memory, "device_memory", lambda: 2 * 2**30)
    with pytest.raises(UserError, match=r"^training takes 3 GiB of 2 GiB .* lower --num_seeds"):
        memory.require_device_memory(trainer, None)
