"""Small runs of a real task that several tests start, in this process and in others."""

import dataclasses
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import numpy as np
import pytest

from tests import toys
from utils.checkpoints import Checkpoints
from utils.collect.workers import collect
from utils.report.csv_log import read_csv
from utils.runs import launch, settings
from utils.runs.background import BackgroundEvaluation
from utils.runs.grids import Grid
from utils.runs.run import Run

REPOSITORY = Path(__file__).parents[1]
TASK = "pointmaze-medium-navigate"
SMALL = {
    **toys.SHALLOW,
    "batch_size": 8,
    "flow_steps": 2,
}
FLAGS = {
    "env_name": TASK,
    "seed": 0,
    "num_seeds": 1,
    "run_group": "test",
    "restore_path": None,
    "collect_missing": False,
    "overwrite": False,
    "debug": False,
    "offline_steps": 40,
    "log_interval": 10,
    "eval_interval": 20,
    "save_interval": 20,
    "save_minutes": 10.0,
    "eval_episodes": 1,
    "eval_workers": 1,
    "video_episodes": 0,
    "video_frame_skip": 3,
    "wandb_mode": "disabled",
    "matmul_precision": "default",
    "sampling": "uniform",
    "eval_policy": "sample",
    "p_aug": None,
    "frame_stack": None,
    "vary": None,
}
ONLINE_FLAGS = {"online_steps": 60, "buffer_size": 5000, "utd": 1, "balanced_sampling": False}


with pytest.MonkeyPatch.context() as _patch:  # of one process, only one can define the flags
    _patch.setattr(settings, "define", lambda *_, **__: None)
    ENTRY_POINTS = {
        False: importlib.import_module("main"),
        True: importlib.import_module("online_main"),
    }


def collect_small(folder, seed, episode_length=100):
    """A small dataset of the task, other for every seed."""
    collect(
        TASK,
        dataset_dir=folder,
        episodes=3,
        val_episodes=1,
        episode_length=episode_length,
        workers=1,
        seed=seed,
    )


def make_run(tmp_path, dataset_dir, agent="deflow", online=False, varied=None, **changes):
    """A run of the small agent in this process; keys of the agent or flags may be changed.

    Args:
        tmp_path: Where runs go.
        dataset_dir: Where the data are.
        agent: A name in agents/, or a file.
        online: Whether the run goes on online.
        varied: By name, values of the agent's settings, one for every grid point.
        **changes: Settings of the agent, or flags.
    """
    agent_file = toys.load(agent if isinstance(agent, Path) else toys.AGENTS / f"{agent}.py")
    config = agent_file.config.copy_and_resolve_references()
    small = {key: value for key, value in SMALL.items() if key in config}
    config.update(small)
    flags = FLAGS | {"save_dir": str(tmp_path / "exp"), "dataset_dir": str(dataset_dir)}
    flags |= ONLINE_FLAGS if online else {}
    given = set(flags) - {"offline_steps"} if online else set(flags)
    given |= {f"agent.{key}" for key in small}
    for key, value in changes.items():
        if key in config:
            config[key] = value
            given.add(f"agent.{key}")
        else:
            assert key in flags
            flags[key] = value
            given.add(key)
    points = []
    for values in zip(*varied.values(), strict=True) if varied else [()]:
        own = dict(zip(varied or (), values, strict=True))
        config.update(own)
        named = given | {f"agent.{key}" for key in own}
        resolved = settings.combine(flags, config, named, agent_file, online)
        agent_file.agent_class.check_config(resolved.agent)
        points.append(dataclasses.replace(resolved, varied=own))
    return Run(Grid(tuple(points)), agent_file)


def execute_run(run):
    """Do what the entry point does with a run; returns the exit code."""
    return launch.execute_run(ENTRY_POINTS[run.settings.online].main, run)


