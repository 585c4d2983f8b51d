import itertools
import json
import os
import signal

import jax
import numpy as np
import pytest

from tests import toys
from utils.agent_files import load_agent_file
from utils.collect.ant import train as program
from utils.collect.ant.episodes import Ants, Evaluation, evaluate
from utils.collect.ant.learner import Learner, actor_layers
from utils.collect.ant.train import train
from utils.collect.ant.walker import Walker
from utils.errors import UserError
from utils.report.csv_log import read_csv

ENVS = 4
AGENT = toys.AGENTS / "rlpd.py"


def learner(name="rlpd", seed=0, **settings):
    agent_class, config = toys.tiny(name, **settings)
    example = toys.transitions(1, observation_dim=27, action_dim=8)
    return Learner(agent_class, config, example, seed=seed, capacity=3 * ENVS)


def transitions(seed):
    return toys.transitions(ENVS, observation_dim=27, action_dim=8, seed=seed)


def test_every_environments_transitions_are_learnt_from_and_acted_on():
    one = learner(**toys.SHALLOW)
    given = [transitions(seed) for seed in range(3)]
    before = jax.tree.map(np.asarray, one.agent.network.params)
    first = one.step(given[0], given[0]["next_observations"], 0)
    assert one.read_metrics() == {}
    jax.tree.map(np.testing.assert_array_equal, one.agent.network.params, before)
    again = one.step(given[1], given[0]["next_observations"], 2)
    metrics = one.read_metrics()
    assert metrics["critic/critic_loss"] > 0
    assert one.read_metrics() == {}
    one.step(given[2], given[2]["next_observations"], 1)
    assert int(one.agent.network.step) == 3
    assert first.shape == again.shape == (ENVS, 8)
    assert not np.array_equal(first, again)  # it explores
    assert len(np.unique(first, axis=0)) == ENVS
    for name, column in one._ring.items():
        expected = np.concatenate([batch[name] for batch in given])
        np.testing.assert_array_equal(column[0], expected)


def test_an_agent_that_makes_no_walker_is_refused():
    for name, settings, words in (
        ("rlpd", {"tanh_squash": False}, "GaussianActor with tanh"),
        ("rlpd", {"actor_layer_norm": True}, "without LayerNorm"),
        ("fql", {}, "GaussianActor"),
        ("rebrac", {}, "learns from next_actions"),
    ):
        with pytest.raises(UserError, match=words):
            learner(name, **settings)


def test_a_walker_acts_as_its_agent_without_noise():
    agent_class, config = toys.tiny("rlpd")
    batch = toys.batch(size=8, observation_dim=27, action_dim=8)
    agent = agent_class.create(jax.random.key(0), batch["observations"], batch["actions"], config)
    agent = agent.replace(
        network=agent.network.replace(params=jax.tree.map(lambda x: 3 * x, agent.network.params))
    )
    observations = np.array(batch["observations"])
    observations[:, 1] = np.abs(observations[:, 1])  # as the environment shows quaternions
    expected = agent.sample_actions(observations, jax.random.key(1), 0.0)
    assert np.ptp(expected) > 0.1
    actions = Walker(actor_layers(agent), {}).act(observations, np.tile([1.0, 0.0], (8, 1)))
    np.testing.assert_allclose(actions, expected, atol=5e-4)


def test_ants_go_on_with_new_episodes_and_are_functions_of_the_seed():
    def course(seed):
        ants, rng = Ants(2, seed), np.random.default_rng(0)
        return [ants.step(rng.uniform(-1, 1, (2, 8))) for _ in range(40)]

    found = course(0)
    for batch, other in zip(found, course(0), strict=True):
        for name, column in batch.items():
            np.testing.assert_array_equal(column, other[name])
    assert not np.array_equal(course(1)[0]["observations"], found[0]["observations"])
    for batch, following in itertools.pairwise(found):
        np.testing.assert_array_equal(batch["next_observations"], following["observations"])
    assert {batch["masks"].tobytes() for batch in found} == {np.ones(2, np.float32).tobytes()}


def test_standing_still_is_evaluated_as_that():
    still = Walker([(np.zeros((27, 8)), np.zeros(8))], {})
    found = evaluate(still, num_episodes=2, steps=60)
    assert abs(found.speed) < 0.1
    assert (found.falls, found.overturned) == (0, 0)
    assert evaluate(still, num_episodes=2, steps=60) == found
    noisy = evaluate(still, num_episodes=2, steps=60, noise=0.5)
    assert noisy.speed != found.speed
    assert noisy == evaluate(still, num_episodes=2, steps=60, noise=0.5)


