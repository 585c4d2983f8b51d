"""Flags, and how they become a run's settings: default, then published, then command line."""

import dataclasses
import difflib
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import app, flags, logging
from ml_collections import config_flags

from utils.devices import join_processes, share_of_seeds
from utils.envs import names
from utils.errors import UserError

FLAGS = flags.FLAGS

# Flags that say where and how to run, not what: they are no part of the run folder's name.
_PLACE_FLAGS = frozenset(
    {
        "run_group",
        "save_dir",
        "dataset_dir",
        "overwrite",
        "save_interval",
        "save_minutes",
        "eval_workers",
        "video_episodes",
        "video_frame_skip",
        "wandb_mode",
        "distributed",
    }
)
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
    define(text, "dataset_dir", None, "Folder of the datasets (default: the suite's own).")
    define(text, "save_dir", "exp", "Folder of all runs.")
    define(text, "run_group", "Debug", "Subfolder of save_dir, and the group in wandb.")
    define(
        text,
        "restore_path",
        None,
        "Folder of an earlier run, from whose last checkpoint the agent starts.",
    )
    define(
        yes_no,
        "overwrite",
        False,
        "Delete this run's folder and start over. Not for jobs that are requeued.",
    )
    rows = "Steps per row of train.csv: updates, or environment steps online."
    define(number, "log_interval", 5_000, rows, lower_bound=1)
    define(number, "eval_interval", 100_000, "Steps between evaluations.", lower_bound=1)
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
        yes_no,
        "distributed",
        False,
        "Share the seeds among the processes of a job on several machines (Slurm, MPI, or named by "
        "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID), each with its own folder.",
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """A run's resolved settings.

    Attributes:
        env_name: Full name of the task.
        flags: Value by name of every flag but the agent's.
        agent_path: The agent's file.
        agent: The agent's settings.
        origins: By name ('seed', 'agent.lr'), one of 'default', 'published' and 'flag'.
        folder: The run folder; its name follows from everything that the results depend on.
    """

    env_name: str
    flags: dict[str, Any]
    agent_path: Path
    agent: ml_collections.ConfigDict
    origins: dict[str, str]
    folder: Path

    def as_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        return {
            "env_name": self.env_name,
            "agent_path": str(self.agent_path),
            "flags": self.flags,
            "agent": self.agent.to_dict(),
            "origins": self.origins,
        }

    def table(self) -> str:
        """One line per setting with its value and origin."""
        values = self.flags | {f"agent.{key}": value for key, value in self.agent.items()}
        width = max(map(len, values))
        lines = [f"  {key:<{width}}  {values[key]!s:<24}  {self.origins[key]}" for key in values]
        return "\n".join(
            [f"task {self.env_name}, agent {self.agent_path}, folder {self.folder}", *lines]
        )


def agent_path() -> Path:
    """Path of the file given by --agent."""
    return Path(config_flags.get_config_filename(FLAGS["agent"]))


def resolve(published_settings: Callable[[str], Mapping[str, Any]]) -> Settings:
    """Settings of the command line, see `combine`."""
    given = {name for name in _defined if FLAGS[name].present}
    given |= {f"agent.{key}" for key in config_flags.get_override_values(FLAGS["agent"])}
    values = {name: FLAGS[name].value for name in _defined}
    if values["distributed"]:
        seeds = values["seed"], values["num_seeds"]
        values["seed"], values["num_seeds"] = share_of_seeds(*seeds, *join_processes())
    return combine(values, FLAGS.agent, given, agent_path(), published_settings)


