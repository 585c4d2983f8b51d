"""What a collected dataset depends on, and the official sizes."""

import dataclasses

from utils.envs.ogbench import names
from utils.errors import UserError

SPLITS = ("train", "val")

PACKAGES = ("ogbench", "mujoco", "numpy")
"""Packages whose versions the episodes depend on too."""


@dataclasses.dataclass(frozen=True)
class CollectionConfig:
    """Everything that an episode depends on, apart from its number.

    Attributes:
        dataset: Stem of the dataset's file, `cube-single-play-v0` for instance.
        environment: Gymnasium id of the goal-conditioned environment.
        kind: `navigate`, `stitch`, `play` or `noisy`.
        rows: Rows per episode, one more than it has transitions.
        seed: Seed of the whole collection.
    """

    dataset: str
    environment: str
    kind: str
    rows: int
    seed: int

    @classmethod
    def create(cls, full_name: str, rows: int, seed: int) -> "CollectionConfig":
        """Return the config of the dataset of a task."""
        return cls(
            dataset=names.dataset_name(full_name),
            environment=names.collection_id(full_name),
            kind=names.split(full_name)[1],
            rows=rows,
            seed=seed,
        )

    @property
    def family(self) -> str:
        """The environment's name without version and without `visual-`."""
        return self.environment.removesuffix("-v0").removeprefix("visual-")

    @property
    def visual(self) -> bool:
        """Whether observations are images."""
        return names.is_visual(self.environment)


def official_size(full_name: str) -> tuple[int, int]:
    """Return the official number of training episodes and rows per episode.

    There is no official file for cube-octuple in OGBench's standard size; it gets as many episodes
    as cube-quadruple.

    Raises:
        UserError: The dataset cannot be collected locally.
    """
    family, kind, _ = names.split(full_name)
    if not names.is_collectable(full_name):
        raise UserError(
            f"{family}-{kind} cannot be collected locally: its data come from an expert that has "
            "to be trained first and does not ship in the ogbench package; datasets of the "
            "families pointmaze, cube, scene and puzzle can be collected"
        )
    if kind == "stitch":
        return 5000, 201
    if kind == "navigate":
        return (500, 2001) if family == "pointmaze-giant" else (1000, 1001)
    family = family.removeprefix("visual-")
    if family in ("cube-triple", "puzzle-4x5"):
        return 3000, 1001
    if family in ("cube-quadruple", "cube-octuple", "puzzle-4x6"):
        return 5000, 1001
    return 1000, 1001
