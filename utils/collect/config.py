"""What a collected dataset depends on."""

import dataclasses
import hashlib
import importlib.metadata
import os
from pathlib import Path

from utils.collect.ant.walker import SHIPPED
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
        kind: `navigate`, `stitch`, `explore`, `play` or `noisy`.
        rows: Rows per episode, one more than it has transitions.
        seed: Seed of the whole collection.
        walker: File of the ant's walker; None without an ant.
        states: File of the states whose frames are rendered; None to collect them.
    """

    dataset: str
    environment: str
    kind: str
    rows: int
    seed: int
    walker: Path | None = None
    states: Path | None = None

    @classmethod
    def create(
        cls,
        full_name: str,
        rows: int,
        seed: int,
        walker: str | os.PathLike | None = None,
        states: str | os.PathLike | None = None,
    ) -> "CollectionConfig":
        """Return the config of the dataset of a task; an ant's walker is the shipped one if None.

        Raises:
            UserError: There is a walker and no ant, or there are states that cannot be rendered.
        """
        config = cls(
            dataset=names.dataset_name(full_name),
            environment=names.collection_id(full_name),
            kind=names.split(full_name)[1],
            rows=rows,
            seed=seed,
        )
        if states is not None:
            if not config.renders_states:
                raise UserError(
                    f"--from_states is for arms with images, and not for {config.dataset}"
                )
            config = dataclasses.replace(config, states=Path(states).expanduser())
        if config.has_ant:
            return dataclasses.replace(config, walker=Path(walker or SHIPPED).expanduser())
        if walker is not None:
            raise UserError(f"--walker is for ants, and {config.dataset} has none")
        return config

    @property
    def family(self) -> str:
        """The environment's name without version and without `visual-`."""
        return self.environment.removesuffix("-v0").removeprefix("visual-")

    @property
    def has_ant(self) -> bool:
        """Whether a walker is needed."""
        return self.family.startswith("antmaze")

    @property
    def visual(self) -> bool:
        """Whether observations are images."""
        return names.is_visual(self.environment)

    @property
    def renders_states(self) -> bool:
        """Whether states are collected first, and then rendered.

        A maze's frame is no function of its state: it shows where a stage of the integrator
        (Runge-Kutta) has put the ant, and is rendered before the ant is teleported.
        """
        return self.visual and not self.has_ant

    def of_states(self) -> "CollectionConfig":
        """Return the config of the same episodes without images."""
        return dataclasses.replace(self, environment=self.environment.removeprefix("visual-"))

    def settings(self) -> dict[str, str | int | None]:
        """Return all that episodes depend on, in JSON's types."""
        checksums = {"walker": _checksum(self.walker), "states": _checksum(self.states)}
        # Episodes of two versions would not make one dataset.
        versions = {package: importlib.metadata.version(package) for package in PACKAGES}
        return dataclasses.asdict(self) | checksums | versions


def _checksum(path: Path | None) -> str | None:
    """Return the checksum of a file, if there is one."""
    if path is None:
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
