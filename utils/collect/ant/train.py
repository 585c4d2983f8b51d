"""Train a walker: ``python -m utils.collect.ant.train --agent=AGENT.py --seed=0 --output=FOLDER``.

The agent learns to walk in `DirectionalAnt` by online reinforcement learning. The folder gets the
best walker of all evaluations, `walker.npz`, and the evaluations, `evaluations.csv`.
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

import numpy as np

from utils.agent_files import load_agent_file
from utils.collect.ant.directional_ant import SECONDS_PER_STEP, DirectionalAnt
from utils.collect.ant.learner import Learner, LearnerState, actor_layers
from utils.collect.ant.walker import Walker
from utils.compilation_cache import enable_compilation_cache
from utils.devices import enable_cpu_backend
from utils.env_workers import TrainingEnvironment
from utils.errors import UserError
from utils.files import read_json
from utils.output import guard_stdout
from utils.report.csv_log import CsvLog

SETTINGS = Path(__file__).with_name("settings.json")
"""Settings of the agent that the shipped walker was trained with; the others are its defaults."""

RANDOM_STEPS = 10_000
UPDATES_PER_ROUND = 2
NUM_ENVS = 16
EVALUATION_EPISODES = 16
EPISODE_STEPS = 1_000
_EVALUATION_SEED = 2**30  # the training's seeds are below it


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a walker walks.

    Attributes:
        speed: Metres per second along the direction, over the whole time limit: a fallen ant makes
            no more way.
        falls: Terminations per 1,000 steps.
        overturned: Share of the episodes that end with the ant on its back.
    """

    speed: float
    falls: float
    overturned: float


def evaluate(walker: Walker, num_episodes: int, steps: int = EPISODE_STEPS) -> Evaluation:
    """Have ants walk, each for one episode, without noise.

    Args:
        walker: The walker.
        num_episodes: Episodes, always the same.
        steps: The most steps of an episode.
    """
    way, taken, falls, overturned = 0.0, 0, 0, 0
    env = DirectionalAnt()
    for episode in range(num_episodes):
        observation, _ = env.reset(seed=_EVALUATION_SEED + episode)
        terminated = False
        for _ in range(steps):
            # What it observes has been turned: the direction is +x.
            action = walker.act(observation, np.array([1.0, 0.0]))
            observation, reward, terminated, _, _ = env.step(action)
            way += reward
            taken += 1
            if terminated:
                break
        falls += terminated
        overturned += env.is_overturned()
    env.close()
    return Evaluation(
        speed=way / (num_episodes * steps * SECONDS_PER_STEP),
        falls=1_000 * falls / taken,
        overturned=overturned / num_episodes,
    )


class Ants:
    """Environments that are stepped in turn, in this process.

    Args:
        num_envs: How many.
        seed: Of their episodes.

    Attributes:
        observations: What each shows, (environments, 27).
    """

    def __init__(self, num_envs: int, seed: int):
        self._seeds = np.random.default_rng(np.random.SeedSequence((seed, 0)))
        self._envs = [TrainingEnvironment(DirectionalAnt) for _ in range(num_envs)]
        self.observations = np.stack([env.reset(self._next_seed()) for env in self._envs])

    def step(self, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Take a step in each; episodes that end are followed by the next ones.

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


def train(
    agent_path: str | Path,
    output: str | Path,
    *,
    seed: int = 0,
    steps: int = 400_000,
    eval_interval: int = 50_000,
    settings: str | Path = SETTINGS,
) -> Walker:
    """Train an agent, and keep the best walker of the evaluations.

    Args:
        agent_path: The agent's file.
        output: Folder of the results; it must not hold others.
        seed: Of everything random.
        steps: Environment steps, the random ones included.
        eval_interval: Steps between evaluations.
        settings: JSON file of the agent's settings that differ from its defaults.

    Returns:
        The walker that is kept.

    Raises:
        UserError: A file cannot be read or written, or the agent or its settings do not fit.
    """
    folder = Path(output).expanduser()
    if (folder / "evaluations.csv").exists():
        raise UserError(f"{folder} holds results already; remove them, or give another --output")
    file = load_agent_file(agent_path)
    config = file.config.copy_and_resolve_references()
    chosen = read_json(settings, "give a JSON object of the agent's settings")
    if unknown := sorted(set(chosen) - set(config)):
        raise UserError(f"{settings} sets {', '.join(unknown)}, which {agent_path} does not have")
    config.update({k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()})
    file.check(config, online=True)
    rounds = steps // NUM_ENVS
    learner = Learner(
        file.agent_class,
        config,
        seed=seed,
        num_envs=NUM_ENVS,
        observation_dim=27,
        action_dim=8,
        capacity=rounds * NUM_ENVS,
    )
    folder.mkdir(parents=True, exist_ok=True)
    log, state = CsvLog(folder / "evaluations.csv"), learner.begin()
    ants = Ants(NUM_ENVS, seed)
    rng = np.random.default_rng(np.random.SeedSequence((seed, 1)))
    best, kept, began = -np.inf, None, time.process_time()
    actions = np.zeros((NUM_ENVS, 8), np.float32)
    for number in range(1, rounds + 1):
        done = number * NUM_ENVS
        is_random = done <= RANDOM_STEPS
        if is_random:
            actions = rng.uniform(-1, 1, actions.shape).astype(np.float32)
        transitions = ants.step(actions)
        updates = 0 if is_random else UPDATES_PER_ROUND
        state, actions = learner.step(state, transitions, ants.observations, updates)
        if done // eval_interval > (done - NUM_ENVS) // eval_interval or number == rounds:
            minutes = (time.process_time() - began) / 60
            facts = {"agent": Path(agent_path).name, "settings": chosen, "seed": seed, "step": done}
            walker = Walker(actor_layers(state.agent), facts)
            found = evaluate(walker, EVALUATION_EPISODES)
            state = _report(log, state, done, found, minutes)
            if found.speed > best:
                best, kept = found.speed, walker
                walker.facts |= dataclasses.asdict(found)
                walker.save(folder / "walker.npz")
    return kept


def _report(
    log: CsvLog, state: LearnerState, step: int, found: Evaluation, minutes: float
) -> LearnerState:
    """Print and log an evaluation, and begin the means of the agent's metrics anew."""
    print(
        f"{step} steps, {minutes:.1f} core-minutes: {found.speed:.2f} m/s, {found.falls:.2f} falls "
        f"per 1,000 steps, {found.overturned:.0%} overturned",
        flush=True,
    )
    log.append({"step": step, "core_minutes": round(minutes, 2), **dataclasses.asdict(found)})
    return state


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.collect.ant.train",
        description=__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--agent", required=True, help="the agent's file, a soft actor-critic")
    parser.add_argument("--output", required=True, help="folder of the results")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--steps", type=int, default=400_000, help="environment steps")
    parser.add_argument("--eval_interval", type=int, default=50_000, help="steps between evaluations")
    parser.add_argument("--settings", default=SETTINGS, help="JSON file of the agent's settings")
    options = parser.parse_args(arguments)
    enable_cpu_backend()
    enable_compilation_cache()
    try:
        train(
            options.agent,
            options.output,
            seed=options.seed,
            steps=options.steps,
            eval_interval=options.eval_interval,
            settings=options.settings,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    guard_stdout()
    sys.exit(main())
