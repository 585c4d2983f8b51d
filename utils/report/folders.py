"""What a run's folder says of the run, besides its rows."""

import ast
import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import SOURCES, read_json
from utils.metrics import Panel
from utils.report.scores import METRICS

_LENGTHS = ("offline_steps", "online_steps", "eval_interval", "eval_episodes")


@dataclass(frozen=True)
class RunConfig:
    """What reports need to know of a run besides its rows.

    Attributes:
        task: Full name of the task.
        agent: Name of the agent.
        seeds: The training seeds.
        eval_episodes: Episodes of one evaluation, per seed.
        steps_wanted: Step at which the run ends: updates, then environment steps.
        online_start: Step at which it goes online; None for a run that stays offline.
        protocol: How the benchmark scores it, see `utils.report.scores.protocol_score`.
        panels: What the agent wants drawn besides the evaluation.
        changed: By name, what settings of the agent would be that the user gave other values.
        settings: By name ('sampling', 'agent.lr'), all that the results depend on but the seeds.
        command: The command line that repeats the run; empty if the folder does not say.
        dataset: Fingerprint of the training data; empty if the folder does not say.
        sources: Digest of the agent's file and of all else that the run was made by; comments and
            layout do not count.
        versions: Versions of packages, commit (`git`) and kinds of devices (`devices`).
    """

    task: str
    agent: str
    seeds: tuple[int, ...]
    eval_episodes: int
    steps_wanted: int
    online_start: int | None
    protocol: Mapping[str, Any] | None
    panels: tuple[Panel, ...]
    changed: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    dataset: str = ""
    sources: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        """The commit in twelve digits, with `+dirty` where files differed; empty if unknown."""
        commit, plus, dirty = str(self.versions.get("git") or "").partition("+")
        return commit[:12] + plus + dirty


def read_config(folder: str | os.PathLike) -> RunConfig:
    """Read config.json, versions.json and the kept sources of a run's folder.

    Raises:
        UserError: The folder is not a run's, or a file in it is damaged.
    """
    folder = Path(folder)
    path = folder / "config.json"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{folder} is not a run folder: {path.name} cannot be read ({error.strerror}); "
            "give the folders that main.py or online_main.py made"
        ) from error
    known = {
        "sources": _digest(folder / SOURCES),
        "versions": _read_versions(folder / "versions.json"),
    }
    try:
        config = json.loads(content)
        if "identity" not in config:  # it is old: the hash in the name stands for its settings
            config["identity"] = {"folder": folder.resolve().parent.name}
        return _parse(config, known)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, UserError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); run the same command again to "
            "make it anew"
        ) from error


def _read_versions(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    remedy = "remove it to do without versions"
    versions = read_json(path, remedy)
    devices = versions.get("devices", [])
    if not isinstance(devices, list) or not all(isinstance(kind, str) for kind in devices):
        raise UserError(f"{path} is damaged (its devices are {devices!r}); {remedy}")
    return versions


def _parse(config: dict[str, Any], known: Mapping[str, Any]) -> RunConfig:
    flags, online_start = config["flags"], config.get("online_start")
    steps_wanted = int(flags["offline_steps"])
    if online_start is not None:
        steps_wanted = online_start + int(flags["online_steps"])
    protocol = config.get("protocol")
    if protocol is not None:
        if protocol["metric"] not in (None, *METRICS):
            raise ValueError(f"unknown metric {protocol['metric']!r}")
        if not isinstance(protocol["evaluations"], int) or protocol["evaluations"] < 1:
            raise ValueError(f"{protocol['evaluations']} evaluations to score")
    first, number = int(flags.get("seed", 0)), int(flags["num_seeds"])
    lengths = {name: flags[name] for name in _LENGTHS if name in flags}
    return RunConfig(
        task=str(config["env_name"]),
        agent=Path(config["agent_path"]).stem,
        seeds=tuple(range(first, first + number)),
        eval_episodes=int(flags["eval_episodes"]),
        steps_wanted=steps_wanted,
        online_start=online_start,
        protocol=protocol,
        panels=tuple(Panel(**panel) for panel in config.get("panels", ())),
        changed=config.get("changed", {}),
        settings=config["identity"] | lengths,
        command=str(config.get("command") or ""),
        dataset=str(config.get("dataset") or ""),
        **known,
    )


def _digest(folder: Path) -> str:
    """Return a digest of the Python files below a folder by what they do; empty without any."""
    digest = hashlib.sha256()
    paths = sorted(folder.rglob("*.py"))
    for path in paths:
        content = path.read_bytes()
        with contextlib.suppress(SyntaxError, ValueError):
            content = ast.dump(ast.parse(content)).encode()
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:8] if paths else ""
