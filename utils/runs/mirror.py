"""A run's rows as they are named at Weights & Biases: as in FQL, where the thing is the same."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.runs.members import Member
from utils.runs.wandb_log import Wandb

Row = Mapping[str, float]

_FQL_NAMES = {name: f"episode.{name}" for name in ("return", "length", "normalized_return")}
_OWN_SECTIONS = ("validation/",)  # columns of train.csv that are not under training/


def mean_and_std(rows: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Return mean and standard deviation (of a population, as in scores) of what all rows have."""
    names = [name for name in rows[0] if all(row.get(name) is not None for row in rows)]
    columns = {name: np.array([row[name] for row in rows], float) for name in names}
    return {name: (float(np.mean(x)), float(np.std(x))) for name, x in columns.items()}


class Mirror:
    """Sends rows to Weights & Biases.

    A run with several seeds has the names under `seed_<seed>/`, their mean where a run with one
    seed has its values, and their standard deviation under `std/`. In a grid all of this is under
    the values of each point, `tau=0.01/`.

    Args:
        wandb: Where to.
        members: Who is trained.
    """

    def __init__(self, wandb: Wandb, members: Sequence[Member]):
        self._wandb = wandb
        self._points: dict[str, list[int]] = {}
        named = [
            (f"{member.values}/" if member.values else "", f"seed_{member.seed}/")
            for member in members
        ]
        for number, (point, _) in enumerate(named):
            self._points.setdefault(point, []).append(number)
        several = len(members) > len(self._points)
        self._videos = [point + seed for point, seed in named]
        self._prefixes = [point + seed * several for point, seed in named]

    def training(self, rows: Sequence[Row | None], step: int) -> None:
        """Send what train.csv has of a step, one row per member, None for one that has failed."""
        self._all_members(rows, _training_names, step)

    def evaluation(self, rows: Sequence[Row | None], step: int) -> None:
        """Send what eval.csv has of a step, one row per member, None for one that has failed."""
        self._all_members(rows, lambda row: _episode_names("evaluation", row), step)

    def episode(self, number: int, row: Mapping[str, float], step: int) -> None:
        """Send an episode of training, of the member with this number."""
        names = _episode_names("exploration", row)
        self._wandb.log({self._prefixes[number] + name: x for name, x in names.items()}, step)

    def timing(self, row: Mapping[str, float | None], step: int) -> None:
        """Send what timing.csv has of a step."""
        self._wandb.log({f"time/{name}": x for name, x in row.items()}, step)

    def video(self, path: Path, step: int, number: int) -> None:
        """Send a video, of the member with this number."""
        self._wandb.log_video(f"{self._videos[number]}video", path, step)

    def _all_members(
        self, rows: Sequence[Row | None], named: Callable[[Row], Row], step: int
    ) -> None:
        sent = {
            prefix + name: x
            for prefix, row in zip(self._prefixes, rows, strict=True)
            for name, x in (named(row) if row is not None else {}).items()
        }
        for prefix, numbers in self._points.items():
            own = [rows[number] for number in numbers]
            good = [named(row) for row in own if row is not None and "failed" not in row]
            if len(own) > 1 and good:
                for name, (mean, std) in mean_and_std(good).items():
                    sent |= {f"{prefix}{name}": mean, f"{prefix}std/{name}": std}
        self._wandb.log(sent, step)


def _training_names(row: Row) -> Row:
    names = {name: name if name.startswith(_OWN_SECTIONS) else f"training/{name}" for name in row}
    return {names[name]: x for name, x in row.items()}


def _episode_names(section: str, row: Mapping[str, float]) -> dict[str, float]:
    return {f"{section}/{_FQL_NAMES.get(name, name)}": x for name, x in row.items()}
