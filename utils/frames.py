"""Images as columns: each frame is stored once, and stacks of frames are gathered by row.

A stack holds the frames of consecutive steps in its channels, the oldest first. Before an episode's
first frame there is none: that one is repeated.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from utils.errors import UserError

_ROWS_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True)
class FrameStacks:
    """A column of stacks (n, height, width, count * channels).

    It is indexed by rows of any shape, as an array is, and gathers what it is asked for. A slice of
    it is such a column, on the same frames; `numpy.asarray` makes an array of it.

    Attributes:
        frames: All frames (rows, height, width, channels), in the order of their steps. Other
            columns may share them, and what follows.
        current: Each row's frame, (n,).
        first: The first frame of its episode, (n,).
        ahead: How many frames after the row's own the stack ends.
        count: Frames per stack.
    """

    frames: Any
    current: Any
    first: Any
    ahead: int = 0
    count: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that it stands for."""
        *image, channels = self.frames.shape[1:]
        return (len(self.current), *image, self.count * channels)

    @property
    def dtype(self) -> np.dtype:
        """The frames' type."""
        return self.frames.dtype

    def __len__(self) -> int:
        return len(self.current)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            current, first = self.current[rows], self.first[rows]
            return dataclasses.replace(self, current=current, first=first)
        return gather_frames({"": self}, rows)[""].stack()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[np.arange(len(self))], dtype)

    @classmethod
    def of_steps(cls, frames: Any, last: np.ndarray) -> dict[str, Self]:
        """Return `observations` and `next_observations` of a file that has one row per frame.

        Args:
            frames: (rows, height, width, channels).
            last: Whether a frame is the last of its episode, (rows,); it is then the next
                observation of the row before, and none follows it. The last row of all is one.
        """
        start = np.flatnonzero(~last)
        firsts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
        first = firsts[np.searchsorted(firsts, start, "right") - 1].astype(np.int32)
        columns = frames, start.astype(np.int32), first
        return {"observations": cls(*columns), "next_observations": cls(*columns, ahead=1)}


@dataclasses.dataclass(frozen=True)
class Unstacked:
    """Stacks of rows (...) whose frames lie side by side, with those of other stacks among them.

    Attributes:
        frames: Consecutive ones (..., length, height, width, channels).
        start: Place of the stack's oldest frame among them.
        count: Frames per stack.
    """

    frames: Any
    start: int
    count: int

    def stack(self) -> Any:
        """Return the stacks, (..., height, width, count * channels)."""
        # Methods alone, which NumPy's and JAX's arrays both have.
        images = self.frames[..., self.start : self.start + self.count, :, :, :]
        *batch, count, height, width, channels = images.shape
        k = len(batch)
        images = images.transpose(*range(k), k + 1, k + 2, k, k + 3)
        return images.reshape(*batch, height, width, count * channels)


def gather_frames(columns: Mapping[str, FrameStacks], rows: Any) -> dict[str, Unstacked]:
    """Gather frames of rows (...), each of them once for all columns that share it.

    A host copies whole frames many times faster than it stacks them.
    """
    alike: dict[tuple[int, ...], dict[str, FrameStacks]] = {}
    for name, column in columns.items():
        shared = id(column.frames), id(column.current), id(column.first)
        alike.setdefault(shared, {})[name] = column
    found = {}
    for group in alike.values():
        column = next(iter(group.values()))
        oldest = min(one.ahead - one.count for one in group.values()) + 1
        newest = max(one.ahead for one in group.values())
        steps = column.current[rows][..., None] + np.arange(oldest, newest + 1, dtype=np.int32)
        frames = column.frames[steps.clip(column.first[rows][..., None])]
        for name, one in group.items():
            found[name] = Unstacked(frames, one.ahead - one.count + 1 - oldest, one.count)
    return found


def stack_frames(transitions: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return transitions whose observations are stacks of `count` frames.

    Args:
        transitions: Columns (n, ...) by name, `terminals` among them; `observations` are
            `FrameStacks` or arrays of images (n, height, width, channels).
        count: Frames per stack.

    Raises:
        UserError: An observation is not what the step before has led to.
    """
    observations = transitions["observations"]
    if isinstance(observations, FrameStacks):
        columns = {name: transitions[name] for name in ("observations", "next_observations")}
    else:
        columns = _stored_once(transitions)
    stacks = {name: dataclasses.replace(column, count=count) for name, column in columns.items()}
    return dict(transitions) | stacks


def _stored_once(transitions: Mapping[str, np.ndarray]) -> dict[str, FrameStacks]:
    """Return the columns of images with a frame that two rows share in one place."""
    observations, following = transitions["observations"], transitions["next_observations"]
    ends = np.asarray(transitions["terminals"]) != 0
    ends[-1] = True
    for start in range(0, len(ends) - 1, _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(ends) - 1))
        rows = rows[~ends[rows]]
        differ = (following[rows] != observations[rows + 1]).any(axis=(1, 2, 3))
        if differ.any():
            raise UserError(
                f"frames cannot be stacked: row {rows[differ][0]} ends no episode by 'terminals', "
                "and its next observation is not the next row's observation; correct 'terminals'"
            )
    rows = np.arange(len(ends)) + np.cumsum(ends) - ends  # one frame more for each episode before
    frames = np.empty((len(ends) + ends.sum(), *observations.shape[1:]), observations.dtype)
    last = np.zeros(len(frames), bool)
    last[rows[ends] + 1] = True
    frames[rows], frames[last] = observations, following[ends]
    return FrameStacks.of_steps(frames, last)
