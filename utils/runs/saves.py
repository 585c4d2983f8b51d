"""A run's checkpoints: what is restored at its start, and agents taken from another run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from utils.checkpoints import FOLDER, Checkpoints
from utils.errors import UserError
from utils.load_agent import Place, read_settings
from utils.runs.grids import Grid
from utils.runs.progress import Progress
from utils.training import TrainingState


class Saves:
    """The checkpoints in a run's folder.

    Args:
        folder: The folder.
        read_only: Whether to leave it as it is.
    """

    def __init__(self, folder: Path, read_only: bool = False):
        self._folder = folder
        self._checkpoints = Checkpoints(folder, read_only=read_only)

    def latest_step(self) -> int | None:
        """Return the step of the last complete checkpoint, None before the first."""
        return self._checkpoints.latest_step()

    def oldest_step(self) -> int | None:
        """Return the step of the oldest checkpoint that may yet be restored."""
        return self._checkpoints.oldest_step()

    def restore(self, state: TrainingState, dataset: str) -> tuple[TrainingState, Progress] | None:
        """Return what the last checkpoint holds, None if there is none.

        Args:
            state: A state of the same structure.
            dataset: Fingerprint of the training data.

        Raises:
            UserError: It does not fit, or the data are others.
        """
        restored = self._checkpoints.restore(state)
        if restored is None:
            return None
        progress = Progress.from_dict(restored[1])
        if progress.dataset != dataset:
            raise UserError(
                f"the dataset is not the one that the run in {self._folder} began with; restore "
                "it, set another --run_group, or start over with --overwrite"
            )
        return restored[0], progress

    def restore_or_begin(
        self, state: TrainingState, progress: Progress, grid: Grid
    ) -> tuple[TrainingState, Progress]:
        """Return where the run goes on.

        That is at its last checkpoint, else with the agents of --restore_path, else at the start.
        A run that takes agents and goes online does so at once, and its steps count on from theirs.

        Args:
            state: A new state.
            progress: A new run's progress.
            grid: The run's settings.

        Raises:
            UserError: The run has done more than it is to do now, or see `restore`.
        """
        settings = grid.settings
        if restored := self.restore(state, progress.dataset):
            progress = restored[1]
            settings.require_length(progress.step, progress.online_start)
            if progress.step < settings.last_step(progress.online_start):
                progress.lengthen()
            print(f"resumed at step {progress.step} from {self._folder}", flush=True)
            return restored
        path = settings.flags["restore_path"]
        if path:
            state, step = restore_agents(state, path, grid.seeds.tolist())
        if settings.online and path:
            progress.step = progress.last_logged = progress.online_start = step
            progress.regular_logged = step
            state = state.replace(step=jnp.full_like(state.step, step))
        elif settings.online:
            progress.online_start = settings.flags["offline_steps"]
        return state, progress

    def write(self, state: TrainingState, progress: Progress) -> None:
        """Write a checkpoint.

        Raises:
            UserError: It cannot be written.
        """
        self._checkpoints.save(progress.step, state, progress.as_dict())

    def agents(self, like: Any) -> Any:
        """Return the last checkpoint's agents, which are of the same structure as `like`."""
        return self._checkpoints.restore(like, part="agents")[0]

    def close(self) -> None:
        """Release the checkpoints' threads."""
        self._checkpoints.close()


def restore_agents(
    state: TrainingState, path: str, seeds: Sequence[int]
) -> tuple[TrainingState, int]:
    """Take agents, with their optimiser states, from an earlier run's last checkpoint.

    Args:
        state: Whose agents are replaced.
        path: The run's folder.
        seeds: The members' training seeds. Each takes the agent of its own number. Where the
            earlier run lacks one but has as many, they take them in order.

    Returns:
        The state, and the step of that checkpoint.

    Raises:
        UserError: There is none, or it does not fit, or has not these seeds, or one has failed.
    """
    folder = Path(path).expanduser()
    settings, known = read_settings(folder)
    place, known = Place.of(folder, settings, len(known)), known.tolist()
    if not os.path.isdir(place.folder / FOLDER):  # False, too, where it may not be looked for
        raise UserError(f"--restore_path={path} is not the folder of a run with checkpoints")
    own = list(dict.fromkeys(seeds))
    taken = dict(zip(own, _choose(own, known, path), strict=True))
    restored = place.restore(
        state.agents, "the earlier run must have had the same agent and networks"
    )
    if restored is None:
        raise UserError(f"--restore_path={path} has no complete checkpoint")
    agents, host = restored
    for failure in Progress.from_dict(host).failed:
        if failure.seed in taken.values() and failure.point == place.point:
            raise UserError(
                f"seed {failure.seed} of --restore_path={path} has failed at step {failure.step}; "
                "choose others by --seed and --num_seeds"
            )
    members = np.array([known.index(taken[seed]) for seed in seeds])
    agents = jax.tree.map(lambda leaf: leaf[members], agents)
    agents = agents.replace(config=state.agents.config)  # each member's values are its own
    listed = ", ".join(map(str, taken.values()))
    print(f"agent taken from step {host['step']} of {path}, seed {listed}", flush=True)
    return state.replace(agents=agents), host["step"]


def _choose(seeds: Sequence[int], known: Sequence[int], path: str) -> Sequence[int]:
    """Return which of an earlier run's seeds each training seed takes its agent from."""
    missing = [str(seed) for seed in seeds if seed not in known]
    if missing and len(seeds) != len(known):
        raise UserError(
            f"--restore_path={path} has the seeds {', '.join(map(str, known))}, not "
            f"{', '.join(missing)}; choose among them by --seed and --num_seeds"
        )
    return known if missing else seeds
