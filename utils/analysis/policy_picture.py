"""Scores and milliseconds per action against the budgets of policies, as a picture."""

import os
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from utils.analysis.policy_results import Result
from utils.report.panel_axes import mean_line
from utils.report.panel_legend import Legend
from utils.report.scores import METRICS
from utils.report.style import STYLE, Look, format_log, looks, write_png

_ROWS = 3
_WIDTH, _HEIGHT = 4.2, 2.3  # of one pair of axes, in inches


def draw_policies(groups: Mapping[str, Sequence[Result]], output: str | os.PathLike) -> None:
    """Draw the results of all policies, a column per group, as one PNG file.

    From above there are scores, differences from the first policy in their paired 95 % intervals
    for these agents, and milliseconds per action. A policy with one budget, or none, is one point.
    The same results give the same bytes.

    Args:
        groups: Results by the group's title, those of one group in one metric.
        output: The picture; replaced in one go.

    Raises:
        UserError: The picture cannot be written.
    """
    everything = [result for found in groups.values() for result in found]
    names = list(dict.fromkeys(result.entry.name for result in everything))
    budgets = sorted({result.entry.budget for result in everything})
    chosen = dict(zip(names, looks(len(names)), strict=True))
    width = _WIDTH * len(groups)
    legend = Legend(
        "Budgets are samples of best_of_n and further steps of others; 0 where there is none. "
        f"Dotted: {everything[0].entry}, which others are compared with by episode; bars are 95 % "
        "intervals of that difference for these agents.",
        tuple((name, mean_line(look)) for name, look in chosen.items()),
        (),
        width,
    )
    with matplotlib.rc_context(STYLE):
        height = _ROWS * _HEIGHT + legend.height
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, _ROWS * _HEIGHT / height))
        legend.draw(figure)
        axes = figure.subplots(_ROWS, len(groups), squeeze=False, sharex=True)
        for column, (title, found) in enumerate(groups.items()):
            _draw_group(axes[:, column], found, chosen, budgets)
            axes[0, column].set_title(title, loc="left")
        write_png(figure, output)


def _draw_group(
    axes: Sequence[Axes],
    found: Sequence[Result],
    chosen: Mapping[str, Look],
    budgets: Sequence[int],
) -> None:
    scores, differences, times = axes
    for number, (name, look) in enumerate(chosen.items()):
        own = [result for result in found if result.entry.name == name]
        own.sort(key=lambda result: result.entry.budget)
        # Side by side, so that no bar hides another.
        aside = 0.5 * (number - (len(chosen) - 1) / 2) / len(chosen)
        x = {result.entry: budgets.index(result.entry.budget) + aside for result in own}
        line = mean_line(look)
        scores.plot(list(x.values()), [result.value for result in own], **line)
        times.plot(list(x.values()), [result.milliseconds for result in own], **line)
        compared = [result for result in own if result.difference is not None]
        at = [x[result.entry] for result in compared]
        differences.plot(at, [result.difference.value for result in compared], **line)
        for result in compared:
            if result.difference.of_these is not None:
                ends = result.difference.of_these
                differences.vlines(x[result.entry], *ends, color=look.colour, linewidth=1.0)
    for panel, level in ((scores, found[0].value), (differences, 0.0)):
        panel.axhline(level, color="#333333", linestyle=":", linewidth=1.0)
    scores.set_ylabel(METRICS[found[0].metric].title)
    differences.set_ylabel("difference")
    times.set_yscale("log")
    format_log(times.yaxis)
    times.set_ylabel("ms per action")
    times.set_xticks(range(len(budgets)), list(map(str, budgets)))
    times.set_xlabel("budget")
