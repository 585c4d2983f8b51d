"""Gradient updates per second of DeFlow, beside a plain training loop in the manner of FQL.

Both sides train the same networks by the same algorithm on the same random transitions, in one
process and in alternating rounds, so that whatever else the machine does hits both alike. On a CPU
the library compiles with options of its own (`utils.training.compiler_options`) and the yardstick
with XLA's defaults; options in the environment variable XLA_FLAGS reach both.
"""

import argparse
import json
import os
import platform
import time
from functools import partial
from statistics import median
from unittest import mock

import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from agents import deflow
from utils import flow
from utils.datasets import DeviceDataset, example_batch
from utils.networks import MLP, EnsembleCritic, Scalar
from utils.training import Trainer, TrainingState, create_agents


class Yardstick(flax.struct.PyTreeNode):
    """DeFlow as a straightforward loop has it: one jitted update per batch from the host.

    The parameters of all networks, the target critic's included, are one tree under one Adam; the
    target critic's gradients are zero and its update is overwritten by the moving average. The
    flow is solved three times per update: at s' for the TD target, at s for the refinement, and
    at s once more for a logged error of the policy's actions.
    """

    rng: jax.Array
    params: dict
    opt_state: optax.OptState
    networks: flax.core.FrozenDict = flax.struct.field(pytree_node=False)
    tx: optax.GradientTransformation = flax.struct.field(pytree_node=False)
    config: ml_collections.FrozenConfigDict = flax.struct.field(pytree_node=False)

    @classmethod
    def create(cls, rng, example, config):
        """Initialise everything for an example batch; log_alpha is among the networks."""
        observations, actions = example["observations"], example["actions"]
        actor = MLP(config.actor_hidden_dims, actions.shape[-1], config.actor_layer_norm)
        critic = EnsembleCritic(config.value_hidden_dims, config.num_critics, config.layer_norm)
        inputs = {
            "base_flow": (actor, observations, actions, actions[:, :1]),
            "refinement": (actor, observations, actions),
            "critic": (critic, observations, actions),
            "log_alpha": (Scalar(config.log_alpha_init),),
        }
        rng, *keys = jax.random.split(rng, 1 + len(inputs))
        params = {
            name: module.init(key, *args)["params"]
            for key, (name, (module, *args)) in zip(keys, inputs.items(), strict=True)
        }
        params["target_critic"] = params["critic"]
        networks = {name: module for name, (module, *_) in inputs.items()}
        networks = flax.core.freeze(networks | {"target_critic": critic})
        tx = optax.adam(config.lr)
        return cls(rng, params, tx.init(params), networks, tx, config)

    def call(self, name, *inputs, params=None):
        """Output of a network with the stored parameters, or with those of the gradient."""
        params = self.params if params is None else params
        return self.networks[name].apply({"params": params[name]}, *inputs)

    def flow_actions(self, observations, z):
        """Solve the base flow from z."""
        x = z
        for i in range(self.config.flow_steps):
            t = jnp.full((*x.shape[:-1], 1), i / self.config.flow_steps)
            x = x + self.call("base_flow", observations, x, t) / self.config.flow_steps
        return jnp.clip(x, -1, 1)

    def policy_actions(self, observations, z):
        """Base actions, refined."""
        base_actions = self.flow_actions(observations, z)
        residual = self.call("refinement", observations, base_actions)
        return jnp.clip(base_actions + residual, -1, 1)

    def loss(self, params, batch, rng):
        """Sum of the losses of critic, base flow, refinement and multiplier."""
        observations, actions = batch["observations"], batch["actions"]
        x0_key, t_key, z_key, next_z_key = jax.random.split(rng, 4)

        # Critic
        next_z = jax.random.normal(next_z_key, actions.shape)
        next_actions = self.policy_actions(batch["next_observations"], next_z)
        next_q = self.call("target_critic", batch["next_observations"], next_actions)
        next_q = next_q.min(0) if self.config.q_agg == "min" else next_q.mean(0)
        target_q = batch["rewards"] + self.config.discount * batch["masks"] * next_q
        q = self.call("critic", observations, actions, params=params)
        critic_loss = jnp.square(q - target_q).mean()

        # Base flow
        x0 = jax.random.normal(x0_key, actions.shape)
        t = jax.random.uniform(t_key, (len(actions), 1))
        x_t = (1 - t) * x0 + t * actions
        velocity = self.call("base_flow", observations, x_t, t, params=params)
        flow_loss = jnp.square(velocity - (actions - x0)).mean()

        # Refinement
        base_actions = self.flow_actions(observations, jax.random.normal(z_key, actions.shape))
        residual = self.call("refinement", observations, base_actions, params=params)
        refined_q = self.call("critic", observations, jnp.clip(base_actions + residual, -1, 1))
        refined_q = refined_q.mean(0)
        q_loss = -refined_q.mean()
        if self.config.normalize_q_loss:
            q_loss = q_loss / jax.lax.stop_gradient(jnp.abs(refined_q).mean())
        divergence = jnp.square(residual).mean()
        log_alpha = self.call("log_alpha", params=params)
        alpha = jax.lax.stop_gradient(jnp.exp(log_alpha))

        # Multiplier
        excess = jax.lax.stop_gradient(divergence - self.config.target_divergence)
        alpha_loss = -log_alpha * excess

        # Logging only
        logged_z = jax.random.normal(jax.random.fold_in(rng, 0), actions.shape)
        error = jnp.square(self.policy_actions(observations, logged_z) - actions).mean()

        return critic_loss + flow_loss + q_loss + alpha * divergence + alpha_loss, {
            "critic/critic_loss": critic_loss,
            "critic/q_mean": q.mean(),
            "critic/q_max": q.max(),
            "flow/flow_loss": flow_loss,
            "actor/q_loss": q_loss,
            "actor/divergence": divergence,
            "actor/mse": error,
            "alpha/alpha": alpha,
            "alpha/alpha_loss": alpha_loss,
        }

    @jax.jit
    def update(self, batch):
        """Take one Adam step, then the target critic's; returns the new agent and the metrics."""
        rng, key = jax.random.split(self.rng)
        grads, metrics = jax.grad(self.loss, has_aux=True)(self.params, batch, key)
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params)
        params = optax.apply_updates(self.params, updates)
        params["target_critic"] = jax.tree.map(
            lambda online, target: self.config.tau * online + (1 - self.config.tau) * target,
            self.params["critic"],
            self.params["target_critic"],
        )
        return self.replace(rng=rng, params=params, opt_state=opt_state), metrics


