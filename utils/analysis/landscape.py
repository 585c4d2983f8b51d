"""The action landscape of a trained run: where its policy moves actions, and what Q says there.

It is Figure 2 of arXiv 2601.10471, for any run whose agent proposes and values actions.
"""

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.agent import Agent
from utils.analysis.action_plane import ActionPlane, coordinate_plane, principal_plane
from utils.analysis.action_samples import (
    Samples,
    check,
    refines,
    residual_lengths,
    sample,
    values,
)
from utils.analysis.arguments import numbers, positive
from utils.analysis.landscape_picture import Landscape, draw
from utils.analysis.states import training_data
from utils.envs import rendering, tasks
from utils.errors import UserError
from utils.frames import FrameStacks
from utils.load_agent import load_agent, read_settings
from utils.neighbours import nearest_rows, normalized
from utils.report.rendering import Table, markdown

READING = (
    "Percentile: of the state's own residual among 512 states. Moved: root mean square of the "
    "residuals at the state, as they are acted (clipped), over the radius sqrt(action_dim * "
    "delta); training holds it at 1 as a mean over states, and at no state by itself. Q gained: "
    "mean Q of the policy's actions minus that of the base actions, by the run's own critic. In "
    "the plane: the shares of the samples' variance and of the residuals' square length that it "
    "shows."
)
"""How to read the table."""

_TYPICAL = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
_CANDIDATES = 512
"""States that typical ones are chosen from."""

_GRID = 61
"""Values of Q along either axis."""

_MARGIN = 1.1
"""Width of a panel, in that of what it shows."""

_FEW = 8
"""Samples at a state whose residuals are only measured."""


def main(arguments: Sequence[str]) -> int:
    """Draw what the arguments say, print a row per panel, and return the exit code.

    Raises:
        UserError: Something that the user can remedy.
    """
    options = _parse(arguments)
    rendering.choose_gl()
    folder = Path(options.runs[0])
    settings, _ = read_settings(folder)
    agent = load_agent(folder, options.seed, options.agent)
    check(agent, settings["example"]["observations"], str(folder))
    other, name = None, ""
    if len(options.runs) == 2:
        other, name = _load_other(Path(options.runs[1]), settings, options.seed)
    data = training_data(settings, options.dataset_dir)
    rng = np.random.default_rng(options.sample_seed)
    states = choose_states(agent, data["observations"], options.rows, rng)
    nearby = _nearby(data, [row for row, _ in states], options.nearby)
    landscapes = []
    for (row, percentile), actions in zip(states, nearby, strict=True):
        observation = data["observations"][row]
        samples = sample(agent, other, observation, options.samples, options.sample_seed)
        plane = make_plane(samples, options.plane)
        ticks = make_ticks(plane, samples, actions, radius(agent))
        value = functools.partial(values, agent, observation)
        q, largest = values_in(plane, ticks, value)
        landscapes.append(
            Landscape(row, percentile, samples, actions, plane, radius(agent), ticks, q, largest)
        )
    output = options.output or folder / "landscape.png"
    title = f"{Path(settings['agent_path']).stem} on {tasks.short_name(settings['env_name'])}"
    draw(landscapes, output, title=title, other=name)
    print(f"{markdown(table(landscapes, name))}\n\n{READING}\n\nwritten: {output}")
    return 0


def _load_other(folder: Path, settings: Mapping[str, Any], seed: int | None) -> tuple[Agent, str]:
    """Return the agent of a second run, which must be of the same task, and its name.

    Raises:
        UserError: It is of another one, or no run.
    """
    theirs, _ = read_settings(folder)
    names = [tasks.short_name(one["env_name"]) for one in (settings, theirs)]
    if len(set(names)) == 2:
        raise UserError(
            f"{folder} is a run on {names[1]}, and the first one is on {names[0]}; give two runs "
            "on one task"
        )
    return load_agent(folder, seed), Path(theirs["agent_path"]).stem


def choose_states(
    agent: Agent, observations: Any, rows: Sequence[int] | None, rng: np.random.Generator
) -> list[tuple[int, float | None]]:
    """Return the rows to draw, and the percentile of each one's residuals, between 0 and 1.

    Unless they are given, they are those of 512 random ones whose residuals' lengths are at the
    percentiles 10, 30, 50, 70, 90 and 99, or for an agent without residuals six random ones.

    Raises:
        UserError: There is no such row.
    """
    size = len(observations)
    if rows and max(rows) >= size:
        raise UserError(f"--rows: there is no row {max(rows)}; the data have {size}")
    candidates = np.sort(rng.choice(size, min(_CANDIDATES, size), replace=False))
    if not refines(agent):
        number = min(len(_TYPICAL), size)
        return [(row, None) for row in rows or rng.choice(candidates, number, False).tolist()]
    lengths = np.asarray(residual_lengths(agent, observations[candidates], _FEW))
    if rows:
        own = np.asarray(residual_lengths(agent, observations[np.array(rows)], _FEW))
        return [(row, float(np.mean(lengths <= x))) for row, x in zip(rows, own, strict=True)]
    order = np.argsort(lengths, kind="stable")
    return [(int(candidates[order[round(share * (len(order) - 1))]]), share) for share in _TYPICAL]


