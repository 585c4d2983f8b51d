"""Published results, and the difference of one's own from them.

The numbers are in results.json beside this file: a row per method and task, or group of tasks.
"""

import contextlib
import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.envs import tasks
from utils.errors import UserError
from utils.report.published.protocol import Protocol, differences

PHASES = ("offline", "before online", "online")
"""What a result is of: an offline run, or the end of either phase of one that goes online."""


@dataclass(frozen=True)
class PublishedResult:
    """A number in a paper's table.

    Attributes:
        method: Name of the method.
        group: Name of the group of tasks, or the task.
        tasks: Full names of the tasks that the result is the mean of.
        phase: One of `PHASES`.
        mean: Over seeds and tasks, success in percent or normalized return, rounded as printed.
        std: Standard deviation over seeds; None if it is not stated.
        seeds: How many; None if it is not stated.
        source: Where the number comes from.
        protocol: How it was made.
    """

    method: str
    group: str
    tasks: tuple[str, ...]
    phase: str
    mean: float
    std: float | None
    seeds: int | None
    source: str
    protocol: Protocol

    @property
    def text(self) -> str:
        """The number with spread and seeds, as far as they are stated."""
        spread = "" if self.std is None else f" ± {self.std:g}"
        return f"{self.mean:g}{spread} ({self.seeds or '?'} seeds)"


def find(name: str, task_names: str | Iterable[str], phase: str) -> list[PublishedResult]:
    """Return a method's published results that tasks have a counterpart to.

    A result of a group of tasks is one only if all of them are there: it says nothing of a single
    task.

    Args:
        name: The method, or the stem of an agent's file.
        task_names: Full names, as `utils.envs.tasks.resolve` gives them.
        phase: One of `PHASES`.
    """
    there = numbered(task_names)
    return [result for result in _of(name, phase) if there.issuperset(result.tasks)]


def find_incomplete(
    name: str, task_names: str | Iterable[str], phase: str
) -> list[tuple[PublishedResult, int]]:
    """Return a method's results of groups that some tasks are missing of, with their number.

    See `find`.
    """
    there = numbered(task_names)
    found = [(result, len(set(result.tasks) - there)) for result in _of(name, phase)]
    return [(result, missing) for result, missing in found if 0 < missing < len(result.tasks)]


def numbered(task_names: str | Iterable[str]) -> set[str]:
    """Return the names of tasks, each by its number; one that is unknown here stays as it is."""
    names = {task_names} if isinstance(task_names, str) else set(task_names)
    found = set()
    for name in names:
        with contextlib.suppress(UserError):  # a run's task file may be gone
            name = tasks.numbered(name)
        found.add(name)
    return found


def _of(name: str, phase: str) -> list[PublishedResult]:
    if phase not in PHASES:
        raise ValueError(f"no phase {phase!r}")
    stems, results = _load()
    methods = {method for method in stems if name == method or name in stems[method]}
    return [result for result in results if result.method in methods and result.phase == phase]


@functools.cache
def _load() -> tuple[Mapping[str, Sequence[str]], tuple[PublishedResult, ...]]:
    """Read the stems of agents' files by method, and all results."""
    content = json.loads(Path(__file__).with_name("results.json").read_text())
    protocols = {name: _protocol(fields) for name, fields in content["protocols"].items()}
    groups = tasks.groups()
    results = [
        PublishedResult(
            method=row["method"],
            group=row["tasks"],
            tasks=tuple(groups.get(row["tasks"], [row["tasks"]])),
            phase=row["phase"],
            mean=row["mean"],
            std=row["std"],
            seeds=row["seeds"],
            source=content["sources"][row["source"]],
            protocol=protocols[row["protocol"]],
        )
        for row in content["results"]
    ]
    return content["agents"], tuple(results)


def _protocol(fields: dict) -> Protocol:
    networks, scored_at = fields["networks"], fields["scored_at"]
    return Protocol(
        **fields
        | {
            "networks": None if networks is None else tuple(map(tuple, networks)),
            "scored_at": None if scored_at is None else tuple(scored_at),
            "official_data": True,
        }
    )


@dataclass(frozen=True)
class Comparison:
    """One's own result beside a published one.

    Attributes:
        published: The published one.
        obstacles: Why they cannot be compared; empty where they can.
        difference: Own mean minus the published one.
        standard_errors: The same in standard errors; None where one of them is unknown, or 0.
        remarks: What else a reader must know.
    """

    published: PublishedResult
    obstacles: tuple[str, ...]
    difference: float | None = None
    standard_errors: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The difference, or why there is none, in a few words."""
        if self.obstacles:
            return f"not comparable: {'; '.join(self.obstacles)}"
        if self.standard_errors is None:
            return f"{self.difference:+.1f}, no standard error"
        return f"{self.difference:+.1f} = {self.standard_errors:+.1f} SE"


def compare(
    scores: Sequence[np.ndarray], protocols: Sequence[Protocol], published: PublishedResult
) -> Comparison:
    """Compare one's own scores with a published result.

    The standard error of the difference is the root of the sum of two squares: the own one, of the
    mean over tasks of the means over seeds, tasks being independent, and the published one, its
    standard deviation over the root of its number of seeds. That published numbers are rounded to
    whole points is not in it.

    Args:
        scores: Of each of the published result's tasks, those of the seeds (seeds,).
        protocols: How they were made, one per task.
        published: The published result.

    Returns:
        The comparison, without a difference where a protocol differs or a task has no score.

    Raises:
        ValueError: The tasks are not as many as the published result's.
    """
    if not len(scores) == len(protocols) == len(published.tasks):
        raise ValueError(f"{len(scores)} tasks, published {len(published.tasks)}")
    found = dict.fromkeys(x for own in protocols for x in differences(own, published.protocol))
    if not all(map(len, scores)):
        found["no score"] = None
    if found:
        return Comparison(published, tuple(found))
    difference = float(np.mean([task.mean() for task in scores])) - published.mean
    error = _standard_error(scores, published)
    remarks = {
        "no published standard deviation": published.std is None,
        "one own seed, whose spread is not known": min(map(len, scores)) < 2,
        "data not verified as the official file": not all(p.official_data for p in protocols),
    }
    return Comparison(
        published,
        (),
        difference,
        None if error is None else difference / error,
        tuple(remark for remark, holds in remarks.items() if holds),
    )


def _standard_error(scores: Sequence[np.ndarray], published: PublishedResult) -> float | None:
    """Return the standard error of the difference; None if it is unknown, or 0."""
    if published.std is None or published.seeds is None or min(map(len, scores)) < 2:
        return None
    own = sum(task.var(ddof=1) / len(task) for task in scores) / len(scores) ** 2
    return math.sqrt(own + published.std**2 / published.seeds) or None
