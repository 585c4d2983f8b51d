"""Flags, and how they become a run's settings: default, then published, then command line."""

import dataclasses
import difflib
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags

from utils.agent_files import AgentFile, load_agent_file
from utils.devices import MATMUL_PRECISIONS
from utils.envs import tasks
from utils.errors import UserError
from utils.policies import load_policy
from utils.runs.help import asked_for, help_text
from utils.runs.meaning import ONCE_FLAGS
from utils.runs.schedule import phases
from utils.sampling import load_rule

FLAGS = flags.FLAGS

# Flags that say where and how to run, not what: they are no part of the run folder's name.
_PLACE_FLAGS = frozenset(
    {
        "run_group",
        "save_dir",
        "dataset_dir",
        "collect_missing",
        "overwrite",
        "debug",
        "dry_run",
        "save_interval",
        "save_minutes",
        "eval_workers",
        "video_episodes",
        "video_frame_skip",
        "wandb_mode",
        "vary",  # what is varied is part of each grid point's own settings
    }
)
# Flags that only say how long or how often. A run goes on under other values of them, and with a
# greater length ends as if it had had that from the beginning. An agent with a schedule of the
# length has it among its own settings, and these count.
LENGTH_FLAGS = ("offline_steps", "online_steps", "log_interval", "eval_interval")
# Flags of FQL's main.py that not every entry point here has.
_ONLINE_FLAGS = ("online_steps", "balanced_sampling")
PIXEL_FLAGS = ("p_aug", "frame_stack")
"""Flags for images, which are None elsewhere."""
_SEED_FLAGS = ("seed", "num_seeds")
_defined: list[str] = []


def define(kind: Callable, name: str, default: Any, text: str, **bounds: Any) -> None:
    """Define an absl flag that belongs to a run's settings.

    Args:
        kind: A function of absl, such as `flags.DEFINE_integer`.
        name: The flag's name.
        default: Its default.
        text: Its help.
        **bounds: `lower_bound`, `upper_bound` or `enum_values`, as `kind` takes them.
    """
    kind(name, default, help=text, **bounds)
    _defined.append(name)


