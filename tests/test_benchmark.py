"""The benchmarks compare two implementations of the same algorithm."""

import functools
import json

import jax
import numpy as np
import pytest

from tests import toys
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import agents, data, grids, online, pixels, throughput
from utils.frames import stack_frames

TINY = "--hidden_dims 16 --flow_steps 2 --batch_size 8 --dataset_size 50 --rounds 3"
TINY_ONLINE = (
    "--networks 8 --flow_steps 2 --batch_size 8 --dataset_size 50 --check_steps 8 --rounds 3 "
    "--steps 2"
)


@pytest.mark.parametrize(
    ("agents", "seeds"),
    [(["deflow"], [1]), pytest.param(["deflow", "fql"], [1, 2], marks=pytest.mark.slow)],
)
def test_it_compares_agents_seeds_and_dispatches_with_the_yardstick(
    tmp_path, capsys, agents, seeds
):
    path = tmp_path / "throughput.json"
    sizes = ["--agents", *agents, "--seeds", *map(str, seeds), "--updates", "1", "3"]
    throughput.main([*TINY.split(), *sizes, f"--output={path}"])
    printed = capsys.readouterr().out
    results = json.loads(path.read_text())
    assert results["largest_loss_difference"] < 1e-4
    cases = [
        (case["agent"], case["seeds"], case["updates_per_dispatch"]) for case in results["cases"]
    ]
    expected = []
    for n in seeds:
        expected += [("yardstick", 1, 1), *((agent, n, k) for agent in agents for k in (1, 3))]
    assert cases == expected
    for case in results["cases"]:
        rates = case["updates_per_second"]
        assert len(rates["rounds"]) == 3
        assert 0 < rates["min"] <= rates["median"] <= rates["max"]
        assert (case["ratio_to_yardstick"] is None) == (case["agent"] == "fql")
        assert case["share_of_peak"] == {}
        assert 0 < case["share_of_matrix_rate"] < 1
    yardstick, library = results["cases"][:2]
    assert yardstick["ratio_to_yardstick"]["median"] == 1
    assert library["ratio_to_yardstick"]["median"] > 0
    assert 0 < library["gflop_per_update"] < yardstick["gflop_per_update"]
    assert path.with_suffix(".png").stat().st_size > 10_000
    rate = max(
        case["updates_per_second"]["median"]
        for case in results["cases"]
        if case["agent"] == agents[-1]
    )
    hours = 8e6 / rate / 3600
    assert f"| {rate:.1f} | {hours:.1f} | {50 * hours:.0f} |" in printed


def test_operations_are_those_of_every_step_of_the_flow():
    transitions = throughput.random_transitions(50, 29, 8)
    key = jax.random.key(0)
    counts = []
    for steps in (2, 4, 8):
        options = throughput.parse_options([*TINY.split(), f"--flow_steps={steps}"])
        subject = throughput.configure("deflow", options, transitions)
        example, update = subject.example, subject.agent_class.update
        agent = jax.eval_shape(
            functools.partial(subject.agent_class.create, config=subject.config),
            *(key, example["observations"], example["actions"]),
        )
        jax.eval_shape(update, agent, example, key)  # it keeps a trace with a loop
        counts.append(throughput.gflop(update, agent, example, key))
    assert counts[2] - counts[1] == pytest.approx(2 * (counts[1] - counts[0]))
    assert counts[1] > 1.1 * counts[0]


def test_an_agent_keeps_settings_that_are_not_given_and_takes_no_others():
    transitions = throughput.random_transitions(50, 29, 8)
    plain = throughput.configure("idql", throughput.parse_options([]), transitions).config
    assert (plain.batch_size, plain.value_hidden_dims) == (512, (256, 256))
    given = throughput.parse_options(TINY.split())
    small = throughput.configure("bc", given, transitions).config
    assert (small.batch_size, small.actor_hidden_dims) == (8, (16,))
    assert "flow_steps" not in small
    assert "value_hidden_dims" not in small


def test_an_agent_gets_the_rewards_columns_and_settings_that_it_asks_for():
    transitions = throughput.random_transitions(50, 29, 8)
    options = throughput.parse_options(TINY.split())
    calql = throughput.configure("calql", options, transitions)
    scale, size = calql.config.reward_scale, calql.config.batch_size
    assert scale != 1
    assert calql.example["rewards"] == pytest.approx(scale * transitions["rewards"][:size])
    assert calql.example.keys() - transitions.keys() == {"mc_returns"}
    floq = throughput.configure("floq", options, transitions)
    assert floq.config.r_max == pytest.approx(transitions["rewards"].max())


def test_every_file_in_the_folder_is_an_agent_that_is_timed(tmp_path):
    found = [path.stem for path in agents.agent_files(agents.parse_options([]).paths)]
    assert found == sorted({path.stem for path in toys.AGENTS.glob("*.py")} - {"__init__"})
    for name in ("__init__", "new", "another"):
        (tmp_path / f"{name}.py").touch()
    paths = [tmp_path, toys.AGENTS / "bc.py"]
    assert [path.stem for path in agents.agent_files(paths)] == ["another", "new", "bc"]


def test_agents_are_timed_with_the_columns_that_they_ask_for(tmp_path, capsys):
    (tmp_path / "mine.py").write_text((toys.AGENTS / "rebrac.py").read_text())
    output = tmp_path / "agents.json"
    sizes = [*TINY.split(), "--seeds", "1", "2", "--round_seconds=0.001", f"--output={output}"]
    agents.main([str(tmp_path), *sizes])
    printed = capsys.readouterr().out
    results = json.loads(output.read_text())
    cases = [(case["agent"], case["seeds"]) for case in results["cases"]]
    assert cases == [("mine", 1), ("mine", 2)]
    assert "| mine | 8 | " in printed
    for case in results["cases"]:
        rates = case["updates_per_second"]
        assert len(rates["rounds"]) == 3
        assert 0 < rates["min"] <= rates["median"] <= rates["max"]
        assert case["gflop_per_update"] > 0
        assert case["settings"]["actor_hidden_dims"] == [16]
        assert f"{rates['median']:.1f} ({rates['min']:.1f} to {rates['max']:.1f})" in printed