def _nearby(data: Mapping[str, Any], rows: Sequence[int], number: int) -> list[np.ndarray]:
    """Return the data's actions at the states nearest to each row, its own first.

    Distances are those of `utils.neighbours`; between images there are none, and no such actions.

    Raises:
        UserError: There are fewer rows.
    """
    observations, actions = data["observations"], data["actions"]
    if number == 0 or isinstance(observations, FrameStacks) or observations.ndim != 2:
        return [actions[:0] for _ in rows]
    try:
        found, _ = nearest_rows(normalized(observations), np.array(rows), number)
    except ValueError as error:
        raise UserError(f"{error}; lower --nearby") from error
    return [actions[[row, *others]] for row, others in zip(rows, found, strict=True)]


def make_plane(samples: Samples, kind: str) -> ActionPlane:
    """Return the plane of a panel: of `samples`, of `residuals`, or of two dimensions `i,j`."""
    origin = samples.base.mean(axis=0)
    if kind == "samples":
        return principal_plane(np.concatenate([samples.base, samples.policy]) - origin, origin)
    if kind == "residuals":
        return principal_plane(samples.residuals, origin)
    i, j = map(int, kind.split(","))
    if max(i, j) >= len(origin):
        raise UserError(f"--plane={kind}: actions have {len(origin)} dimensions, counted from 0")
    return coordinate_plane(i, j, origin)


def make_ticks(
    plane: ActionPlane, samples: Samples, nearby: np.ndarray, radius: float | None
) -> np.ndarray:
    """Return coordinates along both axes, (2, g), of a square around all that is shown."""
    shown = [samples.base, samples.policy, nearby]
    shown += [] if samples.other is None else [samples.other]
    points = plane.project(np.concatenate(shown))
    reach = max(radius or 0.0, samples.moved)
    centre = plane.project(samples.central)
    points = np.concatenate([points, [centre - reach, centre + reach]])
    low, high = points.min(axis=0), points.max(axis=0)
    half = _MARGIN * max((high - low).max() / 2, 1e-3)  # all in one point, if nothing moves
    return (low + high)[:, None] / 2 + np.linspace(-half, half, _GRID)


def values_in(
    plane: ActionPlane, ticks: np.ndarray, value: Callable[[np.ndarray], Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return values of the clipped actions in a plane, and their largest components before that.

    Args:
        plane: The plane.
        ticks: Coordinates along both axes, (2, g).
        value: Maps actions (n, a) to values (n,).

    Returns:
        Two arrays (g, g), whose rows are the second axis.
    """
    actions = plane.lift(np.stack(np.meshgrid(*ticks), axis=-1)).astype(np.float32)  # (g, g, a)
    clipped = np.clip(actions, -1.0, 1.0).reshape(-1, actions.shape[-1])
    return np.asarray(value(clipped)).reshape(actions.shape[:-1]), np.abs(actions).max(axis=-1)


def radius(agent: Agent) -> float | None:
    """Return sqrt(action_dim * delta); None for an agent without a trust region."""
    if type(agent).trust_region is Agent.trust_region:
        return None
    return float(np.sqrt(agent.config["action_dim"] * agent.trust_region()))


def table(landscapes: Sequence[Landscape], other: str) -> Table:
    """Return a row per panel; see `READING`."""
    header = ["row", "percentile", "moved", "Q gained"]
    header += [f"Q gained by {other}"] if other else []
    header += ["samples in the plane", "residuals in the plane"]
    rows = []
    for one in landscapes:
        samples = one.samples
        spread = np.concatenate([samples.base, samples.policy]) - samples.base.mean(axis=0)
        row = [str(one.row), "" if one.percentile is None else f"{100 * one.percentile:.0f}"]
        row.append(f"{samples.moved / one.radius:.2f}" if samples.refined and one.radius else "")
        row.append(f"{samples.gained:+.3g}")
        row += [f"{samples.other_gained:+.3g}"] if other else []
        row.append(f"{one.plane.held(spread):.0%}")
        rows.append((*row, f"{one.plane.held(samples.residuals):.0%}" if samples.refined else ""))
    return Table(tuple(header), tuple(rows))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m utils.analysis landscape",
        description="Draw the action landscape of a trained run (Figure 2 of arXiv 2601.10471): "
        "at states of its training data, base actions, arrows to the refined ones, contours of Q, "
        "and the data's actions at the nearest states.",
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run's folder; of a second one, samples are shown")
    add("--output", type=Path, metavar="PNG", help="the picture (default: RUN/landscape.png)")
    add(
        "--rows",
        type=numbers,
        metavar="I,J,...",
        help="rows of the data (default: six, from short to long residuals)",
    )
    add(
        "--plane",
        type=_plane,
        default="samples",
        metavar="samples|residuals|I,J",
        help="principal components of samples or of residuals, or two action dimensions "
        "(default: %(default)s)",
    )
    add("--samples", type=positive, default=64, help="per state (default: %(default)s)")
    add(
        "--nearby",
        type=positive,
        default=10,
        help="nearest states whose actions are shown (default: %(default)s)",
    )
    add("--seed", type=int, help="training seed (default: the first that has not failed)")
    add("--sample_seed", type=int, default=0, help="of states and samples (default: 0)")
    add("--dataset_dir", metavar="FOLDER", help="of the data (default: as the run has)")
    add("--agent", metavar="FILE", help="the agent's file (default: the one that the run keeps)")
    options = parser.parse_args(arguments)
    if len(options.runs) > 2:
        parser.error("give one run, or two")
    return options


def _plane(text: str) -> str:
    parts = text.split(",")
    two = len(set(parts)) == 2 and all(part.isdecimal() for part in parts)
    if text not in ("samples", "residuals") and not two:
        raise argparse.ArgumentTypeError(
            f"{text} is neither samples, residuals nor two different dimensions such as 0,1"
        )
    return text
