"""What tables of scores say in words: titles, remarks, captions."""

from collections.abc import Callable

from utils.report.estimates import SCORES, went_online
from utils.report.grid import Grid, short_name
from utils.report.pooling import Cell
from utils.report.records import scored_steps

_METRIC_NAMES = {"success": "success %"}
_FEW_SEEDS = 9


def metric_name(metric: str) -> str:
    """Return what a metric is called in a heading."""
    return _METRIC_NAMES.get(metric, metric.replace("_", " "))


def task_title(grid: Grid) -> Callable[[str], str]:
    """Return what titles tasks: short names, with the metric where tasks differ in it."""
    metrics = {task: cell.records[0].metric for (task, _), cell in grid.cells.items()}

    def title(task: str) -> str:
        several = len(set(metrics.values())) > 1
        return short_name(task) + (f" ({metric_name(metrics[task])})" if several else "")

    return title


def remarks(cell: Cell, which: str) -> list[str]:
    """Return what a reader must know of a cell, its last evaluations included."""
    found = list(cell.remarks)
    config = cell.records[0].config
    wanted = (config.protocol or {}).get("evaluations", 1)
    if which == "protocol" and config.online_start is None and cell.at_step is not None:
        used = {len(scored_steps(record, which, cell.at_step)) for record in cell.scored}
        if min(used) < wanted:
            number = f"{min(used)} evaluation{'s' * (min(used) > 1)}"
            found.append(f"{number}, where the protocol has {wanted}")
    if cell.at_step is None and cell.complete:
        found.append("no evaluation that all seeds have")
    elif cell.at_step == 0:
        found.append("evaluated before the first update only")
    if config.online_start is not None and cell.at_step is not None and not went_online(cell):
        found.append("not online yet: the score is offline")
    return found


def not_run(grid: Grid) -> list[str]:
    """Return a sentence that names the methods and tasks without a run; none if there are none."""
    missing = [
        f"{label} on {short_name(task)}"
        for task in grid.tasks
        for label in grid.labels
        if (task, label) not in grid.cells
    ]
    return [f"not run: {', '.join(missing)}"] if missing else []


def common_seeds(grid: Grid) -> int | None:
    """Return the number of scored seeds, if it is one for all cells."""
    numbers = {len(cell.scored) for cell in grid.cells.values()}
    return numbers.pop() if len(numbers) == 1 else None


def caption(grid: Grid, which: str, interval: str) -> str:
    """Return what a table of scores shows, in sentences.

    Args:
        grid: The cells.
        which: Kind of score, see `utils.report.records.score`.
        interval: What says that there are intervals; empty if there are none.
    """
    cells = grid.cells.values()
    names = " or ".join(dict.fromkeys(metric_name(cell.records[0].metric) for cell in cells))
    lengths = sorted({cell.records[0].config.eval_episodes for cell in cells})
    used = {
        len(scored_steps(record, which, cell.at_step or 0))
        for cell in cells
        for record in cell.scored
    }
    source = SCORES[which]
    if which == "protocol" and len(used) == 1:
        number = used.pop()
        source += (
            f" ({f'mean of the last {number} evaluations' if number > 1 else 'last evaluation'})"
        )
    sentences = [f"Shown: {names}, {source}, of {' or '.join(map(str, lengths))} episodes each."]
    if all(len(cell.scored) < 2 for cell in cells):
        sentences.append("One seed each.")
    else:
        seeds = common_seeds(grid)
        over = "the seeds" if seeds is None else f"{seeds} seeds"
        sentences.append(f"Mean ± standard deviation (population) over {over}{interval}.")
        if interval and any(1 < len(cell.scored) < _FEW_SEEDS for cell in cells):
            sentences.append(
                "Of so few seeds it is too narrow: it covers the mean in about 50 % of cases with "
                "2 seeds, 75 % with 3, 80 % with 4, 88 % with 8."
            )
    if which == "protocol" and any(map(went_online, cells)):
        sentences.append("The arrow leads from the end of the offline phase to the last step.")
    if not all(cell.complete for cell in cells):
        sentences.append("In parentheses: no seed has finished, and the score is of that step.")
    return " ".join(sentences)
