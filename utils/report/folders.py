"""What a run's config.json says of the run."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.metrics import Panel
from utils.report.scores import METRICS


@dataclass(frozen=True)
class RunConfig:
    """What reports need to know of a run besides its rows.

    Attributes:
        task: Full name of the task.
        agent: Name of the agent.
        num_seeds: Seeds trained together.
        eval_episodes: Episodes of one evaluation, per seed.
        steps_wanted: Step at which the run ends: updates, then environment steps.
        online_start: Step at which it goes online; None for a run that stays offline.
        protocol: How the benchmark scores it, see `utils.report.scores.protocol_score`.
        panels: What the agent wants drawn besides the evaluation.
    """

    task: str
    agent: str
    num_seeds: int
    eval_episodes: int
    steps_wanted: int
    online_start: int | None
    protocol: Mapping[str, Any] | None
    panels: tuple[Panel, ...]


def read_config(folder: str | os.PathLike) -> RunConfig:
    """Read the config.json of a run's folder.

    Raises:
        UserError: The folder is not a run's, or its config.json is damaged.
    """
    path = Path(folder) / "config.json"
    try:
        return _parse(json.loads(path.read_text()))
    except OSError as error:
        raise UserError(
            f"{folder} is not a run folder: {path.name} cannot be read ({error.strerror}); "
            "give the folders that main.py or online_main.py made"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); run the same command again to "
            "make it anew"
        ) from error


def _parse(config: dict[str, Any]) -> RunConfig:
    flags, online_start = config["flags"], config.get("online_start")
    steps_wanted = int(flags["offline_steps"])
    if online_start is not None:
        steps_wanted = online_start + int(flags["online_steps"])
    protocol = config.get("protocol")
    if protocol is not None:
        if protocol["metric"] not in (None, *METRICS):
            raise ValueError(f"unknown metric {protocol['metric']!r}")
        if protocol["evaluations"] < 1:
            raise ValueError(f"{protocol['evaluations']} evaluations to score")
    return RunConfig(
        task=str(config["env_name"]),
        agent=Path(config["agent_path"]).stem,
        num_seeds=int(flags["num_seeds"]),
        eval_episodes=int(flags["eval_episodes"]),
        steps_wanted=steps_wanted,
        online_start=online_start,
        protocol=protocol,
        panels=tuple(Panel(**panel) for panel in config.get("panels", ())),
    )