def define_flags() -> None:
    """Define the flags that all entry points share."""
    number, text, yes_no = flags.DEFINE_integer, flags.DEFINE_string, flags.DEFINE_bool
    define(text, "env_name", "cube-double-play", "Task, in full or short (cube-double-play-task3).")
    define(number, "seed", 0, "First training seed.", lower_bound=0, upper_bound=2**30)
    define(
        number,
        "num_seeds",
        1,
        "Train the seeds seed .. seed + num_seeds - 1 together, in one program on one dataset.",
        lower_bound=1,
    )
    define(
        flags.DEFINE_multi_string,
        "vary",
        None,
        "NAME=V1,V2: values of a number among the agent's settings (agent.lr=1e-4,3e-4), trained "
        "together in one program, with each seed and in a folder each; several --vary are "
        "multiplied.",
    )
    define(text, "dataset_dir", None, "Folder of the datasets (default: the suite's own).")
    define(
        yes_no,
        "collect_missing",
        False,
        "Where files of an OGBench dataset are missing, collect them here (official size, all "
        "cores) instead of downloading them.",
    )
    define(text, "save_dir", "exp", "Folder of all runs.")
    define(text, "run_group", "Debug", "Subfolder of save_dir, and the group in wandb.")
    define(
        text,
        "restore_path",
        None,
        "Folder of an earlier run, from whose last checkpoint the agents of these seeds start.",
    )
    define(
        yes_no,
        "overwrite",
        False,
        "Delete this run's folder and start over. Not for jobs that are requeued.",
    )
    define(
        yes_no,
        "dry_run",
        False,
        "Say what the run would need and take, measured here, and end without making its folder.",
    )
    define(
        yes_no,
        "debug",
        False,
        "Replay a run that NaN has ended, or one of its seeds, from the last good checkpoint, and "
        "name the agent's line that makes it. The run's folder stays as it is.",
    )
    rows = "Steps per row of train.csv: updates, or environment steps online."
    define(number, "log_interval", 5_000, rows, lower_bound=1)
    define(
        number,
        "eval_interval",
        100_000,
        "Steps between evaluations; 0 for none, and no environment to act in.",
        lower_bound=0,
    )
    define(number, "save_interval", 100_000, "Steps between checkpoints.", lower_bound=1)
    define(
        flags.DEFINE_float,
        "save_minutes",
        10.0,
        "Save a checkpoint at least this often, whatever save_interval is.",
        lower_bound=0.0,
    )
    define(number, "eval_episodes", 50, "Episodes per evaluation and seed.", lower_bound=1)
    define(
        number,
        "eval_workers",
        0,
        "Processes that step the evaluation's environments (0: one per core). The results do not "
        "depend on it.",
        lower_bound=0,
    )
    define(
        number,
        "video_episodes",
        0,
        "Episodes per evaluation and seed to record as video.",
        lower_bound=0,
    )
    define(number, "video_frame_skip", 3, "Record every so many steps.", lower_bound=1)
    define(
        flags.DEFINE_enum,
        "wandb_mode",
        "auto",
        "Weights & Biases: auto is online when logged in, else offline.",
        enum_values=["auto", "online", "offline", "disabled"],
    )
    define(
        flags.DEFINE_enum,
        "matmul_precision",
        "default",
        "Bits of float32 matrix products: default is JAX's, by device (TF32 on recent NVIDIA GPUs, "
        "bfloat16 on TPUs, float32 on CPUs).",
        enum_values=["default", *MATMUL_PRECISIONS],
    )
    define(
        text,
        "sampling",
        "uniform",
        "Rule by which batches are sampled: uniform, or the path of a Python file with "
        "sample_rows() or gather().",
    )
    define(
        text,
        "eval_policy",
        "sample",
        "Policy that is evaluated: sample (as the agent acts), propose (its model of the data "
        "alone), best_of_n, iterated_refinement, langevin or guided_flow, all of which may have "
        "settings (best_of_n:samples=8:q=min, see utils/policies.py); or the path of a Python file "
        "with policy(agent, observation, key).",
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run's resolved settings.

    Attributes:
        env_name: Full name of the task, or the path of its file.
        flags: Value by name of every flag but the agent's.
        agent_path: The agent's file.
        agent: The agent's settings.
        origins: By name ('seed', 'agent.lr'): default, published, prescribed (by the benchmark),
            flag, run (follows from the run's length) or data.
        published: Whether the agent's file has published settings for the task.
        changed: By name ('agent.lr'), what settings of the agent would be that the user gave other
            values.
        identity: By name ('sampling', 'agent.lr'), everything that the results depend on but the
            seeds, how long and how often.
        folder: The run folder, one per choice of seeds below that of a setting. Its name follows
            from `identity`.
        online: Whether the run goes on online.
        command: The command line that repeats the run; empty if there was none.
        varied: Of the agent's settings those that differ from other points of the run's grid.
    """

    env_name: str
    flags: dict[str, Any]
    agent_path: Path
    agent: ml_collections.ConfigDict
    origins: dict[str, str]
    published: bool
    changed: dict[str, Any]
    identity: dict[str, Any]
    folder: Path
    online: bool
    command: str = ""
    varied: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def seeds(self) -> np.ndarray:
        """The training seeds, (seeds,)."""
        return self.flags["seed"] + np.arange(self.flags["num_seeds"])

    def last_step(self, online_start: int | None) -> int:
        """Return the step at which the run ends.

        Args:
            online_start: Step at which it goes online, None if it does not.
        """
        return phases(self.flags, online_start)[-1].end

    def require_length(self, step: int, online_start: int | None) -> None:
        """Raise UserError if the run is to end before `step`, where it is; see `last_step`."""
        if step > self.last_step(online_start):
            name, done = "offline_steps", step - (online_start or 0)
            if online_start is not None:
                name = "online_steps"
            raise UserError(
                f"--{name}={self.flags[name]} is less than the {done} that the run in "
                f"{self.folder} has done; give at least --{name}={done}, keep both runs by another "
                "--run_group, or start over with --overwrite"
            )

    def set_from_data(self, derived: Mapping[str, Any]) -> None:
        """Set the agent's settings that follow from the data; what the user gave stays."""
        for key, value in derived.items():
            if self.origins[f"agent.{key}"] != "flag":
                self.agent[key] = _plain(value)
                self.origins[f"agent.{key}"] = "data"

    def as_dict(self) -> dict[str, Any]:
        """Return everything in JSON's types."""
        return {
            "env_name": self.env_name,
            "agent_path": str(self.agent_path),
            "flags": self.flags,
            "agent": self.agent.to_dict(),
            "origins": self.origins,
            "changed": self.changed,
            "identity": self.identity,
            "command": self.command,
        }

    def table(self) -> str:
        """Return one line per setting with its value and origin."""
        values = self.flags | {f"agent.{key}": value for key, value in self.agent.items()}
        width = max(map(len, values))
        lines = [f"  {key:<{width}}  {values[key]!s:<24}  {self.origins[key]}" for key in values]
        first = f"task {self.env_name}, agent {self.agent_path}, folder {self.folder}"
        if not self.published:
            first += (
                f"\n{self.agent_path.name} has no published settings for this task; its defaults "
                "hold"
            )
        return "\n".join([first, *lines])


def resolve(
    agent_file: AgentFile,
    online: bool,
    flag_values: flags.FlagValues = FLAGS,
    varied: Mapping[str, float] | None = None,
) -> Settings:
    """Return the settings of a command line that was parsed, see `combine`.

    Args:
        agent_file: The agent.
        online: Whether the run goes online.
        flag_values: The flags.
        varied: Settings of the agent at one point of the command's grid.

    Raises:
        UserError: One of these is given by itself too, or see `combine`.
    """
    varied = dict(varied or {})
    given = {name for name in _defined if flag_values[name].present}
    given |= {f"agent.{key}" for key in config_flags.get_override_values(flag_values["agent"])}
    if twice := [f"agent.{key}" for key in varied if f"agent.{key}" in given]:
        raise UserError(f"--{twice[0]} is given, and in --vary too; leave out one of them")
    values = {name: flag_values[name].value for name in _defined}
    agent = flag_values.agent.copy_and_resolve_references()
    agent.update(varied)
    of_point = {f"agent.{key}" for key in varied}
    settings = combine(values, agent, given | of_point, agent_file, online)
    command = _command(sys.argv[0], settings, given)
    return dataclasses.replace(settings, command=command, varied=varied)


def _command(entry_point: str, settings: Settings, given: Collection[str]) -> str:
    """Return a command line for a shell, with all that was given; task and agent always."""
    values = settings.flags | {f"agent.{key}": value for key, value in settings.agent.items()}
    stated = {"env_name": values["env_name"], "agent": settings.agent_path}
    stated |= {name: values[name] for name in values if name in given and name not in ONCE_FLAGS}
    stated.pop("vary", None)
    arguments = [f"--{name}={value}" for name, value in stated.items()]
    arguments += [f"--vary={text}" for text in settings.flags.get("vary") or ()]
    return shlex.join(["python", entry_point, *arguments])


def combine(
    values: Mapping[str, Any],
    agent: ml_collections.ConfigDict,
    given: Collection[str],
    agent_file: AgentFile,
    online: bool = False,
) -> Settings:
    """Combine defaults, what is published and prescribed for the task, and what the user gave.

    Args:
        values: Value of every flag but the agent's, by name.
        agent: The agent's settings.
        given: Names ('seed', 'agent.lr') of what the user set, which wins.
        agent_file: The agent.
        online: Whether the run goes on online. What a benchmark prescribes for the length of
            offline training then does not count: fine-tuning has its own.

    Raises:
        UserError: The task is unknown, or the agent lacks a setting that it needs, or two flags
            contradict each other.
    """
    env_name = tasks.resolve(values["env_name"])
    if online and values["restore_path"] is not None and "offline_steps" in given:
        raise UserError(
            "--restore_path takes the place of the offline phase: give it or --offline_steps"
        )
    values, agent = dict(values), agent.copy_and_resolve_references()
    known = [*values, *(f"agent.{key}" for key in agent)]
    origins = {name: "flag" if name in given else "default" for name in known}

    prescribed = tasks.prescribed(env_name)
    if online:
        prescribed.pop("offline_steps", None)
    if online and not set(PIXEL_FLAGS).isdisjoint(prescribed):
        raise UserError(
            f"{env_name} has images as observations, which are trained on offline alone: give it "
            "to main.py, or choose a state-based task"
        )
    if missing := [key for key in prescribed if key not in values and key not in agent]:
        where = "the entry point" if set(missing) <= set(PIXEL_FLAGS) else agent_file.path
        raise UserError(
            f"{env_name} has images as observations and is trained with {', '.join(missing)}, "
            f"which {where} does not have; add it there, or choose a state-based task"
        )
    published = agent_file.published_settings(env_name, online)
    if missing := [key for key in published if key not in values and key not in agent]:
        raise UserError(
            f"PUBLISHED in {agent_file.path} sets {', '.join(missing)} for {env_name}, but its "
            "get_config() has no such setting; add it there or remove it from the table"
        )
    usual = {key: (prescribed | published).get(key, x) for key, x in agent_file.config.items()}
    changed = {
        f"agent.{key}": value
        for key, value in usual.items()
        if origins[f"agent.{key}"] == "flag" and agent[key] != value
    }
    for origin, found in (("prescribed", prescribed), ("published", published)):
        for key, value in found.items():
            name = key if key in values else f"agent.{key}"
            if origins[name] != "flag":
                origins[name] = origin
                (values if key in values else agent)[key] = value
    for key in ("offline_steps", "online_steps"):  # an agent may have a schedule of that length
        if key in agent and key in values and origins[f"agent.{key}"] != "flag":
            agent[key], origins[f"agent.{key}"] = values[key], "run"
    load_rule(values["sampling"])
    load_policy(values["eval_policy"])

    identity = _identity(values, agent, env_name, agent_file.path, online)
    return Settings(
        env_name=env_name,
        flags=values,
        agent_path=agent_file.path,
        agent=agent,
        origins=origins,
        published=bool(published),
        changed=changed,
        identity=identity,
        folder=_folder(values, tasks.short_name(env_name), identity),
        online=online,
    )


def _identity(
    values: Mapping[str, Any],
    agent: ml_collections.ConfigDict,
    env_name: str,
    agent_path: Path,
    online: bool,
) -> dict[str, Any]:
    """Return what the results depend on, see `Settings.identity`."""
    left_out = {*_PLACE_FLAGS, *_SEED_FLAGS, *LENGTH_FLAGS}
    if online:  # where the online phase begins is not how long the run is
        left_out.remove("offline_steps")
    what = {name: value for name, value in values.items() if name not in left_out}
    # Where there are no images it is as if there were no flags for them.
    what = {name: x for name, x in what.items() if name not in PIXEL_FLAGS or x is not None}
    what |= {"env_name": env_name, "agent_name": agent_path.stem}
    what |= {f"agent.{key}": value for key, value in agent.to_dict().items()}
    # Where the user's files lie says nothing of what is in them; a change there is seen by itself.
    return {key: _file_name(value) for key, value in what.items()}


def _folder(values: Mapping[str, Any], task: str, identity: Mapping[str, Any]) -> Path:
    """Return the run folder, see `Settings.folder`; `task` is the task's short name."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    seeds = f"sd{values['seed']:03d}"
    if values["num_seeds"] > 1:
        seeds += f"-{values['seed'] + values['num_seeds'] - 1:03d}"
    name = f"{task}_{identity['agent_name']}_{digest}"
    return Path(values["save_dir"]).expanduser() / values["run_group"] / name / seeds


def _file_name(value: Any) -> Any:
    """Return the name of a file instead of its path; other values as they are."""
    return Path(value).name if isinstance(value, str) and value.endswith(".py") else value


def _plain(value: Any) -> Any:
    """Return NumPy's and JAX's numbers, alone or in tuples, as Python's."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain, value))
    return value.item() if hasattr(value, "item") else value


# --- The command line -----------------------------------------------------------------------------


def parse(
    argv: Sequence[str], default_agent: str, flag_values: flags.FlagValues = FLAGS
) -> AgentFile:
    """Parse flags, after loading the agent's file, whose settings are flags too.

    `--help` is answered here, with exit code 0.

    Args:
        argv: The command line, with the entry point.
        default_agent: The agent's file if none is given.
        flag_values: Where the values go. The agent's settings are defined there, once.

    Returns:
        The agent.

    Raises:
        UserError: The file is no agent, a setting is unknown, a value is none that its flag takes,
            or an argument is no flag.
    """
    path, argv, overrides = _split(argv, default_agent)
    argv = _known_elsewhere(argv)
    agent_file = load_agent_file(path)
    for name in overrides:
        require_setting(name, list(agent_file.config), path)
    argv += [f"--agent.{name}={value}" for name, value in overrides.items()]

    if asked_for(argv[1:]):
        print(help_text(sys.modules["__main__"].__doc__ or "", _defined, agent_file))
        sys.exit(0)
    sys.argv[:] = argv  # where config_flags looks for --agent.*
    config_flags.DEFINE_config_dict(
        "agent",
        agent_file.module.get_config(),  # a new one, because flags are written into it
        "The agent: path of a Python file. Its settings are flags too, as in --agent.lr=1e-4.",
        flag_values=flag_values,
    )
    try:
        rest = flag_values(argv)
    except flags.Error as error:
        text = str(error).replace(" ?", "?")
        raise UserError(f"{text[:1].lower()}{text[1:]} (--help explains every flag)") from error
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}; settings are given as --name=value")
    return agent_file


def _split(argv: Sequence[str], default_agent: str) -> tuple[str, list[str], dict[str, str]]:
    """Separate the agent's path and its settings from the other arguments; the last one wins."""
    path, rest, overrides = default_agent, [], {}
    waiting = list(argv)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.partition("=")
        name = name.removeprefix("-").removeprefix("-") if name.startswith("-") else ""
        if name == "agent" or name.startswith("agent."):
            if not equals:  # the next argument, or a boolean setting by its name alone
                value = waiting.pop(0) if waiting and waiting[0][:2] != "--" else "True"
            if name == "agent":
                path = str(Path(value).expanduser())
            else:
                overrides[name.removeprefix("agent.")] = value
        else:
            rest.append(argument)
    return path, rest, overrides


def _known_elsewhere(argv: Sequence[str]) -> list[str]:
    """Return arguments without flags of FQL's one program that ask for nothing here.

    Raises:
        UserError: One asks for what another entry point does, or none yet.
    """
    rest, waiting = [], list(argv)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.partition("=")
        name = name.lstrip("-") if name.startswith("-") else ""
        if argument in [f"--{flag}=None" for flag in PIXEL_FLAGS]:
            continue
        if name in FLAGS or name not in (*_ONLINE_FLAGS, *PIXEL_FLAGS):
            rest.append(argument)
            continue
        if not equals:
            value = waiting.pop(0) if waiting and not waiting[0].startswith("-") else "True"
        if name in PIXEL_FLAGS:
            raise UserError(
                f"--{name} is for images, which are trained on offline alone: give the same line "
                "to main.py, or leave it out"
            )
        if name in _ONLINE_FLAGS and value.lower() not in ("0", "false"):
            raise UserError(
                f"--{name}={value} is for training online, which {Path(argv[0]).name} does not; "
                "give the same line to online_main.py"
            )
    return rest


def require_setting(key: str, known: Sequence[str], path: str | Path) -> None:
    """Raise UserError, with the nearest names, unless an agent's file has a setting."""
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join('--agent.' + name for name in near)}?"
    else:
        hint = f"it has {', '.join(sorted(known))}"
    raise UserError(f"{path} has no setting --agent.{key}; {hint}")