def cut_off_after(steps):
    """The loop of `main.py`, of a process that is killed."""

    def main(run):
        trainer, state = run.start()
        for stop in run.stops():
            if stop.start == steps:
                return 1
            state = trainer.update(state, stop.steps)
            if stop.log:
                state = run.log(state)
            if stop.evaluate:
                run.evaluate(state)
            if stop.save:
                run.save(state)
        raise AssertionError

    return main


def train(tmp_path, dataset_dir, **changes):
    """Train to the end; returns the run."""
    run = make_run(tmp_path, dataset_dir, **changes)
    assert execute_run(run) == 0
    return run


def delay_evaluations(patch, run, steps, then=lambda step: None):
    """Have evaluations begin only when training has logged so many more steps, or is stopped.

    Args:
        patch: A monkeypatch.
        run: Whose evaluations.
        steps: How many; fewer at the end of a phase, which waits for its evaluation.
        then: Called with the evaluated agent's step.
    """
    original = BackgroundEvaluation._evaluate

    def evaluate(evaluation, step, *args):
        until = min(step + steps, run._schedule._stop.phase.end)
        while run.progress.last_logged < until:
            assert not evaluation._closing
            time.sleep(0.01)
        then(step)
        return original(evaluation, step, *args)

    patch.setattr(BackgroundEvaluation, "_evaluate", evaluate)
    patch.setattr("utils.runs.background.has_one_thread", lambda: False)


def stopped_while_evaluating(monkeypatch, step, *args, **changes):
    """A run that a signal stops while the agent of `step` is evaluated and 10 steps after it."""

    def stop(evaluated):
        if evaluated == step:
            os.kill(os.getpid(), signal.SIGTERM)

    run = make_run(*args, **changes)
    with monkeypatch.context() as patch:
        delay_evaluations(patch, run, 10, then=stop)
        assert execute_run(run) == 75
    return run


def latest_step(run):
    """The step of a run's last checkpoint."""
    checkpoints = Checkpoints(run.folder.path, read_only=True)
    step = checkpoints.latest_step()
    checkpoints.close()
    return step


def networks(run):
    """All that a run's agents had learnt by its last checkpoint, as arrays by name."""
    return final_state(run.folder.path)[1]["agents"]["network"]


def rows_of(run, name="train"):
    """The rows of one of a run's CSV files."""
    return read_csv(run.folder.path / f"{name}.csv")


def command(tmp_path, dataset_dir, *arguments, online=False, settings=SMALL, **changes):
    """The entry point's command line for the same small run, with settings of the agent."""
    flags = FLAGS | (ONLINE_FLAGS if online else {})
    flags |= {"save_dir": tmp_path / "exp", "dataset_dir": dataset_dir} | changes
    return [
        sys.executable,
        "online_main.py" if online else "main.py",
        *(f"--{key}={value}" for key, value in flags.items() if value is not None),
        *(f"--agent.{key}={value}" for key, value in settings.items()),
        *arguments,
    ]


