"""What a run is put together from, before its loop."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from utils.agent import Agent, derived_settings
from utils.columns import ColumnFunction, prepare
from utils.datasets import example_batch, fingerprint, make_source
from utils.devices import member_mesh
from utils.envs import rendering, tasks
from utils.errors import UserError
from utils.evaluation import Evaluator
from utils.frames import stack_frames
from utils.online import OnlineState
from utils.policies import load_policy
from utils.runs.background import BackgroundEvaluation
from utils.runs.checks import require_images, warn_of_one_reward
from utils.runs.collecting import collect_missing
from utils.runs.folders import RunFolders
from utils.runs.grids import Grid
from utils.runs.logs import Logs, say
from utils.runs.memory import say_reading
from utils.runs.online import OnlineTraining
from utils.runs.progress import Progress
from utils.runs.settings import Settings
from utils.runs.wandb_log import Wandb, start_wandb
from utils.sampling import SamplingRule, load_rule
from utils.training import Trainer, TrainingState, create_agents
from utils.video import find_ffmpeg


def require_environment(settings: Settings) -> None:
    """Refuse now what the first evaluation or environment step would refuse.

    Raises:
        UserError: The task has no environment, or it cannot be made; or videos are asked for, and
            it cannot be rendered, or there is no ffmpeg.
    """
    name = settings.env_name
    if not tasks.has_env(name):
        raise UserError(
            f"{name} has no make_env(), so nothing can act in it; give --eval_interval=0 to train "
            "on its data alone"
        )
    rendering.choose_gl()  # once, for this process and its workers
    if settings.flags["video_episodes"]:
        find_ffmpeg()
        rendering.require_gl("videos")
    tasks.make_env(name, settings.flags.get("frame_stack")).close()


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The data as the agent learns from them.

    Attributes:
        train: Columns (n, ...) of the training data.
        val: Those of the validation data.
        columns: Columns that the agent adds, by name.
        scale_rewards: From rewards to those that the agent learns from.
        example: A batch.
        derived: The agent's settings that follow from them.
        fingerprint: Of the training data as they were loaded.
    """

    train: dict[str, np.ndarray]
    val: dict[str, np.ndarray]
    columns: Mapping[str, ColumnFunction]
    scale_rewards: Callable[[Any], Any]
    example: dict[str, jax.Array]
    derived: Mapping[str, Any]
    fingerprint: str


def load_data(settings: Settings, agent_class: type[Agent]) -> TrainingData:
    """Load a task's data, and let the agent scale them, add to them and take settings from them.

    Raises:
        UserError: Data are missing or damaged, or the agent derives a setting that it lacks.
    """
    if settings.flags["collect_missing"]:
        collect_missing(settings.env_name, settings.flags["dataset_dir"])
    say_reading(settings)
    train, val = tasks.load_datasets(settings.env_name, settings.flags["dataset_dir"])
    return prepare_data(settings, agent_class, train, val)


def prepare_data(
    settings: Settings,
    agent_class: type[Agent],
    train: dict[str, np.ndarray],
    val: dict[str, np.ndarray],
) -> TrainingData:
    """Let the agent scale data, add to them and take settings from them, see `load_data`."""
    config = settings.agent
    loaded = fingerprint(train)
    require_images(settings, train["observations"])
    if count := settings.flags.get("frame_stack"):
        train, val = (stack_frames(data, count) for data in (train, val))
    columns = agent_class.columns(config)

    def scale_rewards(rewards: Any) -> Any:
        return agent_class.scale_rewards(rewards, config)

    train, val = (prepare(data, columns, scale_rewards) for data in (train, val))
    derived = derived_settings(agent_class, train, config)
    settings.set_from_data(derived)
    warn_of_one_reward(settings, derived, train["rewards"])
    example = example_batch(train, config.batch_size, columns)
    return TrainingData(train, val, columns, scale_rewards, example, derived, loaded)


def sampling_rule(settings: Settings) -> SamplingRule:
    """Return the rule by which batches are sampled, with what is done to their images.

    Raises:
        UserError: There is no such rule.
    """
    rule = load_rule(settings.flags["sampling"])
    return dataclasses.replace(rule, p_aug=settings.flags.get("p_aug") or 0.0)


