"""Episodes of `DirectionalAnt`: several at once to learn from, and those of an evaluation."""

import dataclasses

import numpy as np

from utils.collect.ant.directional_ant import SECONDS_PER_STEP, DirectionalAnt
from utils.collect.ant.walker import Walker
from utils.env_workers import TrainingEnvironment

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
        speed: Metres per second in the direction, over the whole time: a fallen ant makes none.
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
    distance, taken, falls, overturned = 0.0, 0, 0, 0
    for episode in range(num_episodes):
        observation, _ = env.reset(seed=_EVALUATION_SEED + episode)
        rng = np.random.default_rng(episode)
        for _ in range(steps):
            # The observation has been rotated: in it the direction is +x.
            action = walker.act(observation, np.array([1.0, 0.0]))
            action = np.clip(action + noise * rng.standard_normal(8), -1, 1)
            observation, reward, terminated, _, _ = env.step(action)
            distance += reward
            taken += 1
            if terminated:
                falls += 1
                break
        overturned += env.is_overturned()
    env.close()
    return Evaluation(
        speed=distance / (num_episodes * steps * SECONDS_PER_STEP),
        falls=1_000 * falls / taken,
        overturned=overturned / num_episodes,
    )
