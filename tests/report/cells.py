"""Cells of a report without runs."""

from pathlib import Path

import numpy as np

from utils.report.folders import RunConfig
from utils.report.pooling import Cell
from utils.report.records import SeedRecord

CUBE = "cube-double-play-singletask-task{}-v0"
CUBE_1 = CUBE.format(1)


def make_cell(
    task=CUBE_1,
    label="deflow",
    *,
    seeds=2,
    values=(10.0, 50.0, 70.0),
    interval=100,
    metric="success",
    online_start=None,
    states=None,
    steps_wanted=None,
):
    """A cell; seed i has i more than the values.

    Args:
        task: Full name.
        label: Of the method; the agent is what stands before a comma.
        seeds: How many.
        values: Of seed 0 at each evaluation.
        interval: Steps between them.
        metric: What they are of.
        online_start: Step at which runs go online.
        states: By seed (state, number of its evaluations); done with all by default.
        steps_wanted: By default those of the last evaluation.
    """
    agent = label.split(",")[0]
    steps = interval * np.arange(1, len(values) + 1)
    config = RunConfig(
        task=task,
        agent=agent,
        seeds=tuple(range(seeds)),
        eval_episodes=50,
        steps_wanted=steps_wanted or interval * len(values),
        online_start=online_start,
        protocol={"metric": metric, "evaluations": 1},
        panels=(),
    )
    records = []
    for seed in range(seeds):
        state, number = (states or {}).get(seed, ("done", len(values)))
        own = dict(zip(steps[:number].tolist(), np.add(values[:number], seed), strict=True))
        done = int(steps[number - 1]) if number else 0
        records.append(
            SeedRecord(
                folder=Path("run"),
                seed=seed,
                config=config,
                metric=metric,
                evaluations=own,
                episodes={},
                steps=done,
                state=state,
                failed=done + interval // 2 if state == "diverged" else None,
            )
        )
    return Cell(task, agent, label, tuple(records))
