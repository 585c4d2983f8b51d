import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.report.panel_axes import mean_line
from utils.report.panel_legend import Legend
from utils.report.style import looks

LONG = "FQL of qam (12 seeds, 10 critics, chunks of 5 actions in 30 of 50, rewards -1 or 0 in 15)"


def entries(*texts):
    return tuple(
        (text, mean_line(look)) for text, look in zip(texts, looks(len(texts)), strict=True)
    )


@pytest.mark.parametrize("width", [6.0, 10.0])
@pytest.mark.parametrize(
    ("caption", "methods", "published"),
    [
        ("", ("deflow",), ()),
        ("Thin: one seed.", ("deflow", "fql"), ()),
        ("Thin: one seed. " * 9, [f"deflow, tau=0.0{i}" for i in range(9)], (LONG, 2 * LONG)),
        ("Thin: one seed.", (3 * LONG, "fql"), (2 * LONG, "QAM", LONG)),
    ],
)
def test_a_legend_takes_the_room_that_it_asks_for(width, caption, methods, published):
    legend = Legend(caption, entries(*methods), entries(*published), width)
    figure = Figure(figsize=(width, legend.height + 1.0), dpi=150)
    FigureCanvasAgg(figure).draw()
    legend.draw(figure)
    figure.canvas.draw()
    parts = [*figure.texts, *figure.legends]
    boxes = [part.get_window_extent(figure.canvas.get_renderer()) for part in parts]
    assert len(boxes) == bool(caption) + 1 + bool(published)
    for above, below in itertools.pairwise(boxes):
        assert above.y0 >= below.y1 - 3  # pixels
    assert min(box.x0 for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= width * 150
    assert boxes[0].y1 <= (legend.height + 1.0) * 150
    room = boxes[-1].y0 / 150 - 1.0
    assert -0.02 <= room < 0.3


def test_columns_are_as_many_as_fit():
    def columns(*texts):
        legend = Legend("", entries(*texts), (), 6.0)
        figure = Figure(figsize=(6.0, 3.0))
        legend.draw(figure)
        return figure.legends[0]._ncols

    assert columns("a", "b") == 2
    assert columns(LONG, "b") == 1
    assert columns(*"abcdefghijkl") == 7