@pytest.fixture
def short(monkeypatch, tmp_path):
    """Trains for a few rounds, with evaluations of given speeds."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"batch_size": 8, "target_entropy": -4.0} | toys.SHALLOW))

    def run(folder, speeds, **options):
        found = iter(Evaluation(speed, 0.0, 0.0) for speed in speeds)
        monkeypatch.setattr(program, "evaluate", lambda walker: next(found))
        monkeypatch.setattr(program, "RANDOM_STEPS", 32)
        options = {"steps": 112, "eval_interval": 32, "settings": settings} | options
        train(AGENT, tmp_path / folder, **options)
        return tmp_path / folder

    return run


def test_the_best_walker_of_the_evaluations_is_kept_with_its_step(short, capsys):
    folder = short("a", [0.1, 0.3, 0.2, 0.3], seed=5)
    rows = read_csv(folder / "evaluations.csv")
    assert [row["step"] for row in rows] == [32, 64, 96, 112]
    assert [row["speed"] for row in rows] == [0.1, 0.3, 0.2, 0.3]
    assert ["critic/critic_loss" in row for row in rows] == [False, True, True, True]
    assert "64 steps" in capsys.readouterr().out
    facts = Walker.load(folder / "walker.npz").facts
    assert (facts["step"], facts["seed"], facts["agent"]) == (64, 5, "rlpd.py")
    assert facts["settings"]["batch_size"] == 8
    assert facts["settings"]["lr"] == load_agent_file(AGENT).config.lr  # a default
    assert (facts["steps"], facts["num_envs"], facts["random_steps"]) == (112, 16, 32)
    assert facts["updates_per_round"] == 2
    assert facts["versions"]["jax"] == jax.__version__
    assert {"numpy", "mujoco", "ogbench"} <= set(facts["versions"])
    again = short("b", [0.1, 0.3, 0.2, 0.3], seed=5)
    assert (again / "walker.npz").read_bytes() == (folder / "walker.npz").read_bytes()
    with pytest.raises(UserError, match="holds results already"):
        short("a", [])
    (folder / "evaluations.csv").unlink()
    with pytest.raises(UserError, match="holds results already"):
        short("a", [])


@pytest.fixture
def interrupted(monkeypatch, tmp_path, signals_restored):
    """Runs the command line up to a signal, which comes as a function of the module is called."""

    def run(number, during, steps=96):
        def send(*_):
            os.kill(os.getpid(), number)
            return original(*_)

        original = getattr(program, during)
        monkeypatch.setattr(program, during, send)
        return program.main(
            [
                f"--agent={AGENT}",
                f"--output={tmp_path / 'a'}",
                f"--settings={tmp_path / 'settings.json'}",
                f"--steps={steps}",
                "--eval_interval=32",
            ]
        )

    monkeypatch.setattr(program, "RANDOM_STEPS", 96)
    monkeypatch.setattr(program, "enable_compilation_cache", lambda: None)
    monkeypatch.setattr(program, "evaluate", lambda walker: Evaluation(0.1, 0.0, 0.0))
    (tmp_path / "settings.json").write_text(json.dumps({"batch_size": 8} | toys.SHALLOW))
    return run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_training_keeps_its_walker_and_says_where(
    tmp_path, capsys, interrupted, number, code
):
    assert interrupted(number, "evaluate") == code
    error = capsys.readouterr().err
    assert f"{signal.Signals(number).name}: interrupted; {tmp_path / 'a'} keeps" in error
    assert "another --output" in error
    assert [row["step"] for row in read_csv(tmp_path / "a" / "evaluations.csv")] == [32]
    assert Walker.load(tmp_path / "a" / "walker.npz").facts["step"] == 32


def test_a_signal_in_the_last_evaluation_changes_nothing(capsys, interrupted):
    assert interrupted(signal.SIGTERM, "evaluate", steps=32) == 0
    assert capsys.readouterr().err == ""


def test_interrupted_before_the_first_evaluation_the_same_command_may_be_given(
    tmp_path, capsys, interrupted
):
    assert interrupted(signal.SIGTERM, "Ants") == 75
    assert "the same command begins anew" in capsys.readouterr().err
    assert not list((tmp_path / "a").iterdir())


def test_numbers_and_folders_that_cannot_be_are_named(tmp_path, short):
    for options in ({"steps": 15}, {"eval_interval": 0}, {"seed": -1}):
        with pytest.raises(UserError, match="is too small; give at least"):
            short("a", [], **options)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        short("file/a", [])


@pytest.mark.learning
def test_the_ant_learns_to_walk(tmp_path):
    """In 150,000 steps, three core-minutes; measured: 1.82, 1.52 and 1.47 m/s for three seeds."""
    train(AGENT, tmp_path / "a", steps=150_000)
    assert max(row["speed"] for row in read_csv(tmp_path / "a" / "evaluations.csv")) > 1.0


def test_settings_that_the_agent_lacks_are_named(tmp_path, short):
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"lr": 0.001, "expectile": 0.9}')
    with pytest.raises(UserError, match=r"wrong\.json sets expectile"):
        short("a", [], settings=wrong)
    assert not (tmp_path / "a").exists()
