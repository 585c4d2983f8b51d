"""How far the refinement moves actions, state by state.

Training holds the divergence, a mean over states, at delta. This shows what that mean is made of:
the distribution over states of the residual's mean square per dimension, over delta.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from utils.agent import Agent
from utils.analysis.arguments import positive
from utils.analysis.policy_results import group_of
from utils.analysis.states import dataset_states
from utils.errors import UserError
from utils.files import output_folder, write_atomically
from utils.load_agent import load_agents
from utils.report.panel_axes import mean_line
from utils.report.panel_legend import Legend
from utils.report.rendering import Table, markdown
from utils.report.style import STYLE, format_log, looks, write_png
from utils.trust_region import base_and_refined

_WIDTH, _HEIGHT = 4.2, 3.0  # of one pair of axes, in inches
_STATES_AT_ONCE = 1000

READING = (
    "Mean square of the residual per action dimension, as it is acted (clipped), over delta, at "
    "states of the training data with one base action each. Training holds the mean over states "
    "at 1, and no state by itself."
)
"""How to read the table."""


def residual_ratios(agent: Agent, observations: jax.Array, key: jax.Array) -> jax.Array:
    """Return the residual's mean square per dimension over delta, at each state.

    Args:
        agent: An agent with `propose`, `refine` and `trust_region`.
        observations: The states (n, ...).
        key: Of the base actions' noise.

    Returns:
        The ratios (n,).
    """

    def ratio(observation: jax.Array, key: jax.Array) -> jax.Array:
        base, refined = base_and_refined(agent, observation, key)
        return ((refined - base) ** 2).mean() / agent.trust_region()

    return jax.vmap(ratio)(observations, jax.random.split(key, len(observations)))


def run_ratios(
    folder: str, count: int, dataset_dir: str | None = None, agent_file: str | None = None
) -> np.ndarray:
    """Return the ratios (seeds, states) of a run's last checkpoint; see `residual_ratios`.

    All seeds that have not failed meet the same states with the same noise.

    Raises:
        UserError: It is no run, lacks a checkpoint, a method or data, or all its seeds have failed.
    """
    loaded = load_agents(folder, agent_file)
    good = np.array([seed not in loaded.failed for seed in loaded.seeds.tolist()])
    if not good.any():
        raise UserError(f"all seeds of {folder} have failed; give a run that has not")
    agents = jax.tree.map(lambda leaf: leaf[good], loaded.agents)
    ratios = jax.jit(jax.vmap(residual_ratios, (0, None, None)))
    example = jax.ShapeDtypeStruct(*loaded.settings["example"]["observations"])
    try:
        jax.eval_shape(ratios, agents, example, jax.random.key(0))
    except UserError as error:
        raise UserError(f"{folder} has no residuals: {error}") from error
    states = dataset_states(loaded, count, dataset_dir)
    parts = np.array_split(states, -(-len(states) // _STATES_AT_ONCE))
    keys = jax.random.split(jax.random.key(0), len(parts))
    found = [ratios(agents, part, key) for part, key in zip(parts, keys, strict=True)]
    return np.concatenate(found, axis=1)


def share_of_greatest(ratios: np.ndarray, share: float) -> float:
    """Return which part of the sum of ratios (n,) the greatest have, a share of all of them."""
    ordered = np.sort(ratios)[::-1]
    return float(ordered[: max(1, round(share * len(ordered)))].sum() / ordered.sum())


def summary(ratios: Mapping[str, np.ndarray]) -> str:
    """Return a table in Markdown of ratios (seeds, states) by run, all seeds together."""
    header = ("run", "seeds", "states", "mean", "median", "90 %", "99 %", "99.9 %", "greatest")
    header += ("above delta", "of D in the top 1 %", "of D in the top 10 %")
    rows = []
    for name, own in ratios.items():
        quantiles = (own.mean(), *np.quantile(own, [0.5, 0.9, 0.99, 0.999, 1.0]))
        shares = ((own > 1).mean(), *(share_of_greatest(own.ravel(), s) for s in (0.01, 0.1)))
        numbers = [f"{value:.3g}" for value in quantiles]
        numbers += [f"{100 * value:.1f} %" for value in shares]
        rows.append((name, str(own.shape[0]), str(own.shape[1]), *numbers))
    return markdown(Table(header, tuple(rows)))


def draw_residuals(ratios: Mapping[str, np.ndarray], output: str | os.PathLike) -> None:
    """Draw the tails of ratios (seeds, states) by run as one PNG file.

    On the left is the share of states above each ratio, thin lines being seeds; on the right the
    share of D that the states with the greatest ratios have. The same ratios give the same bytes.

    Raises:
        UserError: The picture cannot be written.
    """
    chosen = dict(zip(ratios, looks(len(ratios)), strict=True))
    legend = Legend(
        "Residual's mean square per dimension over delta, by state. Dotted: delta, at which "
        "training holds the mean. Thin: one seed.",
        tuple((name, mean_line(look) | {"marker": ""}) for name, look in chosen.items()),
        (),
        2 * _WIDTH,
    )
    with matplotlib.rc_context(STYLE):
        height = _HEIGHT + legend.height
        figure = Figure(figsize=(2 * _WIDTH, height), dpi=150, layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, _HEIGHT / height))
        legend.draw(figure)
        tail, held = figure.subplots(1, 2)
        for name, own in ratios.items():
            line = {"color": chosen[name].colour, "linestyle": chosen[name].line}
            for seed in own if len(own) > 1 else ():
                tail.plot(*_tail(seed), color=chosen[name].colour, linewidth=0.5, alpha=0.5)
            x, above = _tail(own.ravel())
            tail.plot(x, above, **line, linewidth=1.5)
            held.plot(100 * above, 100 * np.cumsum(x) / x.sum(), **line, linewidth=1.5)
        tail.axvline(1.0, color="#333333", linestyle=":", linewidth=1.0)
        tail.set(xscale="log", yscale="log", xlim=(1e-2, None), ylim=(1e-4, 1.2))
        tail.set_xlabel("mean square of the residual / delta")
        tail.set_ylabel("share of states above")
        held.set(xscale="log", ylim=(0, 102))
        for axis in (tail.xaxis, tail.yaxis, held.xaxis):
            format_log(axis)
        held.set_xlabel("states with the greatest residuals (%)")
        held.set_ylabel("their part of D (%)")
        write_png(figure, output)


def _tail(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ratios (n,) from the greatest down, and the share of all that are as great."""
    return np.sort(ratios)[::-1], np.arange(1, len(ratios) + 1) / len(ratios)


