"""The benchmarks compare two implementations of the same algorithm."""

import json

import pytest

from tests.benchmarks import online, throughput

TINY = "--hidden_dims 16 --flow_steps 2 --batch_size 8 --dataset_size 50 --rounds 3 --updates 2"
TINY_ONLINE = (
    "--networks 8 --flow_steps 2 --batch_size 8 --dataset_size 50 --check_steps 8 --rounds 3 "
    "--steps 2"
)


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


def test_online_it_reports_the_ratio_of_two_orders_that_do_the_same(tmp_path, capsys):
    path = tmp_path / "online.json"
    online.main([*TINY_ONLINE.split(), f"--json={path}"])
    assert "more than its update alone" in capsys.readouterr().out
    (result,) = json.loads(path.read_text())["networks"]
    assert result["episodes_ended_in_check"] == 1
    for differences in result["largest_differences"].values():
        assert max(differences.values()) < 1e-5
    sides = result["sides"]
    assert sides["plain order"]["ratio_of_medians"] == 1
    assert sides["plain order"]["median_of_ratios"] == 1
    whole = sides["library"]["seconds_per_step"]["median"]
    parts = result["library_step"]
    assert parts.pop("whole") == whole
    assert sum(parts.values()) == pytest.approx(whole)


@pytest.mark.slow
def test_online_the_comparison_notices_a_row_too_few():
    options = online.parse_options(TINY_ONLINE.split())
    problem = online.Problem(options, (8,))
    library, plain = online.LibraryLoop(problem), online.PlainLoop(problem, "plain order", None)
    plain.size -= 1
    with pytest.raises(AssertionError, match="differ"):
        online.compare(library, [plain], options.check_steps)
    library.explorer.close()
