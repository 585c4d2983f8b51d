"""A run's checkpoints: what is restored at its start, and what is refused to be saved."""

import contextlib
import os
from pathlib import Path

import jax
import jax.numpy as jnp

from utils.checkpoints import FOLDER, Checkpoints
from utils.errors import UserError
from utils.runs.progress import Progress
from utils.runs.settings import Settings
from utils.training import TrainingState


class Saves:
    """The checkpoints in a run's folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._checkpoints = Checkpoints(folder)
        self._finite = jax.jit(
            lambda tree: jnp.stack(
                [jnp.isfinite(x).all() for x in jax.tree.leaves(tree) if x.dtype == jnp.float32]
            ).all()
        )

    def latest_step(self) -> int | None:
        """Return the step of the last complete checkpoint, None before the first."""
        return self._checkpoints.latest_step()

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
        self, state: TrainingState, progress: Progress, settings: Settings
    ) -> tuple[TrainingState, Progress]:
        """Return where the run goes on.

        That is at its last checkpoint, else with the agents of --restore_path, else at the start.
        A run that takes agents and goes online does so at once, and its steps count on from theirs.

        Args:
            state: A new state.
            progress: A new run's progress.
            settings: The run's settings.
        """
        if restored := self.restore(state, progress.dataset):
            print(f"resumed at step {restored[1].step} from {self._folder}", flush=True)
            return restored
        path = settings.flags["restore_path"]
        if path:
            state, step = restore_agents(state, path)
        if settings.online and path:
            progress.step = progress.last_logged = progress.online_start = step
            state = state.replace(step=jnp.full_like(state.step, step))
        elif settings.online:
            progress.online_start = settings.flags["offline_steps"]
        return state, progress

    def write(self, state: TrainingState, progress: Progress) -> None:
        """Write a checkpoint.

        Raises:
            UserError: Parameters are not finite, or it cannot be written.
        """
        if not self._finite(state.agents):
            raise self.not_finite("parameters", progress.step)
        self._checkpoints.save(progress.step, state, progress.as_dict())

    def not_finite(self, what: str, step: int) -> UserError:
        """Return the error for numbers that are not finite."""
        return UserError(
            f"NaN or infinity in {what} by step {step}; the last good checkpoint, of step "
            f"{self.latest_step()}, is kept in {self._folder}. Remedy: lower --agent.lr, and check "
            "the rewards' scale and the agent's settings for stability"
        )

    def close(self) -> None:
        """Release the checkpoints' threads."""
        self._checkpoints.close()


def restore_agents(state: TrainingState, path: str) -> tuple[TrainingState, int]:
    """Take agents, with their optimiser states, from an earlier run's last checkpoint.

    Args:
        state: Whose agents are replaced.
        path: The run's folder.

    Returns:
        The state, and the step of that checkpoint.

    Raises:
        UserError: There is none, or it does not fit.
    """
    folder = Path(path).expanduser()
    if not os.path.isdir(folder / FOLDER):  # False, too, where it may not be looked for
        raise UserError(f"--restore_path={path} is not the folder of a run with checkpoints")
    with contextlib.closing(Checkpoints(folder, read_only=True)) as earlier:
        restored = earlier.restore(
            state.agents,
            part="agents",
            remedy="the earlier run must have had the same agent, networks and --num_seeds",
        )
    if restored is None:
        raise UserError(f"--restore_path={path} has no complete checkpoint")
    agents, host = restored
    print(f"agent taken from step {host['step']} of {path}", flush=True)
    return state.replace(agents=agents), host["step"]
