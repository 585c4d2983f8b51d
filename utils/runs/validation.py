"""Losses on held-out data, at logging time only."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from utils.datasets import HostDataset
from utils.devices import shard
from utils.once import Once
from utils.runs.setup import TrainingData
from utils.sampling import SamplingRule
from utils.training import seed_keys, vmap_members


class Validation:
    """Evaluates losses on one batch of held-out data per seed.

    Args:
        agent_class: The agents' class.
        data: The data.
        batch_size: Rows per batch.
        p_aug: Probability with which a batch's images are cropped at random, as published.
        seeds: The training seeds.
        mesh: The devices that they lie on; None is one.
    """

    def __init__(
        self,
        agent_class: Any,
        data: TrainingData,
        batch_size: int,
        p_aug: float,
        seeds: np.ndarray,
        mesh: Mesh | None,
    ):
        self._dataset = HostDataset(
            data.val, batch_size, max_updates=1, mesh=mesh, columns=data.columns
        )
        self._keys = seed_keys(seeds, "validation")
        members = len(seeds) // (mesh.size if mesh else 1)
        rule = SamplingRule(p_aug=p_aug)

        def losses(agent: Any, batch: Once, key: jax.Array) -> dict[str, jax.Array]:
            return agent_class.evaluate_loss(agent, rule.finish(key, batch.tree()), key)

        self._losses = jax.jit(shard(vmap_members(losses, members), mesh))

    def losses(self, agents: Any, step: int) -> dict[str, jax.Array]:
        """Return metrics (seeds,) by name, at a step."""
        batches = self._dataset.prefetch(self._keys, step, 1)  # (seeds, 1, b, ...)
        batches = jax.tree.map(lambda x: x[:, 0], batches)
        # A second stream: the first has sampled the rows of the batches.
        keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, step), 1))(
            self._keys
        )
        return self._losses(agents, batches, keys)