@pytest.mark.slow
def test_agents_are_left_out_when_the_time_is_over(capsys):
    bc = str(toys.AGENTS / "bc.py")
    agents.main([bc, bc, *TINY.split(), "--seeds", "1", "--budget_seconds=0.1"])
    assert "bc: no time left for it" in capsys.readouterr().out


@pytest.mark.slow
def test_it_keeps_to_its_budget(capsys):
    sizes = "--seeds 1 2 --updates 2 --budget_seconds 0.1"
    throughput.main([*TINY.split(), *sizes.split()])
    printed = capsys.readouterr().out
    assert "deflow with 2 seeds: no time left for it" in printed


@pytest.mark.slow
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


@pytest.mark.slow
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
    library.envs.close()


def test_loading_is_timed_and_its_memory_counted(tmp_path, capsys):
    path = tmp_path / "data.json"
    data.main(["--rows=20000", f"--output={path}"])
    found = json.loads(path.read_text())
    assert found["transitions"] == 19_980  # an episode's last row has no successor
    assert found["device_bytes"] == 19_980 * (2 * 29 + 8 + 2) * 4
    assert found["seconds"] > 0
    assert "for any number of seeds" in capsys.readouterr().out


PIXELS = "--rows 200 --image_size 12 --batch_size 4 --hidden_dims 16 --updates 3 --rounds 3"


@pytest.mark.slow
def test_three_loops_on_images_are_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pixels, "IDLE_IMAGE_SIZE", 12)
    path = tmp_path / "pixels.json"
    sizes = [*PIXELS.split(), "--device_ms", "5", "--idle_updates", "20"]
    pixels.main([*sizes, f"--output={path}"])
    printed = capsys.readouterr().out
    results = json.loads(path.read_text())
    assert results["images_encoded_per_update"] == 7 * 4
    assert results["images_with_a_gradient_per_update"] == 3 * 4
    assert list(results["loops"]) == ["plain loop", "frames on the device", "frames on the host"]
    assert results["loops"]["plain loop"]["ratio_to_plain_loop"]["median"] == 1
    for found in results["loops"].values():
        assert len(found["updates_per_second"]["rounds"]) == 3
    frames = 202 * 12 * 12 * 3  # two episodes
    assert results["loops"]["frames on the device"]["memory_bytes"] > frames
    for found in results["devices_by_ms"]["5"].values():
        assert 0 <= found["idle_share"] < 1
        assert found["host_cpu_ms"] > 0
    assert "| idle at 5 ms an update |" in printed


def test_the_plain_loops_batches_are_the_librarys():
    transitions = pixels.random_images(250, 12)
    plain = pixels.PlainLoop(transitions, None, 64, update=lambda agent, batch: None)
    stacks = stack_frames(transitions, pixels.FRAMES)
    uncropped = 0
    for _ in range(8):
        batch = plain.batch()
        rows = [np.flatnonzero((transitions["actions"] == a).all(1))[0] for a in batch["actions"]]
        same = [np.array_equal(batch[n], stacks[n][np.array(rows)]) for n in stacks if n in batch]
        assert same[1:2] + same[3:] == [True] * 3  # actions, rewards and masks
        uncropped += all(same)
    assert 0 < uncropped < 8


def test_a_device_that_only_sleeps_is_busy_while_it_does():
    device = pixels.Device(0.01)
    state = device.run(device.run(device.first_state(), {}, 3), {}, 2)
    assert state.step == 5
    state.block_until_ready()
    assert device.busy >= 0.05


def test_a_grid_is_timed_beside_a_run_and_as_many_seeds(tmp_path, capsys):
    path = tmp_path / "grids.json"
    grids.main([*TINY.split(), "--points=3", f"--output={path}"])
    cost = json.loads(path.read_text())["cost_in_runs"]
    assert list(cost) == ["one run", "3 seeds", "grid of 3"]
    assert cost["one run"]["median"] == 1
    assert all(len(case["rounds"]) == 3 and case["min"] > 0 for case in cost.values())
    assert "| grid of 3 | " in capsys.readouterr().out


@pytest.mark.slow
def test_one_command_measures_all(tmp_path, capfd):
    few = tmp_path / "few"
    few.mkdir()
    (few / "imitator.py").write_text((toys.AGENTS / "bc.py").read_text())
    sizes = "--seeds 1 2 --updates 2 --interval 20 --episodes 2 --hidden_dims 16 --rows 20000"
    sizes += " --image_size 12"
    folder = tmp_path / "found"
    given = [*sizes.split(), "--agents", str(few), "--minutes=0.2", f"--output={folder}"]
    assert benchmarks.main(given) == 0
    printed = capfd.readouterr().out
    said = ("hours per task", "first update after", "transitions, ", "in the background")
    for words in (*said, "Devices that sleep"):
        assert words in printed
    assert "| imitator | " in printed
    parts = ("throughput", "agents", "data", "pixels", "evaluation")
    names = {*(f"{part}.json" for part in parts), "throughput.png"}
    assert {path.name for path in folder.iterdir()} == names
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["cost"]["alone"]["median"] == 0
    # An evaluation takes longer than 20 updates, which then wait for it in either case.
    assert found["cost"]["beside"]["median"] > 1
