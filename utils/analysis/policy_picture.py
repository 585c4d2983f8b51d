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

_WIDTH, _HEIGHT = 4.2, 2.5  # of one pair of axes, in inches


def draw_policies(groups: Mapping[str, Sequence[Result]], output: str | os.PathLike) -> None:
    """Draw the results of all policies, a column per group, as one PNG file.

    Above are scores in their 95 % intervals for these agents, below milliseconds per action. A
    policy with one budget, or none, is one point. The same results give the same bytes.

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
        "Budgets are samples of best_of_n and further steps of others; 0 where there is none. Bars "
        "are 95 % intervals for these agents; the dotted line is the first policy's score.",
        tuple((name, mean_line(look)) for name, look in chosen.items()),
        (),
        width,
    )
    with matplotlib.rc_context(STYLE):
        height = 2 * _HEIGHT + legend.height
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        figure.get_layout_engine().set(rect=(0, 0, 1, 2 * _HEIGHT / height))
        legend.draw(figure)
        axes = figure.subplots(2, len(groups), squeeze=False, sharex=True)
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
    above, below = axes
    for number, (name, look) in enumerate(chosen.items()):
        own = [result for result in found if result.entry.name == name]
        own.sort(key=lambda result: result.entry.budget)
        if not own:
            continue
        # Side by side, so that no bar hides another.
        aside = 0.3 * (number - (len(chosen) - 1) / 2) / len(chosen)
        x = [budgets.index(result.entry.budget) + aside for result in own]
        line = mean_line(look)
        above.plot(x, [result.value for result in own], **line)
        for at, result in zip(x, own, strict=True):
            if result.interval is not None:
                above.vlines(at, *result.interval, color=look.colour, linewidth=1.0)
        below.plot(x, [result.milliseconds for result in own], **line)
    if found:
        above.axhline(found[0].value, color="#333333", linestyle=":", linewidth=1.0)
        above.set_ylabel(METRICS[found[0].metric].title)
    below.set_yscale("log")
    format_log(below.yaxis)
    below.set_ylabel("ms per action")
    below.set_xticks(range(len(budgets)), list(map(str, budgets)))
    below.set_xlabel("budget")
