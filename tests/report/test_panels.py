import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

import utils.report.panels
from tests.report.cells import CUBE, make_cell
from tests.report.pictures import chunks, record_figures
from utils.errors import UserError
from utils.report.mean_curves import SeedCurves
from utils.report.panel_backgrounds import Background, Level
from utils.report.panels import draw
from utils.report.style import grey_looks, looks

ONE, TWO = CUBE.format(1), CUBE.format(2)
LEVEL = Level("DeFlow, published", "deflow", (ONE,), "success", 60.0)


@pytest.fixture
def figures(monkeypatch):
    """The figures drawn during a test."""
    return record_figures(monkeypatch, utils.report.panels)


def background(name="FQL of qam (12 seeds, 10 critics)"):
    values = np.array([[20.0, 40.0, 30.0], [30.0, 50.0, 20.0]])
    return Background(name, ONE, "success", SeedCurves(np.array([100, 200, 300]), values))


def texts(figure):
    """What the legends list."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def bold(axes):
    return [line for line in axes.lines if line.get_linewidth() == 1.5]


def crosses(axes):
    return [line for line in axes.lines if line.get_marker() == "x"]


def luminance(colour):
    """How bright a colour is in black and white, from 0 to 1."""
    return np.dot(to_rgb(colour), [0.299, 0.587, 0.114])


def test_seeds_are_thin_lines_under_a_bold_mean_in_a_band(tmp_path, figures):
    draw([make_cell(seeds=3)], tmp_path / "a.png")
    (axes,) = figures[0].axes
    thin, mean = axes.lines
    seeds = thin.get_ydata()[~np.isnan(thin.get_ydata())].reshape(3, 3)
    np.testing.assert_array_equal(seeds, [[10, 50, 70], [11, 51, 71], [12, 52, 72]])
    assert thin.get_linewidth() < mean.get_linewidth()
    assert thin.get_alpha() < 0.5
    assert thin.get_zorder() < mean.get_zorder()
    np.testing.assert_array_equal(mean.get_ydata(), [11, 51, 71])
    extent = axes.collections[0].get_paths()[0].get_extents()
    assert (extent.y0, extent.y1) == (10, 72)
    assert texts(figures[0]) == ["deflow (3 seeds)"]


def test_a_diverged_seed_ends_in_a_cross(tmp_path, figures):
    states = {1: ("diverged", 2), 2: ("diverged", 0)}
    draw([make_cell(seeds=4, states=states)], tmp_path / "a.png")
    (axes,) = figures[0].axes
    late, early = crosses(axes)
    assert (late.get_xdata(), late.get_ydata()) == ([200], [51])
    assert list(early.get_xdata()) == [50]  # where it diverged; there is no curve to end
    assert "Cross: the seed diverged" in figures[0].texts[0].get_text()
    assert texts(figures[0]) == ["deflow (2 seeds)"]
    draw([make_cell(seeds=4)], tmp_path / "a.png")
    assert not crosses(figures[1].axes[0])
    assert "Cross" not in figures[1].texts[0].get_text()


def test_a_seed_of_one_evaluation_can_be_seen(tmp_path, figures):
    draw([make_cell(seeds=3, states={1: ("unfinished", 1)})], tmp_path / "a.png")
    assert figures[0].axes[0].lines[0].get_marker() == "."


def test_going_online_and_published_scores_of_both_phases_are_lines(tmp_path, figures):
    online = Level("DeFlow, published", "deflow", (ONE,), "success", 90.0, online=True)
    cells = [make_cell(online_start=200), make_cell(label="fql", online_start=200)]
    draw(cells, tmp_path / "a.png", levels=[LEVEL, online])
    (axes,) = figures[0].axes
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert ([0, 200], [60, 60]) in lines
    assert ([200, 300], [90, 90]) in lines
    assert ([200, 200], [0, 1]) in lines
    assert figures[0].get_supxlabel() == "updates, then environment steps"
    assert texts(figures[0]) == ["deflow (2 seeds)", "fql (2 seeds)", "DeFlow, published"]
    level = next(line for line in axes.lines if list(line.get_ydata()) == [60, 60])
    assert level.get_color() == looks(2)[0].colour
    draw([make_cell()], tmp_path / "a.png", levels=[LEVEL, online])
    assert [0, 300] in [list(line.get_xdata()) for line in figures[1].axes[0].lines]
    assert figures[1].get_supxlabel() == "updates"


def test_other_groups_curves_are_grey_and_behind(tmp_path, figures):
    draw([make_cell()], tmp_path / "a.png", backgrounds=[background(), background("QAM of qam")])
    (axes,) = figures[0].axes
    grey = [line for line in axes.lines if line.get_color() in {x.colour for x in grey_looks(2)}]
    assert len(grey) == 2
    np.testing.assert_array_equal(grey[0].get_ydata(), [25, 45, 25])
    assert len(axes.collections) == 3  # a band each
    others = [line.get_zorder() for line in axes.lines if line not in grey]
    assert max(line.get_zorder() for line in grey) < min(others)
    assert texts(figures[0])[1:] == ["FQL of qam (12 seeds, 10 critics)", "QAM of qam"]


def test_what_is_not_drawn_is_not_in_the_legend(tmp_path, figures):
    elsewhere = Level("DeFlow, published", "deflow", (TWO,), "success", 60.0)
    cells = [make_cell(), make_cell(label="fql", values=())]
    draw(cells, tmp_path / "a.png", backgrounds=[background()], levels=[elsewhere])
    assert texts(figures[0]) == ["deflow (2 seeds)", "FQL of qam (12 seeds, 10 critics)"]


def test_each_metric_has_its_own_label_and_ends(tmp_path, figures):
    cells = [make_cell(task) for task in (ONE, TWO)]
    draw(cells, tmp_path / "a.png")
    assert figures[0].get_supylabel() == "success (%)"
    assert [axes.get_ylabel() for axes in figures[0].axes] == [""] * 4
    cells += [make_cell("pen-cloned-v1", metric="normalized_return", values=(90.0, 120.0))]
    draw(cells, tmp_path / "a.png")
    assert figures[1].get_supylabel() == ""
    labels = {axes.get_title(loc="left"): axes.get_ylabel() for axes in figures[1].axes}
    assert labels == {
        "mean of 2 tasks": "success (%)",
        "IQM of 2 tasks": "success (%)",
        "pen-cloned": "normalized return",
        "cube-double-play-task1": "success (%)",
        "cube-double-play-task2": "",
    }
    assert figures[1].axes[2].get_ylim()[1] > 120
    assert figures[1].axes[3].get_ylim() == (-5, 105)


def test_axes_are_shared_where_tasks_have_them_in_common(tmp_path, figures):
    def labelled(axes):
        return axes.xaxis.get_tick_params()["labelbottom"], axes.yaxis.get_tick_params()[
            "labelleft"
        ]

    cells = [make_cell(CUBE.format(i)) for i in (1, 2, 3, 4, 5)]
    draw(cells, tmp_path / "a.png")
    assert [labelled(axes) for axes in figures[0].axes[2:]] == [
        (False, True),
        (False, False),
        (True, False),
        (True, True),
        (True, False),
    ]
    cells[0] = make_cell(ONE, steps_wanted=1000)
    draw(cells, tmp_path / "a.png")
    assert all(labelled(axes)[0] for axes in figures[1].axes)
    cells = [
        make_cell(f"pen-{kind}-v1", metric="normalized_return") for kind in ("human", "cloned")
    ]
    draw(cells, tmp_path / "a.png")
    assert all(labelled(axes) == (True, True) for axes in figures[2].axes)


def overlapping(boxes):
    return [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_fifty_tasks_can_be_read(tmp_path, figures):
    tasks = [f"humanoidmaze-medium-navigate-singletask-task{i}-v0" for i in range(1, 6)]
    tasks += [f"/somewhere/cube-quadruple-play-{i}.py" for i in range(45)]
    cells = [make_cell(task, seeds=1) for task in tasks]
    labels = ["fql", "iql", "deflow, actor_hidden_dims=(512, 512, 512, 512), tau=0.01"]
    cells += [make_cell(tasks[0], label, seeds=1) for label in labels]
    cells += [make_cell(tasks[1], label, seeds=1) for label in labels]
    names = [f"{name} of qam (12 seeds, chunks of 5 actions, {name * 99})" for name in ("A", "B")]
    draw(cells, tmp_path / "a.png", backgrounds=[background(name) for name in names])
    (figure,) = figures
    assert len(figure.axes) == 52
    renderer = figure.canvas.get_renderer()
    titles = [axes._left_title for axes in figure.axes]
    written = [*titles, *figure.texts, *(text for x in figure.legends for text in x.get_texts())]
    ticks = figure.axes[-1].get_xticklabels() + figure.axes[2].get_yticklabels()
    assert min(text.get_fontsize() for text in written + ticks) >= 7
    boxes = [text.get_window_extent(renderer) for text in written]
    assert overlapping(boxes) == []
    page = figure.bbox
    for box in boxes:
        assert page.x0 <= box.x0 <= box.x1 <= page.x1
        assert page.y0 <= box.y0 <= box.y1 <= page.y1
    assert overlapping([axes.get_window_extent(renderer) for axes in figure.axes]) == []
    height, width = imread(tmp_path / "a.png").shape[:2]
    assert width < 1700
    assert height < 3000


def test_methods_are_told_apart_without_colours(tmp_path, figures):
    labels = [f"m{i}" for i in range(36)]
    draw([make_cell(label=label) for label in labels], tmp_path / "a.png")
    means = bold(figures[0].axes[0])
    assert len(means) == 36
    kinds = {(line.get_linestyle(), line.get_marker()) for line in means}
    assert len(kinds) == 36
    assert all(line.get_markevery() for line in means)
    for number in (7, 36):
        # A line as bright as the paper cannot be seen.
        assert max(luminance(look.colour) for look in looks(number)) < 0.85
    for one, other in itertools.combinations(looks(7), 2):
        apart = abs(luminance(one.colour) - luminance(other.colour)) > 0.15
        assert apart or one.line != other.line or one.marker != other.marker
    solid = [look for look in looks(7) if look.line == looks(7)[0].line]
    for one, other in itertools.combinations(solid, 2):
        assert abs(luminance(one.colour) - luminance(other.colour)) > 0.15


def test_the_same_cells_give_the_same_bytes_without_time_or_version(tmp_path):
    cells = [make_cell(ONE, seeds=3), make_cell(TWO, seeds=3)]
    for name in ("a.png", "b.png"):
        draw(cells, tmp_path / name, backgrounds=[background()], levels=[LEVEL])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert chunks(tmp_path / "a.png") == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}
    assert not list(tmp_path.glob("*.tmp"))


def test_cells_without_an_evaluation_give_a_picture_that_says_so(tmp_path, figures):
    for cells in ([], [make_cell(values=())]):
        draw(cells, tmp_path / "a.png")
        assert figures.pop().texts[0].get_text() == "no evaluations to draw yet"


@pytest.mark.parametrize("number", [1, 4, 7])
def test_any_number_of_tasks_is_drawn_without_a_warning(tmp_path, figures, number):
    draw([make_cell(f"/tasks/t{i}.py", seeds=1) for i in range(number)], tmp_path / "a.png")
    assert len(figures[0].axes) == number + 2 * (number > 1)


def test_names_are_no_formulas(tmp_path):
    draw([make_cell("/tasks/$^$.py", "deflow, x=$^$")], tmp_path / "a.png")


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        draw([make_cell()], tmp_path / "missing" / "a.png")
