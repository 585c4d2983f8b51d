"""The training loop: many updates per dispatch, many members in one program.

Everything here is put around an agent's pure `update(batch, rng)` from outside.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any, Self

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from utils.datasets import CHUNK, Batch, Source
from utils.devices import member_specs, put_on_devices, shard
from utils.varied_agents import create_varied

Metrics = dict[str, jax.Array]

# One random stream per purpose, so that using one more or less never shifts another.
STREAMS = ("init", "data", "noise", "evaluation", "validation", "environment", "exploration")

# Measured: 9% more updates per second on one core with AVX-512 than XLA's defaults.
_CPU_OPTIONS = {
    "xla_cpu_prefer_vector_width": 512,  # bits; a processor with narrower vectors uses its own
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


@functools.cache
def compiler_options() -> dict[str, Any]:
    """Return options for compiling the loop, as far as this backend and XLA have them."""
    supported = {}
    for name, value in _CPU_OPTIONS.items() if jax.default_backend() == "cpu" else ():
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.jit(jnp.negative, compiler_options={name: value}).lower(0.0).compile()
            supported[name] = value
    return supported


def seed_keys(seeds: np.ndarray, stream: str) -> jax.Array:
    """Return keys (n,) of one stream for seeds (n,)."""
    purpose = STREAMS.index(stream)
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), purpose))(seeds)


def evaluation_keys(seeds: np.ndarray, step: int) -> jax.Array:
    """Return keys (n,) of the evaluation at a step, for seeds (n,)."""
    return jax.vmap(jax.random.fold_in, (0, None))(seed_keys(seeds, "evaluation"), step)


def vmap_members(function: Callable, num_members: int) -> Callable:
    """Map a function over the leading member axes of all its arguments.

    A single member is run without a batch axis, which keeps plain matrix products plain.
    """
    if num_members > 1:
        return jax.vmap(function)

    @functools.wraps(function)
    def single(*args):
        squeezed = jax.tree.map(lambda x: x[0], args)
        return jax.tree.map(lambda x: jnp.asarray(x)[None], function(*squeezed))

    return single


def repeat_update(
    update: Callable[[jax.Array, Any], tuple[Any, Metrics]],
    num_updates: int | jax.Array,
    agent: Any,
    metric_sums: Metrics,
) -> tuple[Any, Metrics]:
    """Update an agent `num_updates` times and add up the metrics.

    A number that is an int makes a loop whose trip count the compiler knows: a GPU runs it without
    waiting for the host, which it does after every update of a traced number. One compiled body
    serves a traced number of any size, even 1. The int 1 makes no loop, and gives other bits on a
    CPU.

    Args:
        update: Takes the number of the update, from 0, and the agent; returns the agent and
            metrics, each of shape ().
        num_updates: Shape (), or an int.
        agent: The agent before the first update.
        metric_sums: What the sums start from.
    """

    def body(i: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
        agent, sums = carry
        agent, metrics = update(i, agent)
        return agent, sums + ravel_pytree(metrics)[0]

    # One vector: on a GPU the addition of every single number would be a kernel of its own.
    sums, to_metrics = ravel_pytree(metric_sums)
    if isinstance(num_updates, int) and num_updates == 1:
        agent, sums = body(0, (agent, sums))
    else:
        agent, sums = jax.lax.fori_loop(0, num_updates, body, (agent, sums))
    return agent, to_metrics(sums)


class TrainingState(flax.struct.PyTreeNode):
    """All that training carries from one dispatch to the next.

    Attributes:
        agents: The agent; every leaf has the member axis first.
        step: Updates done offline plus environment steps taken online, shape ().
        data_keys: Base keys of batch sampling, (members,).
        noise_keys: Base keys of the agents' noise, (members,).
        metric_sums: Sums of the metrics since the last log row, each (members,). They live here,
            in the loop's carry, so that neither dispatches nor checkpoints change a logged digit.
        metric_count: Updates in those sums, shape ().
    """

    agents: Any
    step: jax.Array
    data_keys: jax.Array
    noise_keys: jax.Array
    metric_sums: Metrics
    metric_count: jax.Array

    @classmethod
    def create(cls, agents: Any, seeds: np.ndarray, example: Batch, **more: Any) -> Self:
        """Start at step 0 with agents for `seeds` (n,).

        The example is one unstacked batch.

        A subclass gives the fields that it adds as `more`.
        """
        agent = jax.eval_shape(lambda tree: jax.tree.map(lambda x: x[0], tree), agents)
        _, metrics = jax.eval_shape(
            lambda agent, batch: agent.update(batch, jax.random.key(0)), agent, example
        )
        return cls(
            agents=agents,
            step=jnp.zeros((), jnp.int32),
            data_keys=seed_keys(seeds, "data"),
            noise_keys=seed_keys(seeds, "noise"),
            metric_sums={name: jnp.zeros(len(seeds)) for name in metrics},
            metric_count=jnp.zeros((), jnp.int32),
            **more,
        )

    def mean_metrics(self) -> dict[str, np.ndarray]:
        """Return means since the last log row, each (members,), on the host; none of no updates."""
        count = int(self.metric_count)
        if count == 0:
            return {}
        return {name: np.asarray(value) / count for name, value in self.metric_sums.items()}

    def reset_metrics(self) -> Self:
        """Start a new logging interval."""
        return self.replace(
            metric_sums=jax.tree.map(jnp.zeros_like, self.metric_sums),
            metric_count=jnp.zeros_like(self.metric_count),
        )


def create_agents(
    agent_class: Any,
    seeds: np.ndarray,
    example: Batch,
    config: Any,
    varied: Mapping[str, np.ndarray] | None = None,
) -> Any:
    """Initialise one agent per member, stacked on the member axis of every leaf.

    Args:
        agent_class: What is initialised.
        seeds: The members' training seeds, (members,).
        example: One unstacked batch.
        config: The settings.
        varied: By name, settings of which each member has its own value, (members,).
    """

    # The example is an argument, so that a compiled program serves all data of its shapes.
    def create(seeds: jax.Array, keys: jax.Array, example: Batch, varied: Any) -> Any:
        def member(seed: jax.Array, key: jax.Array, varied: Any) -> Any:
            if not varied:
                return agent_class.create_member(seed, key, example, config)
            return create_varied(agent_class, seed, key, example, config, varied)

        return vmap_members(member, len(seeds))(seeds, keys, varied)

    return jax.jit(create)(seeds, seed_keys(seeds, "init"), example, dict(varied or {}))


class Trainer:
    """Runs updates on a source of batches.

    Whole chunks of updates are run by a program of that many, what is left of them by one of any
    number; which one ran an update does not show in its results. Where the source is on several
    devices, each runs the programs of its own members.

    Args:
        source: Where batches come from.
        num_members: Agents that are trained together.
        chunk: Updates of the program of known length; 1 leaves all to the other. By default 1 on a
            CPU, which gains nothing by it, and 50 elsewhere.
        images: Whether observations are images. A CPU then does each update by a program without a
            loop, outside of which XLA computes the gradients of convolutions several times faster.

    Attributes:
        chunk: As given, but not more than the source prefetches at once.
        members_per_device: Members that each device trains.
    """

    def __init__(
        self, source: Source, num_members: int, chunk: int | None = None, images: bool = False
    ):
        on_cpu = jax.default_backend() == "cpu"
        if chunk is None:
            chunk = 1 if on_cpu else CHUNK
        self.source = source
        self.chunk = min(chunk, source.max_updates or chunk)
        self._known = self.chunk > 1 or (images and on_cpu)
        self.members_per_device = num_members // (source.mesh.size if source.mesh else 1)
        options = {"donate_argnums": 0, "compiler_options": compiler_options()}
        self._run_any = jax.jit(self._update, **options)
        self._run_chunk = jax.jit(
            functools.partial(self._update, num_updates=self.chunk), **options
        )

    def compile(self, state: TrainingState) -> TrainingState:
        """Compile the program that is needed first; the other one is compiled when needed.

        Returns:
            The state as it was, on its devices if it was not there. The one passed in is donated.
        """
        state = put_on_devices(state, self.source.mesh)
        # A chunk's number of updates is compiled in: to run it would be to train. It is lowered and
        # compiled, which its first call finds. The other is called as in training, for no updates.
        if self._known:
            self._lower(state, self._prefetch(state, self.chunk)).compile()
            return state
        return self._run_any(state, self._prefetch(state, 0), 0)

    def _prefetch(self, state: TrainingState, num_updates: int) -> Any:
        """Return what the source has for the next updates, by a copy of the keys in the state."""
        keys = jax.tree.map(jnp.copy, state.data_keys)
        return self.source.prefetch(keys, int(state.step), num_updates)

    def _lower(self, state: TrainingState, prefetched: Any) -> jax.stages.Lowered:
        """Lower the program that is needed first, on the batches of its next `chunk` updates."""
        if self._known:
            return self._run_chunk.lower(state, prefetched)
        return self._run_any.lower(state, prefetched, self.chunk)

    def memory(self, state: TrainingState) -> int:
        """Return the bytes that each device holds while it trains, data and agents included."""
        lowered = self._lower(state, self._prefetch(state, self.chunk))
        found = lowered.compile().memory_analysis()
        return (
            found.argument_size_in_bytes
            + found.output_size_in_bytes
            - found.alias_size_in_bytes
            + found.temp_size_in_bytes
        )

    def update(self, state: TrainingState, num_updates: int) -> TrainingState:
        """Do `num_updates` updates of all members, and wait until they are done.

        The state passed in is donated: its buffers are gone afterwards.
        """
        step = int(state.step)
        end = step + num_updates
        limit = self.source.max_updates or max(num_updates, 1)
        # A copy outside the donated state, so that prefetching need not wait for the device.
        keys = jax.tree.map(jnp.copy, state.data_keys)
        while step < end:
            whole = self._known and self.chunk <= end - step
            count = self.chunk if whole else min(limit, end - step)
            prefetched = self.source.prefetch(keys, step, count)
            if self.source.max_updates is not None:
                # So that the batches of two dispatches are there at most.
                jax.block_until_ready(state)
            if whole:
                state = self._run_chunk(state, prefetched)
            else:
                state = self._run_any(state, prefetched, count)
            step += count
        return jax.block_until_ready(state)

    def next_batch(self, state: TrainingState, member: int) -> tuple[Batch, jax.Array]:
        """Return one member's batch of the next update, and the key of its noise."""
        step = int(state.step)
        prefetched = self.source.prefetch(jnp.copy(state.data_keys), step, 1)
        batch = self.source.batch(prefetched, 0, state.data_keys[member], step, member)
        return batch, jax.random.fold_in(state.noise_keys[member], step)

    def _update(
        self, state: TrainingState, prefetched: Any, num_updates: int | jax.Array
    ) -> TrainingState:
        specs = member_specs(state)
        update = shard(
            functools.partial(self._update_on_device, num_updates=num_updates),
            self.source.mesh,
            in_specs=(specs, self.source.spec),
            out_specs=specs,
        )
        return update(state, prefetched)

    def _update_on_device(
        self, state: TrainingState, prefetched: Any, num_updates: int | jax.Array
    ) -> TrainingState:
        def one_member(agent, data_key, noise_key, metric_sums, member):
            def update(i, agent):
                step = state.step + i
                batch = self.source.batch(prefetched, i, data_key, step, member)
                return agent.update(batch, jax.random.fold_in(noise_key, step))

            return repeat_update(update, num_updates, agent, metric_sums)

        # The members are mapped outside the loop: XLA then updates more of its carry in place.
        agents, metric_sums = vmap_members(one_member, self.members_per_device)(
            state.agents,
            state.data_keys,
            state.noise_keys,
            state.metric_sums,
            jnp.arange(self.members_per_device),
        )
        return state.replace(
            agents=agents,
            step=state.step + num_updates,
            metric_sums=metric_sums,
            metric_count=state.metric_count + num_updates,
        )
