"""What a collected dataset depends on."""

import dataclasses

from utils.envs.ogbench import names

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
