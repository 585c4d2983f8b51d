"""The throughput benchmark compares two implementations of the same algorithm."""

import json

from tests.benchmarks import throughput

TINY = "--hidden_dims 16 --flow_steps 2 --batch_size 8 --dataset_size 50 --rounds 3 --updates 2"


def test_it_reports_the_ratio_of_two_sides_whose_losses_agree(tmp_path, capsys):
    path = tmp_path / "throughput.json"
    throughput.main([*TINY.split(), f"--json={path}"])
    assert "library, 1 seed" in capsys.readouterr().out
    results = json.loads(path.read_text())
    assert results["largest_loss_difference"] < 1e-4
    yardstick, library = results["sides"].values()
    assert yardstick["ratio_of_medians"] == yardstick["median_of_ratios"] == 1
    assert library["ratio_of_medians"] > 0
    assert library["median_of_ratios"] > 0
    assert 0 < library["gflop_per_update"] < yardstick["gflop_per_update"]
