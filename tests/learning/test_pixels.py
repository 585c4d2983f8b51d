"""A task that is seen in images alone is learnt, and not if images tell nothing of the state."""

import jax
import numpy as np
import pytest

from tests import toys
from tests.toy_envs import Beacon
from utils.datasets import DeviceDataset, example_batch
from utils.envs.frame_stack import FrameStack
from utils.evaluation import evaluate
from utils.frames import FrameStacks, stack_frames
from utils.sampling import SamplingRule
from utils.training import Trainer, TrainingState, create_agents

pytestmark = pytest.mark.learning
SETTINGS = {
    "encoder": "impala_debug",
    "actor_hidden_dims": (64, 64),
    "value_hidden_dims": (64, 64),
    "batch_size": 64,
    "lr": 1e-3,
    "discount": 0.9,
    "tau": 0.01,
    "flow_steps": 5,
    "target_divergence": 0.05,
}
STACK = 2


def transitions(episodes=400):
    """Return frames, which of them end an episode, and the other columns of the steps between.

    Half of the episodes go towards the light with much noise, the others are noise alone.
    """
    env, rng = Beacon(), np.random.default_rng(0)
    env.reset(seed=0)
    frames, last, rows = [], [], []
    for episode in range(episodes):
        frames.append(env.reset()[0])
        last.append(False)
        done = False
        while not done:
            towards = env.light - env.position
            aim = 0.7 * towards / np.linalg.norm(towards) if episode % 2 else np.zeros(2)
            action = np.clip(aim + rng.normal(0, 0.6, 2), -1, 1)
            frame, reward, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
            frames.append(frame)
            last.append(done)
            rows.append((action, reward, 1.0 - terminated))
    actions, rewards, masks = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    columns = {"actions": actions, "rewards": rewards, "masks": masks}
    return np.stack(frames), np.array(last), columns


def success(frames, last, columns, updates=1500):
    """Train on stacks of frames, and return the rate of success."""
    stacks = FrameStacks.of_steps(frames, last)
    data = stack_frames(columns | stacks, STACK)
    agent_class, config = toys.tiny("deflow", **SETTINGS)
    seeds, example = np.arange(1), example_batch(data, config.batch_size)
    agents = create_agents(agent_class, seeds, example, config)
    source = DeviceDataset(data, config.batch_size, rule=SamplingRule(p_aug=0.5))
    trainer = Trainer(source, 1, images=True)
    state = trainer.update(TrainingState.create(agents, seeds, example), updates)
    agent = jax.tree.map(lambda leaf: leaf[0], state.agents)
    return evaluate(agent, FrameStack(Beacon(), STACK), jax.random.key(0), 100)["success"].mean()


# One seed had 0.86 and 0.04.
def test_a_goal_in_pixels_is_found_by_who_sees_it():
    frames, last, columns = transitions()
    shuffled = np.random.default_rng(1).permutation(len(frames))
    seeing, blind = success(frames, last, columns), success(frames[shuffled], last, columns)
    assert seeing > 0.6
    assert blind < 0.3
