"""The action landscape: what is computed, what is drawn, and who has none."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from tests import toys
from tests.small_runs import train
from utils.analysis import landscape
from utils.analysis.action_plane import coordinate_plane
from utils.analysis.action_samples import Samples, check, residual_lengths, sample
from utils.errors import UserError

STATE = np.linspace(-1.0, 1.0, 5, dtype=np.float32)
HAND = '''
import numpy as np


def load_datasets():
    """A hand of 24 dimensions, whose action follows its state."""
    rng = np.random.default_rng(0)

    def transitions(rows):
        states = rng.normal(size=(rows, 4))
        actions = np.tanh(states @ rng.normal(size=(4, 24)) + 0.3 * rng.normal(size=(rows, 24)))
        return {
            "observations": states,
            "actions": actions,
            "next_observations": states,
            "rewards": rng.normal(size=rows),
            "masks": np.ones(rows),
            "terminals": np.arange(rows) % 10 == 9,
        }

    return transitions(60), transitions(20)
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a made-up hand of 24 dimensions, with its data in a file."""
    folder = tmp_path_factory.mktemp("hand")
    (folder / "hand.py").write_text(HAND)
    return train(
        folder, folder, env_name=str(folder / "hand.py"), eval_interval=0, offline_steps=20
    ).folder.path


def made_up_samples(size=20, dimensions=3):
    rng = np.random.default_rng(0)
    base = rng.uniform(-0.5, 0.5, (size, dimensions))
    return Samples(base=base, policy=base + 0.1, refined=True, gained=1.0)


def test_samples_are_what_the_agent_proposes_and_refines():
    agent = toys.make("deflow")
    found = sample(agent, None, STATE, 7, seed=3)
    z = jax.random.normal(jax.random.key(3), (7, 3))
    observations = jnp.tile(STATE, (7, 1))
    base = agent.propose(observations, z)
    policy = agent.refine(observations, base)
    np.testing.assert_allclose(found.base, base, atol=1e-5)
    np.testing.assert_allclose(found.policy, policy, atol=1e-5)
    gain = agent.value(observations, policy).mean() - agent.value(observations, base).mean()
    assert found.gained == pytest.approx(float(gain), abs=1e-4)
    squares = np.sum(np.square(policy - base), axis=-1)
    assert found.moved == pytest.approx(float(np.sqrt(squares.mean())), rel=1e-3)
    lengths = residual_lengths(agent, np.stack([STATE, 0 * STATE]), 400)
    assert lengths[0] == pytest.approx(found.moved, rel=0.3)
    assert lengths.shape == (2,)
    assert not jnp.allclose(lengths[0], lengths[1], rtol=1e-3)


def test_an_agent_that_does_not_refine_shows_samples_of_its_policy():
    agent = toys.make("fql")
    found = sample(agent, agent, STATE, 6, seed=0)
    assert not found.refined
    assert found.moved == 0.0
    assert not np.allclose(found.policy, found.base)
    np.testing.assert_array_equal(found.other, found.policy)  # the same noise
    assert found.other_gained == found.gained
    assert landscape.radius(agent) is None
    states = np.zeros((50, 5), np.float32)
    chosen = landscape.choose_states(agent, states, None, np.random.default_rng(0))
    assert len({row for row, _ in chosen}) == 6
    assert {percentile for _, percentile in chosen} == {None}


@pytest.mark.parametrize(
    ("agent", "settings", "lacks"),
    [
        ("bc", {}, "BCAgent does not define propose"),
        ("fbrac", {}, "FBRACAgent does not define propose"),
        ("deflow", {"bc_only": True}, "there is no network critic"),
    ],
)
def test_who_cannot_propose_or_value_actions_is_refused(agent, settings, lacks):
    with pytest.raises(UserError, match=f"RUN has no landscape: .*{lacks}"):
        check(toys.make(agent, **settings), ((2, 5), "float32"), "RUN")


def test_typical_states_are_those_of_rising_residuals():
    agent = toys.make("deflow")
    states = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    chosen = landscape.choose_states(agent, states, None, np.random.default_rng(0))
    assert [percentile for _, percentile in chosen] == [0.1, 0.3, 0.5, 0.7, 0.9, 0.99]
    rows = [row for row, _ in chosen]
    many = residual_lengths(agent, states[np.array(rows)], 200)
    assert np.corrcoef(many, np.arange(6))[0, 1] > 0.8
    again = landscape.choose_states(agent, states, rows, np.random.default_rng(0))
    assert [row for row, _ in again] == rows
    np.testing.assert_allclose([x for _, x in again], [x for _, x in chosen], atol=0.25)
    with pytest.raises(UserError, match="no row 300; the data have 300"):
        landscape.choose_states(agent, states, [300], np.random.default_rng(0))


