"""Columns of a dataset: what all batches have, and what is computed episode by episode."""

from collections.abc import Callable, Mapping

import numpy as np

from utils.errors import UserError

TRANSITION_COLUMNS = ("observations", "actions", "next_observations", "rewards", "masks")
"""What every batch has: (b, o), (b, a), (b, o), (b,) and (b,)."""

Episode = Mapping[str, np.ndarray]
"""The transition columns of consecutive rows up to the last one of an episode, (rows, ...).

It was cut off, by a time limit or the end of the data, if the last of its `masks` is not 0.
"""

ColumnFunction = Callable[[Episode], np.ndarray]
"""From an episode to a column (rows, ...) of it.

Online the episode's oldest rows may have left the replay. What a row gets should therefore depend
on that row and on those after it alone.
"""


def next_actions(episode: Episode) -> np.ndarray:
    """Return the actions (rows, a) that follow each row.

    None follows the last row, which gets its own action: where the mask is 0 nothing depends on it,
    and where the episode was cut off it is the nearest one known.
    """
    actions = episode["actions"]
    return np.concatenate([actions[1:], actions[-1:]])


def episode_ends(episode: Episode) -> np.ndarray:
    """Return 1 in an episode's last row and 0 in the others (rows,), however it ended."""
    return (np.arange(len(episode["rewards"]), 0, -1) == 1).astype(np.float32)


def mc_returns(discount: float, failure_reward: float | None = None) -> ColumnFunction:
    """Make the column of discounted returns to go.

    Rewards are added up to the episode's end, and not beyond a mask of 0. An episode that was cut
    off has no rewards after its end.

    Args:
        discount: Factor per step.
        failure_reward: For sparse rewards: an episode that has this reward, as it was scaled, in
            every row has never succeeded, and is taken to go on so for ever (Cal-QL, arXiv
            2303.05479).

    Returns:
        From an episode to its returns (rows,).

    Raises:
        UserError: With a failure reward the discount must be below 1.
    """
    if failure_reward is not None and discount >= 1:
        raise UserError(
            f"a discount of {discount} gives failed episodes an infinite return; "
            "set one below 1, or leave the failure reward out"
        )

    def column(episode: Episode) -> np.ndarray:
        rewards = episode["rewards"].astype(float)
        if failure_reward is not None and (episode["rewards"] == np.float32(failure_reward)).all():
            return np.full(len(rewards), failure_reward / (1.0 - discount), np.float32)
        returns, following = np.empty(len(rewards)), 0.0
        discounts = (discount * episode["masks"].astype(float)).tolist()
        for row in range(len(rewards) - 1, -1, -1):
            following = rewards[row] + discounts[row] * following
            returns[row] = following
        return returns.astype(np.float32)

    return column


def compute_columns(
    columns: Mapping[str, ColumnFunction], episode: Episode
) -> dict[str, np.ndarray]:
    """Compute columns (rows, ...) of one episode; numbers come as float32.

    Raises:
        UserError: A column has another number of rows, or values that are not finite.
    """
    computed = {}
    for name, function in columns.items():
        column = np.asarray(function(episode))
        if column.dtype == np.float64:
            column = column.astype(np.float32)
        rows = len(episode["rewards"])
        if column.shape[:1] != (rows,):
            raise UserError(
                f"the column {name} has shape {column.shape} for an episode of {rows} rows; "
                "its function must return one value per row"
            )
        if not np.isfinite(column).all():
            raise UserError(
                f"the column {name} has NaN or infinite values; check its function, and how "
                "rewards are scaled"
            )
        computed[name] = column
    return computed


def prepare(
    transitions: Mapping[str, np.ndarray],
    columns: Mapping[str, ColumnFunction],
    scale_rewards: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Add an agent's own columns to a dataset, after its rewards are scaled.

    Args:
        transitions: The transition columns (n, ...), and `terminals` (n,), 1 in every episode's
            last row, where there are columns to compute. The last row of all ends its episode.
        columns: By name, from an episode to the column.
        scale_rewards: Elementwise, from rewards to those that the agent learns from.

    Returns:
        All arrays of `transitions`, with the columns.

    Raises:
        UserError: The data have no `terminals`, or a column's name is taken, or as
            `compute_columns`.
    """
    prepared = dict(transitions)
    if scale_rewards is not None:
        prepared["rewards"] = np.asarray(scale_rewards(transitions["rewards"]), np.float32)
    if not columns:
        return prepared
    if taken := [name for name in columns if name in (*TRANSITION_COLUMNS, "terminals")]:
        raise UserError(f"the column {taken[0]} is one that all data have; give it another name")
    if "terminals" not in transitions:
        raise UserError(
            f"the data lack terminals (1 in every episode's last row), without which "
            f"{' and '.join(columns)} cannot be computed; add them to the dataset"
        )
    parts = []
    for start, end in episode_bounds(transitions["terminals"]):
        episode = {name: prepared[name][start:end] for name in TRANSITION_COLUMNS}
        parts.append(compute_columns(columns, episode))
    return prepared | {name: np.concatenate([part[name] for part in parts]) for name in columns}


def episode_bounds(terminals: np.ndarray) -> list[tuple[int, int]]:
    """Return the first row and the row after the last one of every episode.

    Args:
        terminals: (n,), not 0 in an episode's last row; the rows after the last of these make an
            episode too.
    """
    ends = np.flatnonzero(terminals) + 1
    if len(terminals) and (not len(ends) or ends[-1] != len(terminals)):
        ends = np.append(ends, len(terminals))
    return list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)) if len(ends) else []
