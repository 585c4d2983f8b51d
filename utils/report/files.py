"""The files of a report."""

from pathlib import Path

from utils.files import output_folder, write_atomically
from utils.report.arrays import to_npz
from utils.report.panel_published import published_curves, published_levels
from utils.report.panels import draw
from utils.report.profiles import draw_profiles
from utils.report.report import Report
from utils.report.rows import cell_rows, seed_rows, to_csv
from utils.report.sensitivity import draw_sensitivity


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write a report into a folder; the same runs give the same bytes.

    Args:
        report: The report.
        folder: Is made if need be. Files of an earlier report there are replaced. A run's folder
            is refused, which has curves of its own.

    Returns:
        The files.

    Raises:
        UserError: A file cannot be written.
    """
    output_folder(folder)
    grid, cells = report.grid, tuple(report.grid.cells.values())
    pictures = {"curves.png": "Evaluations by task"}
    draw(
        cells,
        folder / "curves.png",
        backgrounds=published_curves(cells, report.curves),
        levels=published_levels(cells),
    )
    if draw_profiles(cells, folder / "profiles.png", which=report.which):
        pictures["profiles.png"] = "Performance profiles"
    if draw_sensitivity(cells, folder / "sensitivity.png", which=report.which):
        pictures["sensitivity.png"] = "Scores by the value of a setting"
    contents = {
        "report.md": report.text(pictures).encode(),
        "report.csv": to_csv(cell_rows(grid, report.published)),
        "records.csv": to_csv(seed_rows(grid)),
        "report.tex": report.latex().encode(),
        "report.npz": to_npz(grid),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in (*contents, *pictures)]
