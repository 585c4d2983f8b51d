"""The throughput benchmark compares two implementations of the same algorithm."""

import json

import pytest

from tests.benchmarks import throughput

TINY = "--hidden_dims 16 --flow_steps 2 --batch_size 8 --dataset_size 50 --rounds 4"


def test_it_compares_agents_seeds_and_dispatches_with_the_yardstick(tmp_path, capsys):
    path = tmp_path / "throughput.json"
    sizes = "--agents deflow fql --seeds 1 2 --updates 1 3"
    throughput.main([*TINY.split(), *sizes.split(), f"--output={path}"])
    printed = capsys.readouterr().out
    results = json.loads(path.read_text())
    assert results["largest_loss_difference"] < 1e-4
    cases = [
        (case["agent"], case["seeds"], case["updates_per_dispatch"]) for case in results["cases"]
    ]
    one, two = (
        [("yardstick", 1, 1), *((agent, n, k) for agent in ("deflow", "fql") for k in (1, 3))]
        for n in (1, 2)
    )
    assert cases == one + two
    for case in results["cases"]:
        rates = case["updates_per_second"]
        assert len(rates["rounds"]) == 4
        assert 0 < rates["min"] <= rates["median"] <= rates["max"]
        assert (case["ratio_to_yardstick"] is None) == (case["agent"] == "fql")
        assert case["share_of_peak"] == {}
    yardstick, library = results["cases"][:2]
    assert yardstick["ratio_to_yardstick"]["median"] == 1
    assert library["ratio_to_yardstick"]["median"] > 0
    assert 0 < library["gflop_per_update"] < yardstick["gflop_per_update"]
    assert path.with_suffix(".png").stat().st_size > 10_000
    rate = max(
        case["updates_per_second"]["median"] for case in results["cases"] if case["agent"] == "fql"
    )
    hours = 8e6 / rate / 3600
    assert f"| {rate:.1f} | {hours:.1f} | {50 * hours:.0f} |" in printed


def test_it_keeps_to_its_budget(capsys):
    sizes = "--seeds 1 2 --updates 2 --budget_seconds 0.1"
    throughput.main([*TINY.split(), *sizes.split()])
    printed = capsys.readouterr().out
    assert "deflow with 2 seeds: no time left for it" in printed


def test_a_second_process_finds_the_first_ones_programs():
    options = throughput.parse_options([*TINY.split()])
    seconds = throughput.measure_first_update(options)
    assert 0 < seconds["warm"] < seconds["cold"]


@pytest.mark.parametrize(
    ("kind", "tf32"),
    [
        ("NVIDIA H100 80GB HBM3", 494),
        ("NVIDIA H100 PCIe", 378),
        ("NVIDIA L4", 60),
        ("cpu", None),
    ],
)
def test_peaks_are_known_by_the_devices_name(kind, tf32):
    assert throughput.peaks(kind).get("tf32") == tf32
