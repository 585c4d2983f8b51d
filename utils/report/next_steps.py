"""What to do next: which policy to deploy, and how many more seeds would decide."""

import numpy as np

from utils.report.aggregates import Comparison, group_scores
from utils.report.captions import task_title
from utils.report.deployment import expected_deployment
from utils.report.estimates import RATES, number_text
from utils.report.grid import Grid
from utils.report.more_seeds import forecast, sentence
from utils.report.pooling import Cell
from utils.report.rendering import Table
from utils.report.tables import has_lines

BUDGETS = (10, 30, 100)
DEPLOYMENT = (
    "Expected score of the policy that a bandit (UCB) chooses among the final policies of all "
    "seeds by so many episodes, estimated from their kept episodes. (The best last evaluation was "
    "lucky, too.)"
)
_REPETITIONS = 100  # for each of many tasks, whose mean is shown without an interval


def deployment_table(grid: Grid) -> Table | None:
    """Return what the policies that a bandit would choose are expected to score.

    Few cells have a line each, with 95 % intervals over policies in brackets. Of many there is a
    line per method, of means over the tasks on which all methods have several policies.

    Returns:
        The table, or None where no cell has episodes of two final policies.
    """
    episodes = {key: final_episodes(cell) for key, cell in grid.cells.items()}
    budgets = tuple(f"by {number} episodes" for number in BUDGETS)
    if has_lines(grid):
        several = len(grid.tasks) > 1
        lines = [
            (
                label,
                *([task_title(grid)(task)] if several else []),
                *_line(grid.cells[task, label], episodes[task, label]),
            )
            for task, label in grid.cells
            if len(episodes[task, label]) > 1
        ]
        header = ("method", *(["task"] if several else []), "policies", "one at random", *budgets)
        return Table((*header, "best last evaluation"), tuple(lines)) if lines else None
    tasks = [
        task
        for task in grid.tasks
        if all(len(episodes.get((task, label), {})) > 1 for label in grid.labels)
        and grid.cells[task, grid.labels[0]].records[0].metric in RATES
    ]
    if not tasks:
        return None
    lines = [(label, *_mean_line([episodes[t, label] for t in tasks])) for label in grid.labels]
    header = (f"method, mean of {len(tasks)} tasks", "policies per task", "one at random", *budgets)
    return Table(header, tuple(lines))


def final_episodes(cell: Cell) -> dict[int, np.ndarray]:
    """Return the scores of the kept episodes (episodes,) of each final policy, by seed."""
    kept = {record.seed: record.episodes.get(cell.at_step) for record in cell.scored}
    return {
        seed: values
        for seed, values in kept.items()
        if values is not None and len(values) > 1 and np.isfinite(values).all()
    }


def _line(cell: Cell, episodes: dict[int, np.ndarray]) -> list[str]:
    metric = cell.records[0].metric
    found = expected_deployment(list(episodes.values()), budgets=BUDGETS, policies=[len(episodes)])
    means = {seed: float(values.mean()) for seed, values in episodes.items()}
    best = max(means, key=means.__getitem__)
    texts = [
        "{} [{} to {}]".format(*(number_text(float(value), metric) for value in values))
        for values in zip(found.scores[0], found.low[0], found.high[0], strict=True)
    ]
    at_random = number_text(float(np.mean(list(means.values()))), metric)
    return [
        str(len(episodes)),
        at_random,
        *texts,
        f"seed {best}, {number_text(means[best], metric)}",
    ]


def _mean_line(tasks: list[dict[int, np.ndarray]]) -> list[str]:
    scores = [
        expected_deployment(
            list(episodes.values()),
            budgets=BUDGETS,
            policies=[len(episodes)],
            repetitions=_REPETITIONS,
        ).scores[0]
        for episodes in tasks
    ]
    at_random = np.mean([np.mean([v.mean() for v in episodes.values()]) for episodes in tasks])
    policies = sorted({len(episodes) for episodes in tasks})
    numbers = [at_random, *np.mean(scores, axis=0)]
    return [
        " or ".join(map(str, policies)),
        *(number_text(float(value), RATES[0]) for value in numbers),
    ]


def seeds_sentences(grid: Grid, comparisons: list[Comparison], which: str) -> list[str]:
    """Return how many more seeds would decide between the best two methods.

    Over the greatest group of tasks; without one, on the only task.
    """
    if len(grid.labels) < 2:
        return []
    if comparisons:
        group = comparisons[-1].group
        scores = {label: group_scores(grid, group, label, which) for label in grid.labels}
        prefix = f"Over {group.title}: "
    elif len(grid.tasks) == 1:
        scores = {label: [cell.scores(which)] for (_, label), cell in grid.cells.items()}
        scores = {label: own for label, own in scores.items() if len(own[0])}
        prefix = ""
    else:
        return []
    means = {label: np.mean([task.mean() for task in own]) for label, own in scores.items()}
    if len(means) < 2:
        return []
    best, second = sorted(means, key=means.__getitem__, reverse=True)[:2]
    line = prefix + sentence(forecast(scores[best], scores[second]), best, second)
    unfinished = any(
        not cell.complete for (_, label), cell in grid.cells.items() if label in (best, second)
    )
    if unfinished:
        line += " Not all of their runs have finished."
    if len(means) > 2:
        line += (
            f" They are the best two of {len(means)} methods, a choice that the interval ignores."
        )
    return [line]
