"""How a score was made, and whether it can be compared with a published one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.envs.ogbench.environments import SUCCESS_TIMING


@dataclass(frozen=True)
class Protocol:
    """How a score was made; what is None is not known.

    Attributes:
        steps: Done at the last scored evaluation: updates, then environment steps.
        online_start: Step at which the run went online; None for a score from before.
        networks: The different hidden layers that its networks have, as tuples of widths.
        batch_size: Rows per update.
        episodes: Per evaluation and seed.
        scored_at: Steps of the evaluations that the score averages.
        metric: A key of `utils.report.scores.METRICS`.
        success_timing: What OGBench calls the state that a success belongs to; None elsewhere.
        official_data: Whether the training data are the benchmark's file.
        settings: Value by name of other settings; a published protocol has those that count.
        changed: By name, what settings of the agent would be that were given other values.
    """

    steps: int | None = None
    online_start: int | None = None
    networks: tuple[tuple[int, ...], ...] | None = None
    batch_size: int | None = None
    episodes: int | None = None
    scored_at: tuple[int, ...] | None = None
    metric: str | None = None
    success_timing: str | None = None
    official_data: bool | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)


def own_protocol(
    settings: Mapping[str, Any],
    *,
    metric: str,
    scored_at: Sequence[int],
    episodes: int,
    online_start: int | None = None,
    official_data: bool | None = None,
    changed: Mapping[str, Any] | None = None,
) -> Protocol:
    """Describe how a score of a run here was made.

    Args:
        settings: The run's, the agent's as 'agent.lr'. Widths of hidden layers are the agent's
            settings whose names end in `hidden_dims`.
        metric: What it is scored by.
        scored_at: Steps of the evaluations that are averaged.
        episodes: Of one evaluation, per seed.
        online_start: Step at which it went online; for scores from before, None.
        official_data: Whether it is known to be trained on the benchmark's file, or on another.
        changed: What settings of the agent would be that were given other values.
    """
    widths = [
        value
        for name, value in settings.items()
        if name.startswith("agent.") and name.endswith("hidden_dims") and value is not None
    ]
    widths = [tuple(value) if isinstance(value, (list, tuple)) else (value,) for value in widths]
    return Protocol(
        steps=max(scored_at, default=0),
        online_start=online_start,
        networks=tuple(dict.fromkeys(widths)) or None,
        batch_size=settings.get("agent.batch_size"),
        episodes=episodes,
        scored_at=tuple(sorted(scored_at)),
        metric=metric,
        success_timing=SUCCESS_TIMING if metric == "success" else None,
        official_data=official_data,
        settings=settings,
        changed=changed or {},
    )


# What a published protocol must state to be compared with, as it is called in sentences.
_STATED = {
    "steps": "steps",
    "networks": "networks",
    "batch_size": "batch size",
    "episodes": "episodes",
    "scored_at": "evaluations",
}


def differences(own: Protocol, published: Protocol) -> tuple[str, ...]:
    """Return in what one's own protocol differs from a published one, each in a few words.

    What the published one does not state is a difference too.
    """
    unknown = [what for name, what in _STATED.items() if getattr(published, name) is None]
    found = [f"published {', '.join(unknown)} not stated"] if unknown else []
    found += _length(own, published)
    if published.networks and set(own.networks or ()) != set(published.networks):
        found.append(f"networks {_networks(own)}, published {_networks(published)}")
    if published.batch_size not in (None, own.batch_size):
        found.append(
            f"batch size {own.batch_size or 'not known'}, published {published.batch_size}"
        )
    if published.episodes not in (None, own.episodes):
        found.append(f"{own.episodes} episodes, published {published.episodes}")
    if own.metric != published.metric:
        found.append(f"{own.metric}, published {published.metric}")
    if published.success_timing not in (None, own.success_timing):
        found.append(f"success {own.success_timing}, published {published.success_timing}")
    for name, value in published.settings.items():
        here = own.settings.get(name, own.settings.get(f"agent.{name}", value))
        if here != value:
            found.append(f"{name}={here}, published {value}")
    found += [
        f"{name.removeprefix('agent.')}={own.settings.get(name)}, published {usual}"
        for name, usual in own.changed.items()
        if not name.endswith(("hidden_dims", "batch_size"))  # which are compared as such
    ]
    if own.official_data is False:
        found.append("other data than the official file")
    return tuple(found)


def _length(own: Protocol, published: Protocol) -> list[str]:
    """Return what differs in steps, and in which of them are scored."""
    if published.steps is None:
        return []
    if own.online_start != published.online_start:
        ours, theirs = (
            "offline" if start is None else f"online from {short_steps(start)}"
            for start in (own.online_start, published.online_start)
        )
        return [f"{ours}, published {theirs}"]
    if own.steps < published.steps:
        return [f"{short_steps(own.steps)} of {short_steps(published.steps)} steps"]
    if own.steps > published.steps:
        return [f"{short_steps(own.steps)} steps, published {short_steps(published.steps)}"]
    if published.scored_at not in (None, own.scored_at):
        ours, theirs = (
            ", ".join(map(short_steps, steps)) for steps in (own.scored_at, published.scored_at)
        )
        return [f"scored at {ours}, published {theirs}"]
    return []


def _networks(protocol: Protocol) -> str:
    return " and ".join(map(str, protocol.networks or ())) or "not known"


def short_steps(steps: int) -> str:
    """Return a number of steps as people write it: 1M, 1.5M, 20K, 123."""
    for unit, letter in ((1_000_000, "M"), (1_000, "K")):
        if steps >= unit and steps * 100 % unit == 0:
            return f"{steps / unit:g}{letter}"
    return str(steps)