def make_trainer(
    settings: Settings, data: TrainingData, online: OnlineTraining | None, num_members: int
) -> Trainer:
    """Put the training data where batches come from.

    Raises:
        UserError: They do not fit, or there is no such sampling rule.
    """
    rule = sampling_rule(settings)
    if online is not None:
        source = online.make_source(data.train, data.columns, rule)
    else:
        mesh = member_mesh(num_members)
        source = make_source(data.train, settings.agent.batch_size, mesh, data.columns, rule)
    return Trainer(source, num_members, images=data.example["observations"].ndim > 2)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What training is made of.

    Attributes:
        data: The data.
        online: Environments and replay, if the run goes online.
        trainer: Runs updates.
        create: Makes the agents as they begin.
    """

    data: TrainingData
    online: OnlineTraining | None
    trainer: Trainer
    create: Callable[[], Agent]

    def new_state(self, seeds: np.ndarray) -> TrainingState:
        """Return the state at step 0 for seeds (seeds,)."""
        kind = TrainingState if self.online is None else OnlineState
        return kind.create(self.create(), seeds, self.data.example)


def make_parts(grid: Grid, agent_class: type[Agent], replay: Path) -> Parts:
    """Load data, and prepare training.

    Args:
        grid: The run's settings.
        agent_class: What is trained.
        replay: Folder of the transitions, if the run goes online.

    Raises:
        UserError: Data are missing or do not fit, or the environment cannot be made.
    """
    settings, seeds = grid.settings, grid.seeds
    if settings.flags["eval_interval"] or settings.online:
        require_environment(settings)
    data = load_data(settings, agent_class)
    grid.set_from_data(data.derived)
    online = None
    if settings.online:
        shift = tasks.reward_shift(settings.env_name)
        online = OnlineTraining(settings, seeds, replay, lambda r: data.scale_rewards(r + shift))
    trainer = make_trainer(settings, data, online, len(seeds))
    example = data.example  # what is kept holds no data, of which there is a copy on the device

    def create() -> Agent:
        return create_agents(agent_class, seeds, example, settings.agent, grid.varied)

    return Parts(data, online, trainer, create)


def make_evaluation(grid: Grid, stopped: Callable[[], bool]) -> BackgroundEvaluation:
    """Start the processes that play evaluations."""
    flags, name, members = grid.settings.flags, grid.settings.env_name, grid.members
    evaluator = Evaluator(
        functools.partial(tasks.make_env, name, flags.get("frame_stack")),
        load_policy(flags["eval_policy"]),
        num_episodes=flags["eval_episodes"],
        num_members=len(members),
        num_workers=flags["eval_workers"] or None,
        env_name=tasks.short_name(name),
    )
    return BackgroundEvaluation(
        evaluator,
        members,
        [point.folder / "videos" for point in grid.points],
        flags["video_episodes"],
        flags["video_frame_skip"],
        stopped,
    )


def open_logs(
    grid: Grid,
    agent_class: type[Agent],
    folders: RunFolders,
    progress: Progress,
    example: Mapping[str, jax.Array],
    sources: Mapping[str, bytes],
) -> tuple[Logs, Wandb]:
    """Write what the folders say of the run, and open its logs where the run is."""
    settings, flags = grid.settings, grid.settings.flags
    shared = {
        "online_start": progress.online_start,
        "dataset": progress.dataset,
        "protocol": tasks.protocol(settings.env_name),
        "example": {name: (x.shape, str(x.dtype)) for name, x in example.items()},
        "panels": [dataclasses.asdict(panel) for panel in agent_class.PANELS],
    }
    if warning := folders.begin(shared, sources, progress.step):
        say(f"warning: {warning}")
    wandb = start_wandb(
        flags["wandb_mode"],
        group=flags["run_group"],
        name="_".join(grid.folder.parts[-2:]),
        config=settings.as_dict(),
        folder=grid.folder,
        run_id=progress.wandb_id,
    )
    progress.wandb_id = wandb.id
    paths = [point.folder for point in grid.points]
    return Logs(paths, grid.members, agent_class.SIGNATURES, wandb, progress), wandb