def combine(
    values: Mapping[str, Any],
    agent: ml_collections.ConfigDict,
    given: Collection[str],
    agent_path: Path,
    published_settings: Callable[[str], Mapping[str, Any]],
) -> Settings:
    """Combine defaults, the published settings of the task and what was given by the user.

    Args:
        values: Value of every flag but the agent's, by name.
        agent: The agent's settings.
        given: Names ('seed', 'agent.lr') of what the user set, which wins.
        agent_path: The agent's file.
        published_settings: Maps a task's full name to its published settings, whose keys are the
            agent's or a flag's.

    Raises:
        UserError: The task is unknown, or its published settings need what the agent lacks.
    """
    env_name = names.resolve(values["env_name"])
    values, agent = dict(values), ml_collections.ConfigDict(agent)
    known = [*values, *(f"agent.{key}" for key in agent)]
    origins = {name: "flag" if name in given else "default" for name in known}

    if env_name.startswith("visual-") and "encoder" not in agent:
        raise UserError(
            f"{env_name} has images as observations, and {agent_path} no encoder for them: agents "
            "for pixels are not available yet. Choose a state-based task"
        )
    missing = []
    for key, value in published_settings(env_name).items():
        name = f"agent.{key}" if key in agent else key
        if name not in origins:
            missing.append(key)
        elif origins[name] != "flag":
            origins[name] = "published"
            (agent if key in agent else values)[key] = value
    if missing:
        raise UserError(
            f"PUBLISHED in {agent_path} sets {', '.join(missing)} for {env_name}, but its "
            "get_config() has no such setting; add it there or remove it from the table"
        )

    what = {name: value for name, value in values.items() if name not in _PLACE_FLAGS}
    what |= {"env_name": env_name, "agent_name": agent_path.stem, "agent": agent.to_dict()}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]
    seeds = f"sd{values['seed']:03d}"
    if values["num_seeds"] > 1:
        seeds += f"-{values['seed'] + values['num_seeds'] - 1:03d}"
    name = f"{names.short_name(env_name)}_{agent_path.stem}_{seeds}_{digest}"
    return Settings(
        env_name=env_name,
        flags=values,
        agent_path=agent_path,
        agent=agent,
        origins=origins,
        folder=Path(values["save_dir"]).expanduser() / values["run_group"] / name,
    )


def _parse(
    load_agent_config: Callable[[str], Any], default_agent: str, argv: Sequence[str]
) -> list[str]:
    """Parse flags after checking the agent's, whose errors absl would not explain."""
    argv, path = _agent_first(argv, default_agent)
    settings = load_agent_config(path)
    for argument in argv[1:]:
        name = argument.lstrip("-").split("=", 1)[0]
        if argument.startswith("-") and name.startswith("agent."):
            _require_setting(name.removeprefix("agent."), list(settings), path)

    listed = ", ".join(f"{key}={value}" for key, value in settings.items())
    sys.argv[:] = argv  # where config_flags looks for --agent.*
    config_flags.DEFINE_config_file(
        "agent",
        default_agent,
        "The agent: path of a Python file. Its settings are flags too, as in --agent.lr=1e-4. "
        f"Those of {path} and their defaults: {listed}",
    )
    for name in (*_defined, "agent"):  # so that --help lists them as the entry point's own
        FLAGS.register_key_flag_for_module(argv[0], FLAGS[name])
    rest = app.parse_flags_with_usage(argv)
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}; settings are given as --name=value")
    return rest


def _agent_first(argv: Sequence[str], default_agent: str) -> tuple[list[str], str]:
    """Move --agent before --agent.*, where config_flags wants it; returns its value as well."""
    path, rest, arguments = default_agent, [], iter(argv)
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in ("-agent", "--agent"):
            path = value if equals else next(arguments, "")
        else:
            rest.append(argument)
    path = str(Path(path).expanduser())
    return [rest[0], f"--agent={path}", *rest[1:]], path


def _require_setting(key: str, known: Sequence[str], path: str) -> None:
    if key in known:
        return
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join('--agent.' + name for name in near)}?"
    else:
        hint = f"it has {', '.join(sorted(known))}"
    raise UserError(f"{path} has no setting --agent.{key}; {hint}")


def launch(
    main: Callable[[], int], load_agent_config: Callable[[str], Any], default_agent: str
) -> None:
    """Run an entry point: parse flags, and turn a UserError into one line and exit code 1.

    Args:
        main: Returns the exit code.
        load_agent_config: Maps an agent file's path to its default settings.
        default_agent: The agent file if none is given.
    """

    def guarded(function: Callable, *args: Any) -> Any:
        try:
            return function(*args)
        except UserError as error:
            for note in getattr(error, "__notes__", ()):  # such as what a worker process reported
                print(note, file=sys.stderr)
            sys.exit(f"error: {error}")  # on stderr, with exit code 1

    logging.set_verbosity(logging.WARNING)
    app.run(
        lambda argv: guarded(main),
        flags_parser=lambda argv: guarded(_parse, load_agent_config, default_agent, argv),
    )
