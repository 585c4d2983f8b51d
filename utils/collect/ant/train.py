"""Train a walker: ``python -m utils.collect.ant.train --agent=AGENT.py --seed=0 --output=FOLDER``.

An agent learns to walk in a given direction by online reinforcement learning, in `DirectionalAnt`.
The folder gets the best walker of all evaluations, `walker.npz`, and `evaluations.csv`.
"""

if __name__ == "__main__":  # before the imports that take seconds
    from utils.runs.signals import end_at_once

    end_at_once()

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from utils.agent_files import AgentFile, load_agent_file
from utils.collect.ant.directional_ant import SECONDS_PER_STEP, DirectionalAnt
from utils.collect.ant.learner import Learner, actor_layers
from utils.collect.ant.walker import Walker
from utils.compilation_cache import enable_compilation_cache
from utils.devices import enable_cpu_backend
from utils.env_workers import TrainingEnvironment
from utils.errors import UserError
from utils.files import cannot_write, read_json
from utils.output import guard_stdout
from utils.report.csv_log import CsvLog

SETTINGS = Path(__file__).with_name("settings.json")
"""The agent's settings that the shipped walker was trained with; the others are its defaults."""

NUM_ENVS = 16
UPDATES_PER_ROUND = 2
RANDOM_STEPS = 10_000
EVALUATION_EPISODES = 16
EPISODE_STEPS = 1_000
_EVALUATION_SEED = 2**30  # those of the training's episodes are below


