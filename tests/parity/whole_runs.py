"""Whole runs of agents of other repositories, as their users have them.

An agent's file is trained by main.py, with one seed and with two, and by online_main.py, on a small
dataset that is collected. Each run is executed twice: undisturbed, and stopped by SIGTERM on its
way and started again, after which all rows, parameters and moments must be the same bits.
"""

import dataclasses
import os
import re
import signal
import tempfile
from pathlib import Path

from tests.small_runs import (
    SMALL,
    assert_same_end,
    collect_small,
    command,
    execute,
    folder_of,
    start,
    wait_for_step,
)
from utils.agent_files import load_agent_file
from utils.errors import UserError
from utils.report.csv_log import read_csv

OFFLINE = {"offline_steps": 40_000, "log_interval": 10_000}
OFFLINE |= {"eval_interval": 30_000, "save_interval": 30_000}
ONLINE = {"offline_steps": 200, "online_steps": 1100}  # an episode of the task has 1000 steps
ONLINE |= {"log_interval": 100, "eval_interval": 650, "save_interval": 650}
RUNS = {
    "1 seed": OFFLINE,
    "2 seeds": OFFLINE | {"num_seeds": 2},
    "online": ONLINE | {"online": True},
}
STOP_AFTER = {"1 seed": 20_000, "2 seeds": 20_000, "online": 600}
"""The step of the row after which a run is stopped: between rows, and within an episode."""
CPU = {"JAX_PLATFORMS": "cpu"}  # where kernels repeat


@dataclasses.dataclass(frozen=True)
class Found:
    """What holds of a run.

    Attributes:
        trains: It ends, its numbers finite.
        evaluates: It has all evaluations, and losses on validation data.
        stopped: Step at which it was stopped and started again, and then ended with the same bits.
        error: The last line of what went wrong, if something did.
    """

    trains: bool = False
    evaluates: bool = False
    stopped: int | None = None
    error: str = ""


def whole_run(name, path, settings, dataset_dir, folder):
    """Execute one of `RUNS` of an agent's file, undisturbed and stopped.

    Args:
        name: Which one.
        path: The file.
        settings: The agent's settings.
        dataset_dir: Where the data are.
        folder: Where the run goes.
    """
    changes = RUNS[name] | {"agent": path, "settings": settings}
    end = RUNS[name]["offline_steps"] + RUNS[name].get("online_steps", 0)
    undisturbed, resumed = folder / "undisturbed", folder / "resumed"
    found = Found()
    try:
        execute(command(undisturbed, dataset_dir, **changes), **CPU)
        found = dataclasses.replace(found, trains=True)
        require_evaluations(folder_of(undisturbed), RUNS[name].get("num_seeds", 1), end)
        found = dataclasses.replace(found, evaluates=True)
        arguments = command(resumed, dataset_dir, **changes)
        step = stop_and_resume(arguments, resumed, STOP_AFTER[name], end)
        require_same_end(folder_of(undisturbed), folder_of(resumed))
        return dataclasses.replace(found, stopped=step)
    except AssertionError as error:
        lines = str(error).strip().splitlines() or ["it ended without a word"]
        return dataclasses.replace(found, error=lines[-1].removeprefix("error: "))


def require_evaluations(folder, seeds, end):
    """Check that a run of so many seeds has evaluations up to its end, and validation losses."""
    rows = read_csv(folder / "eval.csv")
    evaluated = {row["seed"] for row in rows if row["step"] == end}
    assert evaluated == set(range(seeds)), "no last evaluation"
    assert any(row["step"] < end for row in rows), "no evaluation before the last"
    last = read_csv(folder / "train.csv")[-1]
    assert last["step"] == end, f"the last row is that of step {last['step']}"
    assert any(key.startswith("validation/") for key in last), "no losses on validation data"


def stop_and_resume(arguments, folder, step, end):
    """Start a run, stop it after its row of `step`, and start it again.

    Args:
        arguments: The command.
        folder: Where runs go.
        step: The step.
        end: The step at which it ends.

    Returns:
        The step at which it was stopped.
    """
    process = start(arguments, env=os.environ | CPU)
    wait_for_step(process, folder / "exp" / "test", step)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75, output
    saved = re.search(r"saved step (\d+)", output)
    assert saved, output
    stopped = int(saved[1])
    assert 0 < stopped < end, f"it was stopped at step {stopped}, which is not on its way"
    output = execute(arguments, **CPU)
    assert f"resumed at step {stopped}" in output, output
    return stopped


def require_same_end(undisturbed, resumed):
    """Check that two runs' folders hold the same bits."""
    try:
        assert_same_end(undisturbed, resumed)
    except AssertionError:
        raise AssertionError("started again, it ends with other numbers") from None


# --- The table ------------------------------------------------------------------------------------


def small_settings(path, given):
    """Those settings of the small runs and of those given that an agent's file has."""
    config = load_agent_file(path).config
    return {key: value for key, value in (SMALL | given).items() if key in config}


def row(path, found):
    """A row of the Markdown table, of what was found by name of the run."""
    offline = [found["1 seed"], found["2 seeds"]]
    stopped = [run.stopped for run in found.values()]
    cells = [
        yes_or_no(all(run.trains for run in offline)),
        yes_or_no(all(run.evaluates for run in found.values())),
        f"yes, at {', '.join(map(str, stopped))}" if all(stopped) else "no",
        yes_or_no(found["online"].trains),
    ]
    errors = [f"{name}: {run.error}" for name, run in found.items() if run.error]
    error = errors[0].replace(str(path), path.name).replace("|", "\\|") if errors else ""
    return f"| {'/'.join(path.parts[-3:])} | {' | '.join(cells)} | {error} |"


def yes_or_no(holds):
    """The word in a cell."""
    return "yes" if holds else "no"


def table(paths, settings_of):
    """Yield the lines of the Markdown table.

    Args:
        paths: The agents' files.
        settings_of: Gives the settings that are asked for, from a path.
    """
    yield "| file | trains | evaluates | resumes to the bit | goes online | error |"
    yield "|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        collect_small(data, seed=0, episode_length=1000)  # long enough to reach the goal
        for number, path in enumerate(paths):
            try:
                settings = small_settings(path, settings_of(path))
            except UserError as error:
                yield row(path, dict.fromkeys(RUNS, Found(error=str(error))))
                continue
            runs = Path(folder, str(number))
            yield row(
                path, {name: whole_run(name, path, settings, data, runs / name) for name in RUNS}
            )
