"""Published curves: what other groups have released of every evaluation.

The arrays lie beside this file as they were released, and releases.json says what is in them and in
what their protocols differ from this library's. `LICENSES.txt` has their licences.
"""

import difflib
import fnmatch
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import UserError
from utils.report.published.results import numbered

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class PublishedCurve:
    """Evaluations of one method on one task, or their mean over a group of tasks.

    Attributes:
        release: Name of the release.
        method: Name of the method in it.
        group: The task's name in it, or the group's.
        paper: The release's paper.
        steps: Of the measured evaluations (evaluations,): updates, then environment steps; the
            latter alone for a method without an offline phase.
        mean: Success in percent (evaluations,), over seeds.
        values: That of each seed (seeds, evaluations); None if only the mean was released. A row
            is one run through time, but rows of two tasks or methods do not belong together.
        bounds: Lower and upper end (2, evaluations) of the mean's 95 % bootstrap interval, as
            released; None where there are values.
        seeds: How many.
        offline_steps: Step at which it goes online.
        offline_end: Step of the evaluation that its paper prints as the offline result; None for a
            method without an offline phase.
        differences: In what its protocol differs from one step at a time on the benchmark's data
            and rewards, each in a few words.
    """

    release: str
    method: str
    group: str
    paper: str
    steps: np.ndarray
    mean: np.ndarray
    values: np.ndarray | None
    bounds: np.ndarray | None
    seeds: int
    offline_steps: int
    offline_end: int | None
    differences: tuple[str, ...]

    @property
    def legend(self) -> str:
        """Its name, its seeds and the differences of its protocol."""
        return legend([self])


def parse_with(text: str) -> tuple[tuple[str, str], ...]:
    """Parse the published curves that a user asks for.

    Args:
        text: `RELEASE:METHOD`, several separated by commas; upper and lower case are the same.

    Returns:
        Release and method of each, as they are called in `curve`, without repetitions.

    Raises:
        UserError: There is no such release or method, or its curves stand beside no run; the
            message names the nearest, and all.
    """
    found = {}
    for item in text.split(","):
        release, colon, method = (part.strip() for part in item.partition(":"))
        release = _choose(release, list(_releases()), "release", item)
        _refuse(release)
        known = methods(release)
        if not colon:
            raise UserError(
                f"--with={item.strip()!r} names no method; give {release}:METHOD with one of "
                f"{', '.join(known)}"
            )
        found[release, _choose(method, known, f"method of {release}", item)] = None
    return tuple(found)


def methods(release: str) -> list[str]:
    """Return the names of a release's methods."""
    arrays = _arrays(release)
    return list(
        dict.fromkeys(
            str(name) for part in _releases()[release]["arrays"] for name in arrays[part["methods"]]
        )
    )


def curve(release: str, method: str, task_names: str | Iterable[str]) -> PublishedCurve | None:
    """Return a published curve.

    Args:
        release: Name of a release.
        method: Name of one of its methods.
        task_names: A task's full name, or the names of a group of tasks, of whose mean there is a
            curve if the release has it for exactly these.

    Returns:
        The curve, or None if the release has none of these tasks.

    Raises:
        UserError: There is no such release or method, or it has no curves of single tasks.
    """
    release = _choose(release, list(_releases()), "release", release)
    _refuse(release)
    method = _choose(method, methods(release), f"method of {release}", f"{release}:{method}")
    wanted = {_key(name) for name in numbered(task_names)}
    about, arrays = _releases()[release], _arrays(release)
    for part in about["arrays"]:
        names = arrays[part["methods"]].tolist()
        groups = arrays[part["tasks"]].tolist()
        for column, group in enumerate(groups):
            if method in names and _tasks_of(group, arrays[about["arrays"][0]["tasks"]]) == wanted:
                return _make(release, method, group, part["values"], (names.index(method), column))
    return None


