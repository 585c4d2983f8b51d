"""What a run looks for in its numbers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from utils.runs.logs import say


class UntouchedNetworks:
    """Warns, once each, of networks that no gradient has reached.

    A network is looked at in the first row before which there were updates and it was not frozen.

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
        names = [n for n in network.params if n not in self._seen and n not in network.frozen]
        if not updates or not names:
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
