"""What a run looks for in its numbers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from utils.runs.logs import say


def not_finite(metrics: Mapping[str, np.ndarray], seeds: np.ndarray) -> str | None:
    """Name the metrics (seeds,) that are not finite, and their seeds; None if all are."""
    bad = sorted(name for name, value in metrics.items() if not np.isfinite(value).all())
    if not bad:
        return None
    good = np.all([np.isfinite(value) for value in metrics.values()], axis=0)  # (seeds,)
    return f"{', '.join(bad)} of seed {', '.join(str(seed) for seed in seeds[~good])}"


class UntouchedNetworks:
    """Warns, at the first row, of networks that no gradient has reached.

    Args:
        create: Makes the agents anew as they began; cheaper than to keep them.
    """

    def __init__(self, create: Callable[[], Any]):
        self._create: Callable[[], Any] | None = create

    def warn(self, agents: Any) -> None:
        """Compare the agents with how they began, the first time; frozen networks do not count."""
        if self._create is None:
            return
        before, self._create = self._create().network.params, None
        network = agents.network
        for name in set(network.params) - set(network.frozen):
            leaves = jax.tree.leaves(network.params[name])
            pairs = zip(leaves, jax.tree.leaves(before[name]), strict=True)
            if leaves and all(np.array_equal(now, old) for now, old in pairs):
                say(
                    f"warning: no gradient has reached the network {name}: no loss uses "
                    f"select({name!r}, params), or a stop_gradient is in the way"
                )
