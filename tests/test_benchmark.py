"""The throughput benchmark compares two implementations of the same algorithm."""

import json

import jax
import jax.numpy as jnp
import pytest

from tests.benchmarks import throughput

TINY = "--hidden_dims 16 16 --flow_steps 3 --batch_size 8 --dataset_size 50 --rounds 3 --updates 2"


def test_it_reports_the_ratio_of_two_sides_whose_losses_agree(tmp_path, capsys):
    path = tmp_path / "throughput.json"
    throughput.main([*TINY.split(), f"--json={path}"])
    assert "library, 1 seed" in capsys.readouterr().out
    results = json.loads(path.read_text())
    assert results["largest_loss_difference"] < 1e-4
    yardstick, library = results["sides"].values()
    assert library["ratio_of_medians"] > 0
    assert yardstick["ratio_of_medians"] == 1
    assert library["gflop_per_update"] < yardstick["gflop_per_update"]


def test_it_refuses_sides_that_differ(monkeypatch):
    monkeypatch.setattr(throughput.Yardstick, "critic_discount", 0.9, raising=False)
