"""How much the actions of a dataset vary at one state, and the file that keeps what was found."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.datasets import fingerprint
from utils.errors import UserError
from utils.files import read_json, write_atomically
from utils.frames import FrameStacks
from utils.neighbours import nearest_rows, normalized


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked of a dataset.

    Attributes:
        k: Neighbours of a state.
        states: States that are asked about, sampled without replacement; all if there are fewer.
        seed: Of that sample.
        other_episodes: Whether neighbours of the state's own episode are left out.
    """

    k: int = 5
    states: int = 10_000
    seed: int = 0
    other_episodes: bool = False


@dataclasses.dataclass(frozen=True)
class ActionVariance:
    """The answer; variances are means over the action dimensions.

    Attributes:
        iav: Intrinsic action variance, the mean over states.
        error: Its standard error.
        dimensions: The same of every action dimension.
        overall: Variance of all actions, whatever their states.
        distance: Mean distance of the k-th neighbour, in deviations of the states per dimension
            (root mean square), where two states at random are sqrt(2) apart.
        same_episode: Share of the neighbours that are of the state's own episode; None if the data
            do not say where episodes end.
        states: States that were asked about.
        rows: Rows of the data.
    """

    iav: float
    error: float
    dimensions: tuple[float, ...]
    overall: float
    distance: float
    same_episode: float | None
    states: int
    rows: int


def action_variance(data: Mapping[str, np.ndarray], question: Question) -> ActionVariance:
    """Return the intrinsic action variance of a dataset (arXiv 2601.10471).

    It is the mean, over states and action dimensions, of the variance of the actions at the k
    nearest other states, in Euclidean distance between states of mean 0 and deviation 1 per
    dimension. The variance is that about the neighbours' mean, over k and not k - 1: the paper
    gives no formula.

    Args:
        data: Transitions, with `observations` (n, o), `actions` (n, a) and, if known, `terminals`.
        question: What is asked.

    Raises:
        UserError: Observations are images, rows are too few, or episodes are unknown.
    """
    observations, actions = data["observations"], data["actions"]
    if isinstance(observations, FrameStacks) or observations.ndim != 2:
        raise UserError("states that are images have no useful distance; give a task with vectors")
    episodes = None
    if "terminals" in data:
        episodes = (np.cumsum(data["terminals"]) - data["terminals"]).astype(np.int64)
    if question.other_episodes and episodes is None:
        raise UserError("the data lack terminals, which say where episodes end; add them")
    number = min(question.states, len(actions))
    rows = np.random.default_rng(question.seed).choice(len(actions), number, replace=False)
    points = normalized(observations)
    try:
        found, distances = nearest_rows(
            points, rows, question.k, episodes if question.other_episodes else None
        )
    except ValueError as error:
        raise UserError(f"{error}; lower --k, or give more data") from error
    variances = actions[found].var(axis=1, dtype=np.float64)  # (q, a)
    by_state = variances.mean(axis=1)
    varying = max(1, np.count_nonzero(points.any(axis=0)))
    same = None if episodes is None else float((episodes[found] == episodes[rows, None]).mean())
    return ActionVariance(
        iav=float(by_state.mean()),
        error=float(by_state.std() / np.sqrt(number)),
        dimensions=tuple(variances.mean(axis=0).tolist()),
        overall=float(actions.var(axis=0, dtype=np.float64).mean()),
        distance=float(distances[:, -1].mean() / np.sqrt(varying)),
        same_episode=same,
        states=number,
        rows=len(actions),
    )


def cached_action_variance(
    data: Mapping[str, np.ndarray], question: Question, cache: Path | None
) -> tuple[ActionVariance, str]:
    """Return the answer for a dataset from a file, or compute it and put it there.

    Args:
        data: Transitions, see `action_variance`.
        question: What is asked.
        cache: The file; None to keep nothing.

    Returns:
        The answer, and where it came from or why it is not kept, in words.

    Raises:
        UserError: See `action_variance`.
    """
    columns = ("observations", "actions", "terminals")
    found = fingerprint({name: data[name] for name in columns if name in data})
    key = json.dumps({"data": found} | dataclasses.asdict(question))
    known = _read(cache)
    if key in known:
        return known[key], f"from {cache}"
    answer = action_variance(data, question)
    if cache is None:
        return answer, "computed"
    answers = {one: dataclasses.asdict(other) for one, other in (known | {key: answer}).items()}
    try:
        write_atomically(cache, json.dumps(answers, indent=1).encode())
    except UserError as error:
        return answer, f"computed, and not kept: {error}"
    return answer, f"computed, and kept in {cache}"


def _read(cache: Path | None) -> dict[str, ActionVariance]:
    """Return the answers in a file by question; none for a file that is damaged or not there."""
    if cache is None or not cache.exists():
        return {}
    try:
        content = read_json(cache, "it is written anew")
        return {
            key: ActionVariance(**fields | {"dimensions": tuple(fields["dimensions"])})
            for key, fields in content.items()
        }
    except (UserError, TypeError, KeyError):
        return {}
