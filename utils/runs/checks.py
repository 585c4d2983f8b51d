"""What a run looks for in its numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from utils.errors import UserError
from utils.member_settings import settings_of_member
from utils.runs.logs import say
from utils.runs.settings import PIXEL_FLAGS, Settings


def warn_of_one_reward(settings: Settings, derived: Mapping[str, Any], rewards: np.ndarray) -> None:
    """Warn of settings that follow from rewards which are all equal.

    Args:
        settings: The run's settings, those that follow from the data set.
        derived: The latter.
        rewards: The rewards that the agent learns from, (n,).
    """
    reward = float(rewards[0])
    equal = [
        f"agent.{key}"
        for key in derived
        if settings.origins[f"agent.{key}"] == "data" and settings.agent[key] == reward
    ]
    if len(equal) > 1 and (rewards == reward).all():
        say(
            f"warning: all rewards in the data are {reward:g}, and so are {' and '.join(equal)}, "
            "which follow from them: an agent that divides by their range gets NaN; give what the "
            f"task's rewards can be, by {' or '.join(f'--{name}' for name in equal)}"
        )


def require_images(settings: Settings, observations: Any) -> None:
    """Refuse flags for images where observations (n, ...) are none.

    Raises:
        UserError: They are none, and there is such a flag.
    """
    given = [f"--{name}" for name in PIXEL_FLAGS if settings.flags.get(name)]
    if given and len(observations.shape) != 4:
        raise UserError(
            f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} for images, and "
            f"observations here have shape {observations.shape[1:]}: leave out what is for images"
        )


class UntouchedNetworks:
    """Warns, once each, of networks that no gradient has reached.

    A network is looked at in the first row before which there were updates and it was to learn: it
    was not frozen, and the agent had it move in the last of them.

    Args:
        create: Makes the agents anew as they began; cheaper than to keep them.
    """

    def __init__(self, create: Callable[[], Any]):
        self._create = create
        self._seen: set[str] = set()

    def warn(self, agents: Any, updates: int) -> None:
        """Compare networks that were not looked at yet with how they began.

        Args:
            agents: As they are now.
            updates: Number of updates since the row before.
        """
        network = agents.network
        if not updates:
            return
        last = int(np.ravel(network.step)[0]) - 1
        settings = settings_of_member(agents.config, 0)
        names = [
            name
            for name in network.params
            if name not in self._seen
            and name not in network.frozen
            and agents.learns(settings, name, last)
        ]
        if not names:
            return
        self._seen.update(names)
        before = self._create().network.params
        for name in names:
            leaves = jax.tree.leaves(network.params[name])
            pairs = zip(leaves, jax.tree.leaves(before[name]), strict=True)
            if leaves and all(np.array_equal(now, old) for now, old in pairs):
                say(
                    f"warning: no gradient has reached the network {name}: no loss uses "
                    f"select({name!r}, params), or a stop_gradient is in the way"
                )