class YardstickLoop:
    """The yardstick's training loop, with its own host-side sampling."""

    name, seeds = "yardstick", 1

    def __init__(self, transitions, example, config):
        self.transitions = transitions
        self.size = len(transitions["actions"])
        self.batch_size = config.batch_size
        self.random = np.random.default_rng(0)
        self.agent = Yardstick.create(jax.random.key(0), example, config)

    def advance(self, num_updates):
        """Do updates, one dispatch each, and wait for the last."""
        for _ in range(num_updates):
            rows = self.random.integers(self.size, size=self.batch_size)
            batch = {name: array[rows] for name, array in self.transitions.items()}
            self.agent, self.metrics = self.agent.update(batch)
        jax.block_until_ready(self.agent.params)


class LibraryLoop:
    """This library: Trainer on a DeviceDataset, all updates of a round in one dispatch."""

    def __init__(self, transitions, example, config, seeds):
        self.name, self.seeds = f"library, {seeds} seed{'s' * (seeds > 1)}", seeds
        numbers = np.arange(seeds)
        agents = create_agents(deflow.DeFlowAgent, numbers, example, config)
        self.state = TrainingState.create(agents, numbers, example)
        self.trainer = Trainer(DeviceDataset(transitions, config.batch_size), seeds)

    def advance(self, num_updates):
        """Do updates of every seed and wait for them."""
        self.state = self.trainer.advance(self.state, num_updates)
        jax.block_until_ready(self.state)


def random_transitions(size, observation_dim, action_dim):
    """Random transitions in the shapes of a dataset, as NumPy arrays."""
    rng = np.random.default_rng(0)
    normal = partial(rng.standard_normal, dtype=np.float32)
    return {
        "observations": normal((size, observation_dim)),
        "actions": np.tanh(normal((size, action_dim))),
        "next_observations": normal((size, observation_dim)),
        "rewards": normal(size),
        "masks": (rng.uniform(size=size) < 0.99).astype(np.float32),
    }


def unrolled_euler(velocity, x0, num_steps):
    """`flow.euler` without a loop, because XLA counts a loop's body once however often it runs."""
    x = x0
    for i in range(num_steps):
        x = x + velocity(x, jnp.full((*x.shape[:-1], 1), i / num_steps)) / num_steps
    return x


def gflop(compiled):
    """Billions of floating-point operations of a compiled program, as XLA counts them."""
    return compiled.cost_analysis()["flops"] / 1e9


def compare_update(agent, yardstick, batch):
    """Do one update on both sides from the same parameters, batch and noise.

    Returns:
        GFLOP of one update of the library and of the yardstick, and the largest difference
        between their losses, relative to 1 + |loss|.

    Raises:
        AssertionError: Losses or updated parameters differ by more than rounding.
    """
    network = agent.network.replace(
        params={name: yardstick.params[name] for name in agent.network.params},
        target_params={"critic": yardstick.params["target_critic"]},
    )
    agent = agent.replace(network=network)
    key = jax.random.split(yardstick.rng)[1]
    with mock.patch.object(flow, "euler", unrolled_euler):
        our_update = jax.jit(deflow.DeFlowAgent.update).lower(agent, batch, key).compile()
    their_update = Yardstick.update.lower(yardstick, batch).compile()
    agent, ours = our_update(agent, batch, key)
    yardstick, theirs = their_update(yardstick, batch)

    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(
        close,
        agent.network.params | {"target_critic": agent.network.target_params["critic"]},
        yardstick.params,
    )
    difference = max(
        abs(float(ours[name] - theirs[name])) / (1 + abs(float(theirs[name])))
        for name in ours.keys() & theirs.keys()
    )
    assert difference < 1e-4, f"the two sides' losses differ by {difference}"
    return gflop(our_update), gflop(their_update), difference


