"""Gradient updates per second, for agents, numbers of seeds and lengths of a dispatch.

DeFlow is timed beside a plain training loop in the manner of FQL, the yardstick. Both sides train
the same networks by the same algorithm on the same random transitions, in one process and in
alternating rounds, so that whatever else the machine does hits both alike. On a CPU the library
compiles with options of its own (`utils.training.compiler_options`) and the yardstick with XLA's
defaults; options in the environment variable XLA_FLAGS reach both.

`python -m tests.benchmarks` runs it for many cases in a bounded time.
"""

import argparse
import dataclasses
import inspect
import io
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import flax
import jax
import jax.numpy as jnp
import matplotlib
import ml_collections
import numpy as np
import optax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

import agents
from tests import toys
from utils.agent_files import AgentFile, load_agent_file
from utils.compilation_cache import enable_compilation_cache
from utils.cores import available_cores
from utils.datasets import DeviceDataset
from utils.devices import member_mesh
from utils.files import write_atomically
from utils.flops import matmul_flops
from utils.networks import MLP, EnsembleCritic, Scalar
from utils.report.style import COLOURS, STYLE
from utils.training import Trainer, TrainingState, create_agents

# Dense peaks in TFLOP/s by part of the device's name, TF32 and bfloat16; the first that fits.
PEAKS = {
    "B200": (1100, 2250),
    "H200": (494, 989),
    "H100 PCIe": (378, 756),
    "H100 NVL": (417, 835),
    "H100": (494, 989),
    "A100": (156, 312),
    "L40S": (183, 362),
    "L4": (60, 121),
    "A10": (62, 125),
    "RTX 4090": (83, 165),
}
DISPATCH_SECONDS = 1.0  # as runs have it
_EPISODE = 1000  # rows, as in antmaze
_FEWEST_ROUNDS = 3
# The yardstick does no more than this in a round: how many updates there are is nothing to it.
_YARDSTICK_UPDATES = 100


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
        """Refine the base flow's actions."""
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

    agent_name, seeds, devices, chunk, memory = "yardstick", 1, 1, 1, None

    def __init__(self, transitions, example, config):
        self.transitions = transitions
        self.size = len(transitions["actions"])
        self.batch_size = config.batch_size
        self.random = np.random.default_rng(0)
        self.agent = self.first_agent = Yardstick.create(jax.random.key(0), example, config)
        self.compile_seconds = timed(self.advance, 1, 1)[0]

    def advance(self, num_updates, dispatch):
        """Do updates, one dispatch each whatever is asked for, and wait for the last."""
        del dispatch
        for _ in range(num_updates):
            rows = self.random.integers(self.size, size=self.batch_size)
            batch = {name: array[rows] for name, array in self.transitions.items()}
            self.agent, self.metrics = self.agent.update(batch)
        jax.block_until_ready(self.agent.params)


class LibraryLoop:
    """This library: Trainer on a DeviceDataset, on as many devices as a run would use.

    Args:
        subject: What is trained.
        seeds: Members that are trained together.
        source: Where batches come from, if not from such a dataset.
        varied: By name, settings of which each member has its own value, (members,).
    """

    def __init__(self, subject, seeds, source=None, varied=None):
        self.agent_name, self.seeds = subject.name, seeds
        config, example = subject.config, subject.example
        numbers, mesh = np.arange(seeds), member_mesh(seeds)
        self.devices = mesh.size if mesh else 1
        created = create_agents(subject.agent_class, numbers, example, config, varied)
        self.first_agent = jax.tree.map(lambda leaf: leaf[0], created)
        state = TrainingState.create(created, numbers, example)
        columns = subject.agent_class.columns(config)
        source = source or DeviceDataset(subject.data, config.batch_size, mesh, columns)
        self.trainer = Trainer(source, seeds, images=example["observations"].ndim > 2)
        self.chunk = self.trainer.chunk
        started = time.perf_counter()
        self.state = jax.block_until_ready(self.trainer.compile(state))
        self.compile_seconds = time.perf_counter() - started
        self.memory = None

    def advance(self, num_updates, dispatch=None):
        """Do updates of every seed, and wait for them after so many each time, if it is given."""
        dispatch = dispatch or num_updates
        for done in range(0, num_updates, dispatch):
            count = min(dispatch, num_updates - done)
            self.state = self.trainer.update(self.state, count)
        self.memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def random_transitions(size, observation_dim, action_dim):
    """Return random transitions in the shapes of a dataset, as NumPy arrays."""
    rng = np.random.default_rng(0)
    normal = partial(rng.standard_normal, dtype=np.float32)
    return {
        "observations": normal((size, observation_dim)),
        "actions": np.tanh(normal((size, action_dim))),
        "next_observations": normal((size, observation_dim)),
        "rewards": normal(size),
        "masks": (rng.uniform(size=size) < 0.99).astype(np.float32),
    }


