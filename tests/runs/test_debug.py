"""--debug finds the line of the agent that makes a NaN, and changes nothing."""

import hashlib
import inspect
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import diverging
from tests.small_runs import FLAGS, execute, execute_run, folder_of, make_run, train
from utils.errors import UserError
from utils.runs.eager import describe, find_line
from utils.runs.signals import SEED_FAILED

AGENT = Path(diverging.__file__)
LINES = AGENT.read_text().splitlines()
LINE = next(i for i, line in enumerate(LINES, start=1) if "here it fails" in line)
FOUND = f"NaN in log at {AGENT}:{LINE} (total_loss)"


def contents(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def debugged(*args, **changes):
    """The error of a run that is debugged; its folder must stay as it is."""
    run = make_run(*args, debug=True, **changes)
    before = contents(run.folder.path)
    with pytest.raises(UserError) as error:
        execute_run(run)
    assert contents(run.folder.path) == before
    return error.value


def command(tmp_path, dataset_dir, **changes):
    """The entry point's command line for a run of that agent."""
    flags = FLAGS | {"save_dir": tmp_path / "exp", "dataset_dir": dataset_dir, "agent": AGENT}
    flags |= {"debug": None} | changes
    given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    return [sys.executable, "main.py", *given]


def test_the_line_is_found_that_ended_a_run(tmp_path, dataset_dir):
    arguments = command(tmp_path, dataset_dir, eval_interval=0)
    assert "with --debug" in execute(arguments, code=1)
    before = contents(folder_of(tmp_path))
    output = execute([*arguments, "--debug"], code=1)
    assert contents(folder_of(tmp_path)) == before
    assert "debug: replaying from step 20; nothing is written" in output
    *_, penalty, gives, source, error = output.splitlines()
    assert error.startswith(f"error: seed 0, update after step 25: {FOUND}")
    assert penalty.strip() == "penalty = jnp.log(margin)  # here it fails"
    assert gives.strip() == "gives float32[], 1 of 1 NaN"
    assert source.strip() == "from margin: float32[] from -0.5 to -0.5"


def test_the_line_is_found_for_the_seed_that_failed_beside_others(
    tmp_path, dataset_dir, one_of_three
):
    """The others' checkpoints are later than the failed seed's."""
    seed, threshold = one_of_three
    args = (tmp_path, dataset_dir)
    changes = {"agent": AGENT, "num_seeds": 3, "eval_interval": 0, "offline_steps": 60}
    changes["threshold"] = threshold
    assert execute_run(make_run(*args, **changes)) == SEED_FAILED
    assert str(debugged(*args, **changes)).startswith(f"seed {seed}, update after step 25: {FOUND}")


@pytest.mark.slow
def test_a_seed_fails_alone_and_is_debugged_on_several_devices(tmp_path, dataset_dir, one_of_three):
    seed, threshold = one_of_three
    arguments = command(tmp_path, dataset_dir, num_seeds=3, offline_steps=60)
    arguments.append(f"--agent.threshold={threshold}")
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    output = execute(arguments, code=SEED_FAILED, **devices)
    assert "devices: 3 x cpu" in output
    assert output.splitlines()[-1] == f"failed seeds: {seed} at step 30; exit code 3"
    output = execute([*arguments, "--debug"], code=1, **devices)
    assert f"seed {seed}, update after step 25: {FOUND}" in output


def test_the_line_is_found_online(tmp_path, dataset_dir):
    changes = {"offline_steps": 20, "online_steps": 40, "eval_interval": 0, "save_interval": 5}
    changes |= {"agent": AGENT, "online": True}
    with pytest.raises(UserError, match="with --debug"):
        execute_run(make_run(tmp_path, dataset_dir, **changes))
    assert FOUND in str(debugged(tmp_path, dataset_dir, **changes))


def test_where_nothing_failed_it_says_so(tmp_path, dataset_dir, capsys):
    changes = {"agent": AGENT, "bad_update": 1000, "eval_interval": 0}
    with pytest.raises(UserError, match="there is no run to debug in"):
        execute_run(make_run(tmp_path, dataset_dir, debug=True, **changes))
    run = train(tmp_path, dataset_dir, **changes)
    before = contents(run.folder.path)
    assert execute_run(make_run(tmp_path, dataset_dir, debug=True, **changes)) == 0
    assert "debug: no NaN or infinity from step 40 to 40" in capsys.readouterr().out
    assert contents(run.folder.path) == before
    with pytest.raises(UserError, match="give one of them"):
        execute_run(make_run(tmp_path, dataset_dir, debug=True, overwrite=True, **changes))


def root(x):
    squares = x * 0.0
    return (jnp.sqrt(squares) * x).sum()


def test_a_gradient_names_the_line_of_what_it_is_the_gradient_of():
    found = find_line(lambda: jax.jit(jax.grad(root))(jnp.array([1.0, 2.0])))
    first = inspect.getsourcelines(root)[1]
    assert found.place in {f"{__file__}:{first + i} (root, in its gradient)" for i in (1, 2)}
    assert any("infinite" in line for line in found.details)


def test_infinities_are_found_where_there_is_no_nan():
    def overflow():
        size = jnp.float32(100.0)
        return jnp.exp(size)

    assert find_line(overflow) is None
    found = find_line(overflow, infinities=True)
    assert found.what == "infinity in exp"
    assert found.line == "return jnp.exp(size)"
    assert found.details == (
        "gives float32[], 1 of 1 infinite",
        "from size: float32[] from 100 to 100",
    )


def test_an_array_is_described_by_what_helps():
    values = np.array([[1.5, np.nan], [-2.0, np.inf]], np.float32)
    assert describe(values) == "float32[2, 2] from -2 to 1.5, 1 of 4 NaN, 1 of 4 infinite"
    assert describe(np.arange(3)) == "int64[3] from 0 to 2"
    assert describe(np.zeros((0, 2))) == "float64[0, 2]"
