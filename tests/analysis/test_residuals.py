import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.report.pictures import record_figures
from utils.analysis import residuals
from utils.analysis.residuals import (
    draw_residuals,
    residual_ratios,
    run_ratios,
    share_of_greatest,
    summary,
)
from utils.errors import UserError

RATIOS = {
    "even": np.ones((1, 100)),
    "heavy": np.tile(np.repeat([0.1, 1.5, 16.7], [90, 5, 5]), (2, 1)),
}


def test_ratios_are_the_residuals_mean_square_over_delta():
    agent = toys.make("deflow", target_divergence=0.02)
    observations, key = toys.batch(size=6)["observations"], jax.random.key(1)
    z = jnp.stack([jax.random.normal(one, (3,)) for one in jax.random.split(key, 6)])
    base = agent.propose(observations, z)
    expected = ((agent.refine(observations, base) - base) ** 2).mean(axis=1) / 0.02
    assert expected.std() > 0
    found = residual_ratios(agent, observations, key)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_runs_ratios_are_of_states_of_its_data(line_run, monkeypatch):
    found = run_ratios(str(line_run.folder.path), 50)
    assert found.shape == (2, 50)
    assert (found >= 0).all()
    np.testing.assert_array_equal(found, run_ratios(str(line_run.folder.path), 50))
    monkeypatch.setattr(residuals, "_STATES_AT_ONCE", 20)
    assert run_ratios(str(line_run.folder.path), 50).shape == (2, 50)


def test_an_agent_that_refines_nothing_is_refused(loaded_as):
    loaded_as(residuals, "fql")
    with pytest.raises(UserError) as caught:
        run_ratios("exp/fql", 50)
    assert str(caught.value) == (
        "exp/fql has no residuals: FQLAgent does not define refine(observations, actions), which "
        "is needed here"
    )


def test_the_greatest_hold_their_share():
    assert share_of_greatest(RATIOS["even"][0], 0.1) == pytest.approx(0.1)
    assert share_of_greatest(RATIOS["heavy"][0], 0.05) == pytest.approx(83.5 / 100)


def test_the_table_tells_an_even_from_a_heavy_tail():
    even, heavy = (" ".join(line.split()) for line in summary(RATIOS).splitlines()[2:])
    assert even == ("| even | 1 | 100 | 1 | 1 | 1 | 1 | 1 | 1 | 0.0 % | 1.0 % | 10.0 % |")
    assert heavy.startswith("| heavy | 2 | 100 | 1 | 0.1 | 0.24 | 16.7 |")
    assert "| 10.0 % |" in heavy


def test_the_picture_shows_the_share_of_states_above(tmp_path, monkeypatch):
    figures = record_figures(monkeypatch, residuals)
    draw_residuals(RATIOS, tmp_path / "a.png")
    tail, held = figures[0].axes
    _, *seeds, heavy, _ = tail.lines  # even, two seeds, both together, delta
    assert len(seeds) == 2
    x, above = heavy.get_data()
    assert above[np.flatnonzero(x > 1)[-1]] == pytest.approx(0.1)
    states, part = held.lines[1].get_data()
    assert part[np.flatnonzero(states <= 5)[-1]] == pytest.approx(83.5)
    draw_residuals(RATIOS, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_command_writes_a_table_and_a_picture(line_run, tmp_path, capsys):
    arguments = [str(line_run.folder.path), "--states=30", f"--output={tmp_path}"]
    assert residuals.main(arguments) == 0
    assert (tmp_path / "residuals.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "residuals.png").read_bytes().startswith(b"\x89PNG")