def gflop(update, *args):
    """Return billions of operations of an update's matrix products, those in loops included."""
    return matmul_flops(inspect.unwrap(update), *args) / 1e9


def compare_update(agent, yardstick, batch):
    """Do one update on both sides from the same parameters, batch and noise.

    Returns:
        The largest difference between their losses, relative to 1 + |loss|.

    Raises:
        AssertionError: Losses or updated parameters differ by more than rounding.
    """
    network = agent.network.replace(
        params={name: yardstick.params[name] for name in agent.network.params},
        target_params={"critic": yardstick.params["target_critic"]},
    )
    agent = agent.replace(network=network)
    key = jax.random.split(yardstick.rng)[1]
    with jax.default_matmul_precision("highest"):
        agent, ours = jax.jit(type(agent).update)(agent, batch, key)
        yardstick, theirs = yardstick.update(batch)

    def check(ours, theirs):
        # Adam's first step is the learning rate times the gradient's sign, and rounding decides
        # the sign of a gradient that is nearly zero.
        close = np.isclose(ours, theirs, rtol=1e-3, atol=1e-4)
        assert close.mean() > 0.999, f"{(~close).mean():.2%} of the parameters differ"

    ours_after = agent.network.params | {"target_critic": agent.network.target_params["critic"]}
    jax.tree.map(check, ours_after, yardstick.params)
    difference = max(
        abs(float(ours[name] - theirs[name])) / (1 + abs(float(theirs[name])))
        for name in ours.keys() & theirs.keys()
    )
    assert difference < 1e-4, f"the two sides' losses differ by {difference}"
    return difference


def timed(function, *args):
    """Return seconds of wall time and of CPU time that a call took."""
    wall, cpu = time.perf_counter(), time.process_time()
    function(*args)
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_rounds(cases, rounds, deadline):
    """Time every case once per round, in an order that turns around from round to round.

    Args:
        cases: Loops with the updates of their dispatches, and those of their rounds.
        rounds: Number of rounds; fewer, but not fewer than 3, if the deadline comes first.
        deadline: Value of time.perf_counter().

    Returns:
        Per case, the wall and CPU seconds per update of each round, (rounds, 2).
    """
    seconds, longest = [[] for _ in cases], 0.0
    for i in range(rounds):
        started = time.perf_counter()
        if i >= _FEWEST_ROUNDS and started + longest > deadline:
            break
        order = list(enumerate(cases))
        for number, (loop, dispatch, updates) in order if i % 2 else reversed(order):
            seconds[number].append(np.array(timed(loop.advance, updates, dispatch)) / updates)
        longest = max(longest, time.perf_counter() - started)
    return [np.array(values) for values in seconds]


def summary(values):
    """Return median and range of some numbers, with the numbers."""
    values = np.asarray(values).tolist()
    return {"median": median(values), "min": min(values), "max": max(values), "rounds": values}