def start(arguments, **kwargs):
    return subprocess.Popen(
        arguments,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def execute(arguments, code=0, **environment):
    process = start(arguments, env=os.environ | environment)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    assert "Traceback" not in output, output
    return output


_EACH = """
import json, multiprocessing, os, runpy, sys, tempfile
import agents, utils.runs.launch

def call(arguments, output):
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")

ends = []
for arguments in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as output:
        fork = multiprocessing.get_context("fork").Process(target=call, args=(arguments, output))
        fork.start()
        fork.join()
        output.seek(0)
        ends.append((fork.exitcode, output.read()))
print(json.dumps(ends))
"""


def execute_each(*commands, code=1, **environment):
    """Run an entry point once per list of arguments, which begins with its file.

    What entry points import is imported once, by a process that forks for each of them.

    Args:
        *commands: The lists.
        code: The code that all of them must exit with.
        **environment: Variables that are added to the environment.

    Returns:
        The output of each, in which there must be no traceback.
    """
    done = subprocess.run(
        [sys.executable, "-c", _EACH],
        cwd=REPOSITORY,
        env=os.environ | environment,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    codes, outputs = zip(*json.loads(done.stdout), strict=True)
    assert len(outputs) == len(commands)
    assert set(codes) == {code}, outputs
    assert not any("Traceback" in output for output in outputs), outputs
    return outputs


def check_mistakes(entry_point, tmp_path, mistakes):
    """Check that arguments give one message, a line or two, before anything else is done.

    Args:
        entry_point: Its file.
        tmp_path: A folder for runs.
        mistakes: Pairs of arguments, and words of the message.
    """
    begin = [entry_point, f"--save_dir={tmp_path}"]
    outputs = execute_each(*([*begin, *arguments] for arguments, _ in mistakes))
    for (_, message), output in zip(mistakes, outputs, strict=True):
        assert message in output
        assert len(output.strip().splitlines()) <= 2, output
    assert not list(tmp_path.iterdir())


def folder_of(tmp_path):
    (folder,) = (tmp_path / "exp" / "test").glob("*/sd*")
    return folder


def final_state(folder):
    """Everything that must not depend on interruptions: arrays of the checkpoint, and the logs."""
    manager = Checkpoints(folder)
    step = manager.latest_step()
    arrays, _ = manager._read(step)
    manager.close()
    names = ("train.csv", "eval.csv", "eval_episodes.csv", "episodes.csv")
    logs = [(folder / name).read_bytes() for name in names if (folder / name).exists()]
    files = [dict(np.load(path)) for path in sorted((folder / "replay").glob("*.npz"))]
    replay = (
        {key: np.concatenate([file[key] for file in files]) for key in files[0]} if files else {}
    )
    return step, arrays | {"replay": replay}, logs


def assert_same_end(first, second):
    for a, b in zip(final_state(first), final_state(second), strict=True):
        if isinstance(a, dict):
            chex.assert_trees_all_equal(a, b)
        else:
            assert a == b


def wait_for_step(process, runs, step):
    """Wait until train.csv has a row of `step`."""
    while process.poll() is None:
        rows = [row for path in runs.glob("*/*/train.csv") for row in read_csv(path)]
        if rows and rows[-1]["step"] >= step:
            return
        time.sleep(0.05)
    raise AssertionError(process.communicate()[0])


def kill_somewhere(process, runs, draw):
    """Kill a run after progress: while it saves, or at a random moment. Returns its last step."""

    def saved():
        return [int(path.name) for path in runs.glob("*/*/checkpoints/*") if path.name.isdigit()]

    def is_saving():
        return any(True for _ in runs.glob("*/*/checkpoints/*.orbax-checkpoint-tmp"))

    before = max(saved(), default=0)
    while process.poll() is None and max(saved(), default=0) <= before:
        time.sleep(0.01)
    if draw.random() < 0.5:
        while process.poll() is None and not is_saving():
            time.sleep(0.001)
    else:
        time.sleep(draw.uniform(0.0, 3.0))
    process.kill()
    process.wait()
    return max(saved(), default=0), is_saving()


def undisturbed_and_killed(tmp_path, dataset_dir, seed, kills, **steps):
    """Kill a run several times and let it end; returns both folders and the kills during a save."""
    undisturbed = tmp_path / "undisturbed"
    if not undisturbed.exists():
        execute(command(undisturbed, dataset_dir, **steps))
    draw = random.Random(seed)
    killed = tmp_path / f"killed-{seed}"
    step, saving = None, 0
    for attempt in range(kills + 1):
        process = start(command(killed, dataset_dir, **steps))
        if attempt < kills:
            last, was_saving = kill_somewhere(process, killed / "exp" / "test", draw)
            saving += was_saving
        output, _ = process.communicate(timeout=300)
        assert "Traceback" not in output, output
        if step is not None and "finished already" not in output:
            assert f"resumed at step {step}" in output
        step = last
    assert process.returncode == 0, output
    return folder_of(undisturbed), folder_of(killed), saving
