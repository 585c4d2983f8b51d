"""All numbers of a report as plain arrays."""

import io

import numpy as np

from utils.report.grid import Grid
from utils.report.pooling import Cell
from utils.report.scores import METRICS


def to_npz(grid: Grid) -> bytes:
    """Return all evaluations of all seeds as an npz file of plain arrays.

    Read it by `numpy.load(path, allow_pickle=False)`. The layout is that of the curves which QAM's
    authors released:

    - for each metric that runs are scored by (`success` as a fraction, `normalized_return`,
      `return`) an array (methods, tasks, seeds, evaluations), NaN where nothing was measured;
    - `methods`, `tasks`, `seeds`, `steps`: what the axes stand for. A column is one seed of one
      method on all tasks, and a step of the same number in all runs;
    - `state` (methods, tasks, seeds): done, running, unfinished, crashed, diverged, or empty
      without a run;
    - `offline_steps` and `episodes_per_eval` (methods, tasks), -1 without a run; runs that stay
      offline have their whole length as `offline_steps`.

    The same runs give the same bytes.
    """
    cells = grid.cells.values()
    seeds = sorted({record.seed for cell in cells for record in cell.records})
    steps = sorted({s for cell in cells for record in cell.records for s in record.evaluations})
    shape = len(grid.labels), len(grid.tasks), len(seeds), len(steps)
    arrays = {
        "methods": np.array(grid.labels, dtype=str),
        "tasks": np.array(grid.tasks, dtype=str),
        "seeds": np.array(seeds, dtype=np.int64),
        "steps": np.array(steps, dtype=np.int64),
        "state": np.full(shape[:3], "", dtype="<U10"),
        "offline_steps": np.full(shape[:2], -1, dtype=np.int64),
        "episodes_per_eval": np.full(shape[:2], -1, dtype=np.int64),
    }
    for metric in METRICS:
        if any(record.metric == metric for cell in cells for record in cell.records):
            arrays[metric] = np.full(shape, np.nan)
    for (task, label), cell in grid.cells.items():
        where = grid.labels.index(label), grid.tasks.index(task)
        arrays["offline_steps"][where] = _offline_steps(cell)
        arrays["episodes_per_eval"][where] = cell.records[0].config.eval_episodes
        for record in cell.records:
            at = (*where, seeds.index(record.seed))
            arrays["state"][at] = record.state
            own = [steps.index(step) for step in record.evaluations]
            values = np.array(list(record.evaluations.values()))
            arrays[record.metric][(*at, own)] = values / METRICS[record.metric].factor
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _offline_steps(cell: Cell) -> int:
    config = cell.records[0].config
    return config.steps_wanted if config.online_start is None else config.online_start
