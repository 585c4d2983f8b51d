"""Run folders without runs."""

import dataclasses
import json

from utils.metrics import Panel
from utils.report.csv_log import CsvLog
from utils.report.grid import arrange
from utils.report.pooling import pool
from utils.report.records import find_runs, read_run

PROTOCOL = {"metric": "success", "evaluations": 3}
TASK = "cube-double-play-singletask-task{}-v0"
PANELS = (
    Panel("divergence / delta", "actor/divergence_ratio", "log", reference=1.0),
    Panel("alpha", "alpha/alpha", "log"),
    Panel("mean |Q|", "critic/q_abs"),
    Panel("critic loss", "critic/critic_loss", "log"),
    Panel("flow loss", "flow/flow_loss"),
    Panel("Q gained", "validation/actor/q_gain", reference=0.0),
)


def write(path, rows):
    path.unlink(missing_ok=True)
    log = CsvLog(path)
    for row in rows:
        log.append(row)


def make_run(
    folder,
    *,
    success=(0.1, 0.5, 0.7, 0.9),
    seeds=2,
    panels=PANELS,
    keys=None,
    agent="deflow",
    online_start=None,
    protocol=None,
    task="cube-single-play-singletask-v0",
    settings=None,
    dataset="d0",
    versions=None,
    episodes=False,
    finished=True,
    **flags,
):
    """A run folder; seed i has i / 50 more success than the first."""
    keys = [panel.key for panel in panels] if keys is None else keys
    folder.mkdir(parents=True, exist_ok=True)
    flags = {
        "seed": 0,
        "num_seeds": seeds,
        "offline_steps": 100 * len(success),
        "eval_episodes": 50,
        **flags,
    }
    config = {
        "env_name": task,
        "agent_path": f"/somewhere/agents/{agent}.py",
        "flags": flags,
        "online_start": online_start,
        "panels": [dataclasses.asdict(panel) for panel in panels],
        "identity": {"agent_name": agent, "agent.lr": 3e-4, **(settings or {})},
        "command": f"python main.py --env_name={task} --agent=agents/{agent}.py",
        "dataset": dataset,
    }
    numbers = range(flags["seed"], flags["seed"] + seeds)
    versions = {"jax": "0.10", "git": "abc", "devices": ["cpu"]} | (versions or {})
    (folder / "versions.json").write_text(json.dumps(versions))
    if protocol is not None:
        config["protocol"] = protocol
    (folder / "config.json").write_text(json.dumps(config))
    write(
        folder / "eval.csv",
        [
            {"step": 100 * (i + 1), "seed": s, "success": rate + n / 50, "return": -9.0}
            for i, rate in enumerate(success)
            for n, s in enumerate(numbers)
        ],
    )
    if episodes:
        write(
            folder / "eval_episodes.csv",
            [
                {
                    "step": 100 * (i + 1),
                    "seed": s,
                    "episode": e,
                    "success": float(e < 50 * rate + n),
                }
                for i, rate in enumerate(success)
                for n, s in enumerate(numbers)
                for e in range(50)
            ],
        )
    write(
        folder / "train.csv",
        [
            {"step": 50 * (i + 1), "seed": s, **dict.fromkeys(keys, 1.0 + i + n)}
            for i in range(2 * len(success))
            for n, s in enumerate(numbers)
        ],
    )
    write(folder / "timing.csv", [{"step": 50, "updates_per_second": v} for v in (20, 141, 142)])
    if finished:
        (folder / "score.json").write_text(
            json.dumps({"line": "score", "step": 100 * len(success)})
        )
    return folder


def make_grid(folder, methods, tasks, **options):
    """A run per method and task; method m has m tenths more success than the first."""
    for m in range(methods):
        for task in range(1, tasks + 1):
            make_run(
                folder / f"{m}-{task}",
                agent=f"agent{m}",
                task=TASK.format(task),
                success=(0.1 * m, 0.1 + 0.1 * m, 0.2 + 0.1 * m),
                protocol=PROTOCOL,
                **options,
            )


def grid_of(folder, labels=None):
    """The cells of all runs below a folder."""
    records = [record for run in find_runs([folder])[0] for record in read_run(run)]
    return arrange(pool(records), labels)