def matrix_rate():
    """Return GFLOP/s of a large product of float32 matrices, in JAX's default precision."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.full((size, size), 1e-4)
    product = jax.jit(jnp.matmul)
    seconds = [timed(lambda: jax.block_until_ready(product(matrix, matrix)))[0] for _ in range(8)]
    return 2 * size**3 / median(seconds[1:]) / 1e9


def peaks(device_kind):
    """Return TFLOP/s of a device by precision; nothing if it is not in the table."""
    for name, values in PEAKS.items():
        if name in device_kind:
            return dict(zip(("tf32", "bf16"), values, strict=True))
    return {}


def describe(loop, dispatch, seconds, flops, base, ceiling):
    """Return what is known of one case.

    `seconds` are from `measure_rounds`, `base` are the yardstick's updates per second of each
    round, `ceiling` is from `matrix_rate`.

    The memory is the most that this process has used on the device so far; cases come in order of
    their seeds.
    """
    wall, cpu = seconds.T
    rates = loop.seeds / wall
    per_second = flops * median(rates)
    known = peaks(jax.devices()[0].device_kind)
    return {
        "agent": loop.agent_name,
        "seeds": loop.seeds,
        "devices": loop.devices,
        "updates_per_dispatch": dispatch,
        "updates_per_second": summary(rates),
        "updates_per_second_per_seed": median(rates) / loop.seeds,
        "ratio_to_yardstick": None if base is None else summary(rates / base),
        "gflop_per_update": flops,
        "gflop_per_second": per_second,
        "share_of_peak": {
            name: per_second / (1000 * peak * loop.devices) for name, peak in known.items()
        },
        "share_of_matrix_rate": per_second / (ceiling * loop.devices),
        "peak_memory_bytes": loop.memory,
        "compile_seconds": loop.compile_seconds,
        "cores_used": float(cpu.sum() / wall.sum()),
    }


@dataclasses.dataclass(frozen=True)
class Subject:
    """An agent that is timed.

    Attributes:
        name: What it is called.
        file: Its file.
        config: Its settings.
        data: Random transitions, with the rewards and columns that it learns from.
        example: A batch.
    """

    name: str
    file: AgentFile
    config: ml_collections.FrozenConfigDict
    data: dict[str, np.ndarray]
    example: dict[str, jax.Array]

    @property
    def agent_class(self):
        """The agent."""
        return self.file.agent_class


def configure(name, options, transitions):
    """Load an agent, and let it prepare transitions and take settings from them as a run does.

    Args:
        name: An agent of this repository, or the path of a file.
        options: `batch_size`, `flow_steps` and `hidden_dims`, as far as the agent has such
            settings. None leaves its own.
        transitions: What `random_transitions` returns.
    """
    name = str(name)
    path = Path(name) if name.endswith(".py") else Path(agents.DEFAULT).with_name(f"{name}.py")
    agent_file = load_agent_file(path)
    config = agent_file.config
    given = {"batch_size": options.batch_size, "flow_steps": options.flow_steps}
    widths = options.hidden_dims and tuple(options.hidden_dims)
    given |= {setting: widths for setting in config if setting.endswith("hidden_dims")}
    config.update({k: v for k, v in given.items() if k in config and v is not None})
    ends = np.arange(len(transitions["actions"])) % _EPISODE == _EPISODE - 1
    data = transitions | {"terminals": ends.astype(np.float32)}
    data, example = toys.prepared(agent_file.agent_class, config, data)
    return Subject(name, agent_file, ml_collections.FrozenConfigDict(config), data, example)


def updates_within(run, seconds):
    """Return how many updates `run(updates)`, which has compiled, does in about so many seconds."""
    count = 1
    while (taken := timed(run, count)[0]) < seconds / 4:
        count *= 2
    return max(1, round(count * seconds / taken))


def machine():
    """Return what the figures of this process are measured on."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "platform": jax.default_backend(),
        "machine": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "cores_allowed": available_cores(),
    }


def run(options):
    """Measure all that the command line asks for, and return what --output writes."""
    started = time.perf_counter()
    end = started + (options.budget_seconds or math.inf)
    # Before this process takes the device's memory.
    first_update = measure_first_update(options) if options.first_update else None
    ceiling = matrix_rate()
    transitions = random_transitions(options.dataset_size, options.obs_dim, options.action_dim)
    updates = max(options.updates)
    groups = [(agent, seeds) for seeds in sorted(options.seeds) for agent in options.agents]
    yardstick, flops, difference, cases, skipped, longest = None, {}, None, [], [], 0.0
    for number, (name, seeds) in enumerate(groups):
        group_started = time.perf_counter()
        if number and group_started + 1.2 * longest > end:
            skipped.append({"agent": name, "seeds": seeds})
            continue
        subject = configure(name, options, transitions)
        loop, example = LibraryLoop(subject, seeds), subject.example
        if name not in flops:
            key = jax.random.key(0)
            flops[name] = gflop(subject.agent_class.update, loop.first_agent, example, key)
        members = [(loop, dispatch, updates) for dispatch in options.updates]
        if name == "deflow":
            if yardstick is None:
                yardstick = YardstickLoop(transitions, example, subject.config)
                difference = compare_update(loop.first_agent, yardstick.first_agent, example)
                flops["yardstick"] = gflop(Yardstick.update, yardstick.agent, example)
            members = [(yardstick, 1, min(updates, _YARDSTICK_UPDATES)), *members]
        for member in dict.fromkeys(loop for loop, *_ in members):
            member.advance(1 + member.chunk, 1 + member.chunk)  # warms all of its programs
        now = time.perf_counter()
        deadline = now + (end - now) / (len(groups) - number)
        seconds = measure_rounds(members, options.rounds, deadline)
        base = 1 / seconds[0][:, 0] if name == "deflow" else None
        for (loop, dispatch, _), taken in zip(members, seconds, strict=True):
            found = describe(loop, dispatch, taken, flops[loop.agent_name], base, ceiling)
            cases.append(found | {"group": number})
        longest = max(longest, time.perf_counter() - group_started)
        del loop, members  # and with them what they hold on the device
    return machine() | {
        "options": vars(options),
        "largest_loss_difference": difference,
        "first_update_seconds": first_update,
        "matrix_gflop_per_second": ceiling,
        "cases": cases,
        "skipped": skipped,
        "seconds": time.perf_counter() - started,
    }