def test_values_are_those_of_the_actions_at_each_place():
    plane = coordinate_plane(0, 2, np.array([0.1, 0.2, 0.3]))
    ticks = np.stack([np.linspace(-0.5, 1.5, 5), np.linspace(-2.0, 0.0, 5)])
    q, largest = landscape.values_in(plane, ticks, lambda a: a @ np.array([1.0, 10.0, 100.0]))
    assert q[4, 0] == pytest.approx(-0.5 + 2.0 + 0.0)
    assert q[2, 1] == pytest.approx(0.0 + 2.0 - 100.0)
    assert q[0, 4] == pytest.approx(1.0 + 2.0 - 100.0)  # of the clipped action
    assert largest[0, 4] == 2.0
    assert largest[4, 0] == 0.5


def test_a_panel_shows_all_points_and_circles():
    samples = made_up_samples()
    plane = landscape.make_plane(samples, "samples")
    for nearby, radius in ((np.zeros((0, 3)), None), (np.array([[0.9, -0.9, 0.9]]), 2.0)):
        ticks = landscape.make_ticks(plane, samples, nearby, radius)
        points = plane.project(np.concatenate([samples.base, samples.policy, nearby]))
        assert np.all(points > ticks.min(axis=1))
        assert np.all(points < ticks.max(axis=1))
        reach = radius or samples.moved
        assert np.all(np.abs(ticks[:, [0, -1]] - plane.project(samples.central)[:, None]) > reach)
        assert np.ptp(ticks[0]) == pytest.approx(np.ptp(ticks[1]))
    still = Samples(np.zeros((4, 3)), np.zeros((4, 3)), True, 0.0)
    assert np.ptp(landscape.make_ticks(plane, still, np.zeros((0, 3)), None)[0]) > 0


def test_the_plane_is_that_of_samples_of_residuals_or_of_two_dimensions():
    samples = made_up_samples()
    residuals = landscape.make_plane(samples, "residuals")
    assert residuals.held(samples.residuals) == pytest.approx(1)
    np.testing.assert_allclose(residuals.axes[0], np.ones(3) / np.sqrt(3))
    assert landscape.make_plane(samples, "2,1").names == ("action 2", "action 1")
    assert landscape.make_plane(samples, "samples").held(samples.residuals) < 0.99
    with pytest.raises(UserError, match="3 dimensions, counted from 0"):
        landscape.make_plane(samples, "0,3")


def test_24_dimensions_are_drawn_the_same_each_time(run, tmp_path, capsys):
    pictures = [tmp_path / "first.png", tmp_path / "second.png"]
    for picture in pictures:
        assert landscape.main([str(run), str(run), f"--output={picture}", "--samples=16"]) == 0
    first, second = (picture.read_bytes() for picture in pictures)
    assert first == second
    assert imread(pictures[0]).shape[1] == 1530
    header, _, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert "Q gained by deflow" in header
    assert len(rows) == 6
    for row in rows:  # the other agent is the same one
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        assert len(cells) == 7
        assert 0 < float(cells[2]) < 30


def test_by_default_the_picture_lies_in_the_runs_folder(run):
    assert landscape.main([str(run), "--rows=5", "--plane=23,0", "--nearby=3", "--seed=0"]) == 0
    assert imread(run / "landscape.png").shape[1] == 510
    (run / "landscape.png").unlink()


def test_runs_on_two_tasks_are_refused(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    settings = json.loads((run / "config.json").read_text())
    settings["env_name"] = "cube-single-play-singletask-v0"
    (other / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="is a run on cube-single-play, and the first one is on ha"):
        landscape.main([str(run), str(other)])


def test_a_run_without_enough_data_is_told_how_to_go_on(run):
    with pytest.raises(UserError, match=r"60 rows are too few for 60 neighbours; lower --nearby"):
        landscape.main([str(run), "--nearby=60"])


@pytest.mark.parametrize(
    "wrong", ["--plane=0", "--plane=1,1", "--plane=a,b", "--rows=-1", "--rows=a", "--samples=0"]
)
def test_wrong_values_are_refused(run, wrong):
    with pytest.raises(SystemExit):
        landscape.main([str(run), wrong])
    with pytest.raises(SystemExit):
        landscape.main([str(run)] * 3)