def legend(curves: Sequence[PublishedCurve]) -> str:
    """Return one text for a method's curves on several tasks.

    A difference that only some of them have says in how many.
    """
    first = curves[0]
    texts = dict.fromkeys(text for one in curves for text in one.differences)
    parts = [f"{first.seeds} seeds"]
    for text in texts:
        number = sum(text in one.differences for one in curves)
        parts.append(text if number == len(curves) else f"{text} in {number} of {len(curves)}")
    return f"{first.method} of {first.release} ({', '.join(parts)})"


def _make(
    release: str, method: str, group: str, values: str, index: tuple[int, int]
) -> PublishedCurve:
    """Take a curve out of a release's arrays.

    Args:
        release: Name of the release.
        method: Name of the method.
        group: Name of the task or group.
        values: Name of the array, or what the names of its mean and bounds begin with.
        index: Of the method and the group.
    """
    about, arrays = _releases()[release], _arrays(release)
    seeds = bounds = None
    if values in arrays:
        seeds = _percent(arrays[values][index])
        mean = seeds.mean(axis=0)
    else:
        parts = (f"{values}_{name}" for name in ("mean", "ci_low", "ci_high"))
        mean, *bounds = (_percent(arrays[name][index]) for name in parts)
    online_only = method in about["online_only"]
    offline_steps = int(arrays["offline_steps"])
    steps = arrays["steps"] - (offline_steps if online_only else 0)
    measured = steps > 0  # what stands at the beginning was not measured
    differences = [part["text"] for part in about["differences"] if _holds(part, method, group)]
    return PublishedCurve(
        release=release,
        method=method,
        group=group,
        paper=about["paper"],
        steps=steps[measured],
        mean=mean[measured],
        values=None if seeds is None else seeds[:, measured],
        bounds=None if bounds is None else np.stack(bounds)[:, measured],
        seeds=about["seeds"],
        offline_steps=0 if online_only else offline_steps,
        offline_end=None if online_only else about["offline_end"],
        differences=(*differences, *(["no offline phase"] if online_only else [])),
    )


def _percent(rates: np.ndarray) -> np.ndarray:
    """Return float32 rates in percent, without the digits that float32 does not have."""
    return np.round(100 * rates.astype(float), 4)


def _holds(part: Mapping[str, Any], method: str, group: str) -> bool:
    """Whether a difference of a release holds for a method on a task or group of tasks."""
    patterns = part.get("tasks", ["*"])
    name = f"{_key(group)}-"  # a group's name ends where its tasks' go on
    return method in part.get("methods", [method]) and any(
        fnmatch.fnmatch(name, pattern) for pattern in patterns
    )


def _tasks_of(group: str, names: np.ndarray) -> set[str]:
    """Return the keys of the tasks that a task's name, or a group's, stands for."""
    keys = [_key(str(name)) for name in names]
    inside = {key for key in keys if group == "all" or key.startswith(f"{group}-")}
    return inside or {_key(group)}


def _key(task: str) -> str:
    """Return what a task's full name and its short one have in common."""
    return task.replace("-singletask", "").removesuffix("-v0")


def _refuse(release: str) -> None:
    if reason := _releases()[release].get("refused"):
        raise UserError(f"the curves of {release} cannot stand beside a run: {reason}")


def _choose(name: str, known: Sequence[str], what: str, item: str) -> str:
    """Return the known name that one in upper or lower case means.

    Raises:
        UserError: There is none.
    """
    lower = {other.lower(): other for other in known}
    if name.lower() in lower:
        return lower[name.lower()]
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(lower[x] for x in near)}? " if near else ""
    raise UserError(f"unknown {what} in {item.strip()!r}; {hint}known are {', '.join(known)}")


@functools.cache
def _releases() -> dict[str, dict[str, Any]]:
    return json.loads((_HERE / "releases.json").read_text())


@functools.cache
def _arrays(release: str) -> dict[str, np.ndarray]:
    with np.load(_HERE / f"{release}.npz", allow_pickle=False) as archive:
        return dict(archive)