class Ants:
    """Environments that are stepped in turn, in this process.

    Args:
        num_envs: How many.
        seed: Of their episodes.

    Attributes:
        observations: What each shows, (environments, 27).
    """

    def __init__(self, num_envs: int, seed: int):
        self._seeds = np.random.default_rng((seed, 0))
        self._envs = [TrainingEnvironment(DirectionalAnt) for _ in range(num_envs)]
        self.observations = np.stack([env.reset(self._next_seed()) for env in self._envs])

    def step(self, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Take a step in each; an episode that ends is followed by the next.

        Args:
            actions: (environments, 8).

        Returns:
            The transitions, columns (environments, ...).
        """
        results = [
            env.advance(action, self._next_seed())
            for env, action in zip(self._envs, actions, strict=True)
        ]
        following, rewards, masks, observations, _ = zip(*results, strict=True)
        transitions = {
            "observations": self.observations,
            "actions": np.asarray(actions, np.float32),
            "next_observations": np.stack(following),
            "rewards": np.array(rewards, np.float32),
            "masks": np.array(masks, np.float32),
        }
        self.observations = np.stack(observations)
        return transitions

    def _next_seed(self) -> int:
        return int(self._seeds.integers(_EVALUATION_SEED))


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a walker walks.

    Attributes:
        speed: Metres per second in the direction, over the whole time: a fallen ant makes no way.
        falls: Terminations per 1,000 steps.
        overturned: Share of the episodes at whose end the ant is on its back.
    """

    speed: float
    falls: float
    overturned: float


def evaluate(
    walker: Walker,
    num_episodes: int = EVALUATION_EPISODES,
    steps: int = EPISODE_STEPS,
    noise: float = 0.0,
) -> Evaluation:
    """Have the ant walk for a number of episodes, which are always the same.

    Args:
        walker: The walker.
        num_episodes: Episodes.
        steps: The most steps of each.
        noise: Standard deviation of what is added to the actions, as a collection does.
    """
    env = DirectionalAnt()
    way, taken, falls, overturned = 0.0, 0, 0, 0
    for episode in range(num_episodes):
        observation, _ = env.reset(seed=_EVALUATION_SEED + episode)
        rng = np.random.default_rng(episode)
        for _ in range(steps):
            # The observation has been turned: in it the direction is +x.
            action = walker.act(observation, np.array([1.0, 0.0]))
            action = np.clip(action + noise * rng.standard_normal(8), -1, 1)
            observation, reward, terminated, _, _ = env.step(action)
            way += reward
            taken += 1
            if terminated:
                falls += 1
                break
        overturned += env.is_overturned()
    env.close()
    return Evaluation(
        speed=way / (num_episodes * steps * SECONDS_PER_STEP),
        falls=1_000 * falls / taken,
        overturned=overturned / num_episodes,
    )


def train(
    agent_path: str | Path,
    output: str | Path,
    *,
    seed: int = 0,
    steps: int = 400_000,
    eval_interval: int = 50_000,
    settings: str | Path = SETTINGS,
) -> None:
    """Train an agent, and keep the best walker of the evaluations.

    Args:
        agent_path: The agent's file.
        output: Folder of the results; it must not hold any.
        seed: Of everything random.
        steps: Environment steps, the random ones included; rounded down to whole rounds.
        eval_interval: Steps between evaluations; the last step is evaluated too.
        settings: JSON file of the agent's settings that differ from its defaults.

    Raises:
        UserError: A file cannot be read or written, or the agent or its settings do not fit.
    """
    _check_numbers(steps, eval_interval, seed)
    folder = Path(output).expanduser()
    if (folder / "evaluations.csv").exists():
        raise UserError(f"{folder} holds results already; remove them, or give another --output")
    agent_file = load_agent_file(agent_path)
    chosen = read_json(settings, "give a JSON object of settings of the agent")
    config = _config(agent_file, chosen, settings)
    _make(folder)
    rounds = steps // NUM_ENVS
    learner = Learner(
        agent_file.agent_class, config, _example(), seed=seed, capacity=rounds * NUM_ENVS
    )
    log = CsvLog(folder / "evaluations.csv")
    ants, rng = Ants(NUM_ENVS, seed), np.random.default_rng((seed, 1))
    best, began, actions = -np.inf, time.process_time(), np.zeros((NUM_ENVS, 8))
    for number in range(1, rounds + 1):
        step = number * NUM_ENVS
        updates = UPDATES_PER_ROUND
        if step <= RANDOM_STEPS:
            actions, updates = rng.uniform(-1, 1, (NUM_ENVS, 8)), 0
        actions = learner.step(ants.step(actions), ants.observations, updates)
        if step % eval_interval < NUM_ENVS or number == rounds:
            minutes = round((time.process_time() - began) / 60, 1)
            facts = {"agent": Path(agent_path).name, "settings": chosen, "seed": seed, "step": step}
            walker = Walker(actor_layers(learner.agent), facts)
            found = evaluate(walker)
            print(
                f"{step} steps, {minutes} core-minutes: {found.speed:.2f} m/s, {found.falls:.2f} "
                f"falls per 1,000 steps, {found.overturned:.0%} overturned",
                flush=True,
            )
            row = {"step": step, "core_minutes": minutes, **dataclasses.asdict(found)}
            log.append(row | learner.read_metrics())
            if found.speed > best:
                best = found.speed
                walker.save(folder / "walker.npz")


def _check_numbers(steps: int, eval_interval: int, seed: int) -> None:
    for name, value, least in (
        ("steps", steps, NUM_ENVS),
        ("eval_interval", eval_interval, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise UserError(f"--{name}={value} is too small; give at least {least}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _config(
    agent_file: AgentFile, chosen: dict[str, Any], settings: str | Path
) -> ml_collections.ConfigDict:
    """Return an agent's settings, checked, with those chosen in a file."""
    config = agent_file.config.copy_and_resolve_references()
    if unknown := sorted(set(chosen) - set(config)):
        raise UserError(
            f"{settings} sets {', '.join(unknown)}, which {agent_file.path} does not have; give "
            "the agent's own settings in a file (--settings)"
        )
    config.update({key: tuple(v) if isinstance(v, list) else v for key, v in chosen.items()})
    agent_file.check(config, online=True)
    return config


def _example() -> dict[str, np.ndarray]:
    """Return a batch of one row, of zeros."""
    observations, row = np.zeros((1, 27), np.float32), np.zeros(1, np.float32)
    return {
        "observations": observations,
        "actions": np.zeros((1, 8), np.float32),
        "next_observations": observations,
        "rewards": row,
        "masks": row,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.collect.ant.train",
        description=__doc__.split("\n\n", 1)[1],
        allow_abbrev=False,
    )
    parser.add_argument(
        "--agent", required=True, help="the agent's file: a soft actor-critic that acts by tanh"
    )
    parser.add_argument("--output", required=True, help="folder of the results")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness (default: 0)")
    parser.add_argument(
        "--steps", type=int, default=400_000, help="environment steps (default: 400000)"
    )
    parser.add_argument(
        "--eval_interval", type=int, default=50_000, help="steps between them (default: 50000)"
    )
    parser.add_argument(
        "--settings",
        default=SETTINGS,
        help="JSON file of the agent's settings that differ from its defaults (default: those of "
        "the shipped walker)",
    )
    options = vars(parser.parse_args(arguments))
    enable_cpu_backend()
    enable_compilation_cache()
    try:
        train(options.pop("agent"), options.pop("output"), **options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    guard_stdout()
    sys.exit(main())