def first_update(options):
    """Return the seconds from the end of the imports to that of the first update."""
    started = time.perf_counter()
    enable_compilation_cache()
    transitions = random_transitions(1000, options.obs_dim, options.action_dim)
    subject = configure(options.agents[0], options, transitions)
    subject.file.check(subject.config)  # as a run does
    LibraryLoop(subject, 1).advance(1, 1)
    return time.perf_counter() - started


def measure_first_update(options):
    """Return seconds to the first update in two new processes, of one empty cache."""
    shapes = ("obs_dim", "action_dim", "batch_size", "flow_steps")
    command = [sys.executable, "-m", "tests.benchmarks.throughput", "--only_first_update"]
    command += [f"--agents={options.agents[0]}"]
    given = {name: getattr(options, name) for name in shapes}
    command += [f"--{name}={value}" for name, value in given.items() if value is not None]
    command += ["--hidden_dims", *map(str, options.hidden_dims)] if options.hidden_dims else []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": folder}
        return {
            name: float(
                subprocess.run(
                    command, env=environment, check=True, capture_output=True, text=True
                ).stdout.split()[-1]
            )
            for name in ("cold", "warm")
        }


def print_table(results):
    """Print what `run` returned."""
    options = results["options"]
    agreement = results["largest_loss_difference"]
    print(
        f"{results['platform']} ({results['devices']} x {results['device']}), "
        f"{results['cores_allowed']} core(s) allowed, jax {results['jax']}; at most "
        f"{options['rounds']} alternating rounds of {max(options['updates'])} updates; a large "
        f"product of matrices: {results['matrix_gflop_per_second']:.0f} GFLOP/s"
        + ("" if agreement is None else f"; given the same noise, losses agree to {agreement:.0e}")
    )
    rows = [
        (
            *("agent", "seeds", "dispatch", "updates/s", "min", "max", "per seed"),
            *("ratio", "min", "max", "GFLOP/update", "GFLOP/s", "% product", "% TF32", "% bf16"),
            *("peak MiB", "compile s", "cores used"),
        )
    ]
    for case in results["cases"]:
        rates, ratio = case["updates_per_second"], case["ratio_to_yardstick"]
        share = case["share_of_peak"]
        spread = ("median", "min", "max")
        numbers = (
            *(rates[key] for key in spread),
            case["updates_per_second_per_seed"],
            *(ratio and ratio[key] for key in spread),
            case["gflop_per_update"],
            case["gflop_per_second"],
            100 * case["share_of_matrix_rate"],
            *(100 * share[name] if name in share else None for name in ("tf32", "bf16")),
            case["peak_memory_bytes"] and case["peak_memory_bytes"] / 2**20,
            case["compile_seconds"],
            case["cores_used"],
        )
        cells = ("-" if number is None else f"{number:.2f}" for number in numbers)
        counts = (case["seeds"], case["updates_per_dispatch"])
        rows.append((case["agent"], *map(str, counts), *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    for group in results["skipped"]:
        print(f"{group['agent']} with {group['seeds']} seeds: no time left for it")
    if first := results["first_update_seconds"]:
        print(f"first update after {first['cold']:.1f} s, with a cache {first['warm']:.1f} s")
    print(f"\n{hours_table(results)}")


def hours_table(results, seeds=8, updates=1_000_000):
    """Return, in Markdown, the hours that one device takes for a task as it was published."""
    rounds = {}  # those of the yardstick from all its groups together
    for case in results["cases"]:
        if case["seeds"] <= seeds:
            rates = np.divide(case["updates_per_second"]["rounds"], case["devices"])
            key = case["agent"], case["seeds"], case["updates_per_dispatch"]
            rounds.setdefault(key, []).extend(rates)
    best = {}
    for (agent, together, _), rates in rounds.items():
        best[agent] = max(best.get(agent, (0, 0)), (median(rates), together))
    lines = [
        f"| {results['device']} | seeds in one program | updates/s | hours per task: {seeds} seeds "
        f"x {updates:,} updates | 50 tasks |",
        "|---|---|---|---|---|",
    ]
    for agent, (rate, together) in best.items():
        hours = seeds * updates / rate / 3600
        lines.append(f"| {agent} | {together} | {rate:.1f} | {hours:.1f} | {50 * hours:.0f} |")
    return "\n".join(lines)


def draw(results, path):
    """Draw updates per second over seeds, in total and for one seed, as a PNG file."""
    curves = {}
    for case in results["cases"]:
        key = case["agent"], case["updates_per_dispatch"]
        curves.setdefault(key, {}).setdefault(case["seeds"], []).extend(
            case["updates_per_second"]["rounds"]
        )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 3.4), dpi=130, layout="constrained")
        for number, title in enumerate(("updates/s of all seeds", "updates/s per seed")):
            axes = figure.add_subplot(1, 2, 1 + number)
            for i, ((agent, dispatch), points) in enumerate(curves.items()):
                seeds = sorted(points)
                low, middle, high = (
                    [statistic(points[n]) / (n if number else 1) for n in seeds]
                    for statistic in (min, median, max)
                )
                colour = COLOURS[i % len(COLOURS)]
                if agent == "yardstick":
                    axes.axhline(middle[0], color=colour, linestyle="--", label=agent)
                    continue
                label = f"{agent}, {dispatch} per dispatch"
                axes.plot(seeds, middle, color=colour, marker="o", markersize=3.5, label=label)
                axes.fill_between(seeds, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.0, 0.4)))
            ticks = sorted({n for points in curves.values() for n in points})
            axes.set_xticks(ticks, map(str, ticks))
            axes.set_title(title, loc="left")
            axes.set_xlabel(f"seeds trained together on {results['device']}")
            if not number:
                axes.legend(loc="best", fontsize=8.0)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


