"""Which seeds go on: one whose numbers are no longer finite stays at its last checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from utils.devices import put_on_devices
from utils.errors import UserError
from utils.runs.logs import say
from utils.runs.members import Member
from utils.runs.online import OnlineTraining
from utils.runs.progress import Failure, Progress
from utils.runs.saves import Saves
from utils.runs.signals import SEED_FAILED
from utils.training import TrainingState

_NAMES = 3  # that a message lists; where one metric is NaN, most are soon


@jax.jit
def finite_members(tree: Any) -> jax.Array:
    """Return whether all floats of a member are finite, (members,), from arrays (members, ...)."""
    return jnp.stack(
        [
            jnp.isfinite(leaf).all(axis=tuple(range(1, leaf.ndim)))
            for leaf in jax.tree.leaves(tree)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
    ).all(axis=0)


def not_finite(checks: Mapping[str, np.ndarray]) -> list[str]:
    """Say, for each member, which of some numbers (members,) are not finite; empty if all are."""
    rows = [[name for name, ok in checks.items() if not ok[i]] for i in range(_members(checks))]
    return [
        ", ".join(names[:_NAMES])
        + (f" and {len(names) - _NAMES} more" if len(names) > _NAMES else "")
        for names in map(sorted, rows)
    ]


def _members(checks: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(checks.values())))


class Health:
    """Notes the seeds that fail, and keeps them where they were while the others go on.

    Members need nothing of each other, so a failed one does no harm in the training's state. What
    is saved or evaluated of it is its last good checkpoint's.

    Args:
        members: Who is trained.
        progress: Where failures are noted.
        saves: The run's checkpoints.
        online: The members' environments, if the run goes online.
    """

    def __init__(
        self,
        members: Sequence[Member],
        progress: Progress,
        saves: Saves,
        online: OnlineTraining | None = None,
    ):
        self._members = list(members)
        self._progress = progress
        self._saves = saves
        self._online = online
        self._kept: dict[int, Any] = {}

    def nobody_acts(self) -> bool:
        """Tell whether no seed is left online whose actions are finite, which a row is to show."""
        if self._online is None or not (diverged := self._online.diverged()).any():
            return False
        return bool((diverged | self._failed()).all())

    def _failed(self) -> np.ndarray:
        """Return whether each member has failed, (members,)."""
        failures = map(self._progress.failure, self._members)
        return np.array([failure is not None for failure in failures])

    def look(self, agents: Any, metrics: Mapping[str, np.ndarray]) -> list[str]:
        """Note which seeds fail at the present step.

        Args:
            agents: The agents, arrays (members, ...).
            metrics: Arrays (members,) by name.

        Returns:
            A sentence for each seed that has failed now.
        """
        checks = {name: np.isfinite(value) for name, value in metrics.items()}
        checks["parameters"] = np.asarray(finite_members(agents))
        if self._online is not None:
            checks["actions"] = ~self._online.diverged()
        return self._note(not_finite(checks))

    def look_at_evaluation(self, diverged: Sequence[bool]) -> list[str]:
        """Note the members (members,) whose actions were not finite; returns what `look` does."""
        return self._note(["an evaluation's actions" if bad else "" for bad in diverged])

    def _note(self, problems: Sequence[str]) -> list[str]:
        sentences = []
        for member, what in zip(self._members, problems, strict=True):
            if not what or self._progress.failure(member) is not None:
                continue
            step, row = self._progress.step, self._progress.last_logged
            saved = self._saves.latest_step()
            failure = Failure(member.seed, step, saved, row, member.point)
            self._progress.failed.append(failure)
            before = f"the last good row is that of step {row}" if row else "no row was good"
            bad = f"NaN or infinity in {what}"
            sentences.append(f"{bad} of seed {member} by step {step} ({before})")
        return sentences

    def tell(self, sentences: list[str]) -> None:
        """Say which seeds have failed now.

        Raises:
            UserError: No seed is left, or one has been so from the start.
        """
        if not sentences:
            return
        checkpoints = [failure.checkpoint for failure in self._progress.failed]
        if None in checkpoints:
            raise UserError(f"{sentences[0]}; a new agent must be finite: mend its initialisation")
        find = "the same command with --debug finds the line that makes it"
        if self._failed().all():
            raise UserError(
                f"{'; '.join(sentences)}; the last good checkpoint, of step "
                f"{self._saves.latest_step()}, is kept. Remedy: {find}; often a lower learning "
                "rate or smaller rewards help"
            )
        for sentence in sentences:
            say(
                f"warning: {sentence}: this seed has failed and stays at its checkpoint of step "
                f"{checkpoints[-1]}, the others go on; {find}"
            )

    def good_state(self, state: TrainingState) -> TrainingState:
        """Return a state in which failed members' agents are those of their last checkpoint.

        Raises:
            UserError: No seed is left.
        """
        self.tell(self.look(state.agents, {}))
        members = np.flatnonzero(self._failed()).tolist()
        if not members:
            return state
        state = put_on_devices(state, None)  # where checkpoints are read to
        agents = state.agents
        if missing := [member for member in members if member not in self._kept]:
            last = self._saves.agents(agents)
            for member in missing:
                self._kept[member] = jax.tree.map(lambda leaf, i=member: leaf[i], last)
        for member in members:
            agents = jax.tree.map(
                lambda leaf, good, i=member: leaf.at[i].set(good), agents, self._kept[member]
            )
        return state.replace(agents=agents)

    def last_line(self) -> str | None:
        """Return the line about failed seeds with which a run ends, None if there is none."""
        if not self._progress.failed:
            return None
        listed = ", ".join(
            f"{member} at step {failure.step}"
            for failure in self._progress.failed
            for member in self._members
            if failure.is_of(member)
        )
        return f"failed seeds: {listed}; exit code {SEED_FAILED}"