def timed(function, *args):
    """Seconds of wall time and of CPU time that a call took."""
    wall, cpu = time.perf_counter(), time.process_time()
    function(*args)
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_rates(loops, rounds, updates):
    """Time every loop once per round, in an order that turns around from round to round.

    Returns:
        By loop, the wall and CPU seconds of each round, (rounds, 2).
    """
    seconds = {loop.name: [] for loop in loops}
    for i in range(rounds):
        for loop in loops if i % 2 else reversed(loops):
            seconds[loop.name].append(timed(loop.advance, updates))
    return {name: np.array(values) for name, values in seconds.items()}


def run(options):
    """Measure everything that the command line asks for; returns what --json writes."""
    transitions = random_transitions(options.dataset_size, options.obs_dim, options.action_dim)
    example = example_batch(transitions, options.batch_size)
    settings = deflow.get_config()
    settings.update(
        batch_size=options.batch_size,
        actor_hidden_dims=tuple(options.hidden_dims),
        value_hidden_dims=tuple(options.hidden_dims),
        flow_steps=options.flow_steps,
    )
    config = ml_collections.FrozenConfigDict(settings)

    yardstick = YardstickLoop(transitions, example, config)
    loops = [yardstick, *(LibraryLoop(transitions, example, config, n) for n in options.seeds)]
    first_agents = jax.tree.map(lambda leaf: leaf[0], loops[1].state.agents), yardstick.agent
    first_calls = {loop.name: timed(loop.advance, 1)[0] for loop in loops}
    our_gflop, their_gflop, difference = compare_update(*first_agents, example)
    seconds = measure_rates(loops, options.rounds, options.updates)

    sides = {}
    for loop in loops:
        wall, cpu = seconds[loop.name].T
        rates = loop.seeds * options.updates / wall
        per_update = their_gflop if loop is yardstick else our_gflop
        sides[loop.name] = {
            "seeds": loop.seeds,
            "updates_per_second": {
                "median": median(rates),
                "min": min(rates),
                "max": max(rates),
                "rounds": rates.tolist(),
            },
            "gflop_per_update": per_update,
            "gflop_per_second": per_update * median(rates),
            "cores_used": float(cpu.sum() / wall.sum()),
            "first_call_seconds": first_calls[loop.name],
        }
    base = sides[yardstick.name]["updates_per_second"]
    for side in sides.values():
        rates = side["updates_per_second"]
        side["ratio_of_medians"] = rates["median"] / base["median"]
        side["median_of_ratios"] = median(np.divide(rates["rounds"], base["rounds"]).tolist())
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "cores_allowed": available_cores(),
        "options": vars(options),
        "largest_loss_difference": difference,
        "sides": sides,
    }


def available_cores():
    """Number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def print_table(results):
    """Print what `run` returned."""
    options = results["options"]
    print(
        f"{results['platform']} ({results['device']}), {results['cores_allowed']} core(s) allowed, "
        f"jax {results['jax']}; {options['rounds']} alternating rounds of {options['updates']} "
        f"updates; given the same noise, losses agree to {results['largest_loss_difference']:.0e}"
    )
    columns = (
        "updates/s",
        "min",
        "max",
        "ratio of medians",
        "median ratio",
        "GFLOP/update",
        "GFLOP/s",
        "cores used",
        "first call (s)",
    )
    rows = [("", *columns)]
    for name, side in results["sides"].items():
        rates = side["updates_per_second"]
        numbers = (
            *(rates[key] for key in ("median", "min", "max")),
            *(side[key] for key in ("ratio_of_medians", "median_of_ratios", "gflop_per_update")),
            *(side[key] for key in ("gflop_per_second", "cores_used", "first_call_seconds")),
        )
        rows.append((name, *(f"{number:.2f}" for number in numbers)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def parse_options(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--obs_dim", type=int, default=29, help="size of an observation")
    add("--action_dim", type=int, default=8, help="size of an action")
    add("--batch_size", type=int, default=256, help="transitions per update")
    add("--hidden_dims", type=int, nargs="+", default=[512] * 4, help="widths of all networks")
    add("--flow_steps", type=int, default=10, help="Euler steps of the base flow")
    add("--seeds", type=int, nargs="+", default=[1], help="seeds trained together, one row each")
    add("--dataset_size", type=int, default=100_000, help="random transitions to sample from")
    add("--rounds", type=int, default=11, help="alternating rounds")
    add("--updates", type=int, default=30, help="updates per round, one dispatch of the library")
    add("--cores", type=int, help="restrict the process to this many cores (Linux)")
    add("--json", metavar="PATH", help="also write the results to this file")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measure, print, and write."""
    options = parse_options(arguments)
    if options.cores:
        # JAX sizes its thread pool by this when it first computes, which is later than here.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    results = run(options)
    print_table(results)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