def main(arguments: Sequence[str]) -> int:
    """Print a table and draw a picture of what the arguments say; return the exit code.

    Raises:
        UserError: Something that the user can remedy.
    """
    options = _parse(arguments)
    output = output_folder(options.output)
    ratios = {
        _name(folder, options.runs): run_ratios(
            folder, options.states, options.dataset_dir, options.agent
        )
        for folder in dict.fromkeys(options.runs)
    }
    text = f"{summary(ratios)}\n\n{READING}\n"
    write_atomically(output / "residuals.md", text.encode())
    draw_residuals(ratios, output / "residuals.png")
    print(f"{text}\nwritten: {output / 'residuals.md'}, {output / 'residuals.png'}")
    return 0


def _name(folder: str, runs: Sequence[str]) -> str:
    """Return what a run is called: its settings' folder, or its own where others are there too."""
    groups = [group_of(run) for run in dict.fromkeys(runs)]
    group = group_of(folder)
    return group if groups.count(group) == 1 else f"{group}/{Path(folder).name}"


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m utils.analysis residuals",
        description="Show how far the refinement moves actions at states of the training data, "
        "against the trust region that holds on average.",
    )
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="a run's folder")
    add("--states", type=positive, default=10_000, help="how many (default: %(default)s)")
    add("--dataset_dir", metavar="FOLDER", help="of the data (default: as the run has)")
    add("--agent", metavar="FILE", help="the agent's file (default: the one that the run keeps)")
    add(
        "--output",
        default="residuals",
        metavar="FOLDER",
        help="gets residuals.md and residuals.png (default: %(default)s)",
    )
    return parser.parse_args(arguments)