def add_shapes(parser):
    """Add the flags of the transitions' sizes, and those of `add_settings`."""
    add = parser.add_argument
    add("--obs_dim", type=int, default=29, help="size of an observation")
    add("--action_dim", type=int, default=8, help="size of an action")
    add_settings(parser)


def add_settings(parser):
    """Add the flags of the number of transitions and of `configure`."""
    add = parser.add_argument
    add("--dataset_size", type=int, default=100_000, help="random transitions to sample from")
    add("--batch_size", type=int, help="transitions per update, instead of the agent's own")
    add("--hidden_dims", type=int, nargs="+", help="widths of all networks, likewise")
    add("--flow_steps", type=int, help="Euler steps of the base flow, likewise")


def parse_options(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add_shapes(parser)
    add("--agents", nargs="+", default=["deflow"], help="agents here, or paths of agents' files")
    add("--seeds", type=int, nargs="+", default=[1], help="seeds trained together")
    add("--rounds", type=int, default=11, help="alternating rounds")
    add(
        "--updates",
        type=int,
        nargs="+",
        default=[30],
        help="updates per dispatch; the largest is also the number of updates per round",
    )
    add(
        "--budget_seconds",
        type=float,
        help="end after about so long: with fewer rounds, then without the last cases",
    )
    add("--first_update", action="store_true", help="also time new processes to their first update")
    add("--only_first_update", action="store_true", help="do that and print the seconds")
    add("--cores", type=int, help="restrict the process to this many cores (Linux)")
    add("--output", metavar="PATH", help="JSON file to write, with a picture beside")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Measure, print, and write."""
    options = parse_options(arguments)
    if options.cores:
        # JAX sizes its thread pool by this when it first computes, which is later than here.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    if options.only_first_update:
        print(first_update(options))
        return
    results = run(options)
    print_table(results)
    if options.output:
        path = Path(options.output)
        write_atomically(path, (json.dumps(results, indent=2) + "\n").encode())
        draw(results, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
