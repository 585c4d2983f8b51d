"""What episodes of several policies say: results, differences from the first, tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.analysis.entries import Entry
from utils.analysis.paired import Difference, Interval, compare
from utils.report.captions import metric_name
from utils.report.csv_log import Row
from utils.report.estimates import interval_text, number_text, wilson_interval
from utils.report.rendering import Table, markdown
from utils.report.scores import METRICS, scored_metric
from utils.report.statistics import bootstrap_interval, mean

READING = (
    "All policies met the same resets and, at each step, the same base noise; differences are from "
    "the first policy, episode by episode. 'These agents' would have played more episodes (paired "
    "bootstrap); 'new seeds' would have been trained besides (Student's t). p is of the exact sign "
    "test on the episodes that differ. Detectable is the least true difference that as many "
    "episodes, or seeds, would find with probability 0.8. Milliseconds are those of one action at "
    "one state, on the CPU."
)
"""How to read the tables."""


@dataclass(frozen=True)
class Result:
    """What one policy with one budget reached in the runs of a group.

    Attributes:
        entry: The policy.
        metric: What it is scored by, a key of `utils.report.scores.METRICS`.
        scores: Of each agent, by run and seed, the scores of its episodes (episodes,), in percent
            where the metric is a share.
        milliseconds: Per action, the mean over runs.
        difference: From the first policy of the group; None for that one.
    """

    entry: Entry
    metric: str
    scores: dict[tuple[str, int], np.ndarray]
    milliseconds: float
    difference: Difference | None = None

    @property
    def value(self) -> float:
        """Mean over agents of the mean over episodes."""
        return float(mean(list(self.scores.values())))

    @property
    def episodes(self) -> int:
        """Number of episodes of all agents."""
        return sum(map(len, self.scores.values()))

    @property
    def interval(self) -> Interval | None:
        """95 % interval for these agents; Wilson's of a share, else a bootstrap over episodes."""
        scores, factor = list(self.scores.values()), METRICS[self.metric].factor
        if self.metric == "success":
            low, high = wilson_interval(self.value / factor * self.episodes, self.episodes)
            return factor * low, factor * high
        interval = bootstrap_interval(mean, scores)
        return interval and (float(interval[0]), float(interval[1]))


def rows_of(rows: Sequence[Row], run: str, step: int, entry: Entry, episodes: int) -> list[Row]:
    """Return the rows of one policy on one run's checkpoint, with so many episodes per agent."""
    wanted = (run, step, entry.name, entry.unit, entry.budget, episodes)
    names = ("run", "step", "policy", "unit", "budget", "episodes")
    return [row for row in rows if tuple(_cell(row, name) for name in names) == wanted]


def _cell(row: Row, name: str) -> Any:
    value = row.get(name, "")
    return value if name in ("step", "budget", "episodes") else str(value)


def group_of(run: str) -> str:
    """Return what runs of equal settings have in common: the folder that they are in."""
    return Path(run).parent.name or run


def results(rows: Sequence[Row], entries: Sequence[Entry]) -> list[Result]:
    """Return the results of a group of runs, each with its difference from the first.

    Args:
        rows: An episode each: run, seed, policy, unit, budget, episode, milliseconds, metrics.
        entries: The policies that are wanted, the first of which the others are compared with.
    """
    metric = scored_metric(rows) or "return"
    found: list[Result] = []
    for entry in entries:
        scores: dict[tuple[str, int], dict[int, float]] = {}
        times: dict[str, float] = {}
        for row in rows:
            mine = (_cell(row, "policy"), _cell(row, "unit"), row["budget"])
            if mine == (entry.name, entry.unit, entry.budget):
                run = str(row["run"])
                by_episode = scores.setdefault((run, int(row["seed"])), {})
                by_episode[int(row["episode"])] = METRICS[metric].factor * float(row[metric])
                times[run] = float(row["milliseconds"])
        arrays = {
            agent: np.array([episodes[e] for e in sorted(episodes)])
            for agent, episodes in sorted(scores.items())
        }
        if arrays:
            difference = _difference(arrays, found[0].scores) if found else None
            milliseconds = float(np.mean(list(times.values())))
            found.append(Result(entry, metric, arrays, milliseconds, difference))
    return found


def _difference(scores: dict, reference: dict) -> Difference | None:
    """Compare two policies on the agents that have played both."""
    common = [agent for agent in scores if agent in reference]
    if not common:
        return None
    return compare([scores[agent] for agent in common], [reference[agent] for agent in common])


def tables(name: str, found: Sequence[Result]) -> str:
    """Return the results of a group as text in Markdown."""
    agents = len(found[0].scores)
    lines = [f"{name}, {agents} {'agent' if agents == 1 else 'agents'}", "", _scores(found)]
    if len(found) > 1:
        lines += ["", f"Differences from {found[0].entry}:", "", _differences(found[1:])]
    return "\n".join(lines)


def _scores(found: Sequence[Result]) -> str:
    metric = found[0].metric
    header = ("policy", "episodes", metric_name(metric), "95 % interval", "ms per action")
    rows = tuple(
        (
            str(result.entry),
            str(result.episodes),
            number_text(result.value, metric),
            interval_text(result.interval, metric),
            f"{result.milliseconds:.2f}",
        )
        for result in found
    )
    return markdown(Table(header, rows))


def _differences(found: Sequence[Result]) -> str:
    header = (
        "policy",
        "difference",
        "95 %, these agents",
        "95 %, new seeds",
        "better",
        "worse",
        "p",
        "detectable, these agents",
        "detectable, new seeds",
    )
    rows = []
    for result in found:
        if (one := result.difference) is None:
            rows.append((str(result.entry), *["-"] * (len(header) - 1)))
            continue
        texts = [
            "-" if value is None else number_text(value, result.metric)
            for value in (one.detectable_of_these, one.detectable_of_new)
        ]
        same = one.better + one.worse == 0
        rows.append(
            (
                str(result.entry),
                number_text(one.value, result.metric),
                "no episode differs" if same else interval_text(one.of_these, result.metric),
                interval_text(one.of_new, result.metric),
                str(one.better),
                str(one.worse),
                f"{one.p:.2g}",
                *texts,
            )
        )
    return markdown(Table(header, tuple(rows)))


def result_rows(group: str, found: Sequence[Result]) -> list[dict[str, Any]]:
    """Return a row per policy and budget of a group, for a CSV file."""
    rows = []
    for result in found:
        one, interval = result.difference, result.interval
        row: dict[str, Any] = {
            "group": group,
            "policy": result.entry.name,
            "unit": result.entry.unit,
            "budget": result.entry.budget,
            "metric": result.metric,
            "agents": len(result.scores),
            "episodes": result.episodes,
            "score": result.value,
            "low": interval and interval[0],
            "high": interval and interval[1],
            "milliseconds_per_action": result.milliseconds,
            "difference": one and one.value,
            "difference_low_these_agents": one and one.of_these and one.of_these[0],
            "difference_high_these_agents": one and one.of_these and one.of_these[1],
            "difference_low_new_seeds": one and one.of_new and one.of_new[0],
            "difference_high_new_seeds": one and one.of_new and one.of_new[1],
            "better": one and one.better,
            "worse": one and one.worse,
            "p": one and one.p,
            "detectable_these_agents": one and one.detectable_of_these,
            "detectable_new_seeds": one and one.detectable_of_new,
        }
        rows.append(row)
    return rows
