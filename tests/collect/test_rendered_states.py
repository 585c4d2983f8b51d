"""Images of states, and collections that make them."""

import functools
import multiprocessing
import shutil
import types

import numpy as np
import pytest

from utils.collect import collectors, episode_files, frames, states, workers
from utils.collect.collectors import collect_attempt, exact_states, file_columns, make_collector
from utils.collect.config import CollectionConfig
from utils.collect.frames import FrameRenderer
from utils.collect.states import StateFile
from utils.envs import rendering
from utils.envs.ogbench import names
from utils.errors import UserError
from utils.files import Column

NAME, STATES = "visual-cube-single-play", "cube-single-play"


def config_for(env_name, rows=6, **settings):
    return CollectionConfig.create(names.resolve(env_name), rows, seed=0, **settings)


# The renderer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env_name", "rows"),
    [
        ("visual-cube-single-play", 4),
        pytest.param("visual-cube-double-noisy", 25, marks=pytest.mark.slow),
        pytest.param("visual-scene-play", 25, marks=pytest.mark.slow),
        pytest.param("visual-scene-noisy", 25, marks=pytest.mark.slow),
        pytest.param("visual-puzzle-3x3-play", 60, marks=pytest.mark.slow),
        pytest.param("visual-puzzle-4x4-noisy", 25, marks=pytest.mark.slow),
    ],
)
def test_frames_of_states_are_those_of_a_live_collection(opengl, env_name, rows):
    config = config_for(env_name, rows)
    live, unseen = (
        collect_attempt(make_collector(some), some, "train", 0, 0)
        for some in (config, config.of_states())
    )
    for key, array in exact_states(live).items():
        np.testing.assert_array_equal(unseen[key], array)
    renderer = FrameRenderer(config)
    found = renderer.frames(exact_states(unseen))
    np.testing.assert_array_equal(found, live["observations"])
    assert np.abs(np.diff(found.astype(int), axis=0)).max() > 10  # the arm has moved
    few = {key: array[:10] for key, array in file_columns(exact_states(unseen)).items()}
    differences = np.abs(renderer.frames(few).astype(int) - found[:10])
    renderer.close()
    assert 0 < differences.mean() < 0.1
    assert np.mean(differences > 2) < 1e-3


# Collections, with stand-ins for the arm and the renderer -----------------------------------------


class Arm:
    """Wanders, as NumPy's global generator has it."""

    def __init__(self, config):
        assert not config.visual
        self.rows = config.rows

    def steps(self, reset_seed):
        for row in range(self.rows):
            state, terminal = np.random.uniform(size=(2, 3)), row == self.rows - 1
            keys = ("observations", "actions", "terminals", "qpos", "qvel")
            yield dict(zip(keys, (*state, terminal, *state), strict=True))


class Ink:
    """Paints with the first coordinate, and keeps of which dtypes."""

    def __init__(self, dtypes, config):
        assert config.visual
        self.dtypes = dtypes

    def frames(self, states):
        first = states["qpos"][:, 0]
        self.dtypes.append(str(first.dtype))
        paint = (255 * first).astype(np.uint8)
        return np.tile(paint[:, None, None, None], (1, 64, 64, 3))


@pytest.fixture
def ink(monkeypatch):
    """Collects and renders in this process and without MuJoCo; returns dtypes of positions."""
    dtypes = []

    def run_here(make_worker, jobs, workers, *, desc, finished=0):
        worker = make_worker()
        return [worker(*job) for job in jobs]

    for module in (workers, states):
        monkeypatch.setattr(module, "run_jobs", run_here)
    monkeypatch.setattr(collectors, "make_collector", Arm)
    monkeypatch.setattr(
        states, "make_arm", lambda config: types.SimpleNamespace(close=lambda: None)
    )
    sizes = {"observations": (3,), "actions": (3,), "terminals": (), "qpos": (3,), "qvel": (3,)}
    columns = {key: Column(shape, "fb") for key, shape in sizes.items()}
    monkeypatch.setattr(states, "dataset_columns", lambda full_name, env: dict(columns))
    monkeypatch.setattr(frames, "FrameRenderer", functools.partial(Ink, dtypes))
    monkeypatch.setattr(frames, "seconds_per_frame", lambda config: 0.14)
    monkeypatch.setattr(frames, "available_cores", lambda: 2)
    monkeypatch.setattr(rendering, "require_gl", lambda purpose: None)
    monkeypatch.setattr(rendering, "renderer", lambda: "ink")
    return dtypes


def collect(directory, name=NAME, **settings):
    sizes = {} if "from_states" in settings else {"episode_length": 5}
    return workers.collect(name, dataset_dir=directory, **{"episodes": 2, **sizes, **settings})


def arrays(path):
    with np.load(path) as archive:
        return dict(archive)


def test_states_are_collected_and_then_rendered(tmp_path, ink, capsys):
    report = collect(tmp_path)
    assert (report.tally.steps, report.frames) == (3 * 6, 3 * 6)
    assert "18 frames by ink at 0.14 s on 1 worker: about a minute" in capsys.readouterr().out
    assert ink == 3 * ["float64"]
    images, plain = arrays(report.train_path), arrays(collect(tmp_path, STATES).train_path)
    frames_, observations = images.pop("observations"), plain.pop("observations")
    assert (frames_.dtype, frames_.shape) == (np.uint8, (12, 64, 64, 3))
    assert observations.shape == (12, 3)
    assert list(images) == list(plain)
    for key, array in plain.items():
        assert images[key].dtype == array.dtype
        np.testing.assert_array_equal(images[key], array)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("episodes", "cores", "seconds", "words"),
    [
        (101, 4, 0.14, "101,101 frames by ink at 0.14 s on 2 workers: about 119 minutes"),
        (101, 1, 0.14, "101,101 frames by ink at 0.14 s on 2 workers: about 4 hours"),
        (3, 4, 1.0, "3,003 frames by ink at 1 s on 2 workers: about 33 minutes"),
        (1000, 4, 0.0012, "1,001,000 frames by ink at 0.0012 s on 2 workers: about 10 minutes"),
    ],
)
def test_the_time_of_rendering_is_known_from_that_of_a_frame(
    ink, monkeypatch, episodes, cores, seconds, words
):
    monkeypatch.setattr(frames, "seconds_per_frame", lambda config: seconds)
    monkeypatch.setattr(frames, "available_cores", lambda: cores)
    assert frames.expected_time(config_for(NAME, rows=1001), episodes, workers=2) == words


def test_a_collection_goes_on_with_the_frames_that_are_missing(tmp_path, ink, capsys, monkeypatch):
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    whole = collect(tmp_path / "undisturbed")
    save, folder = episode_files.save, tmp_path / "killed" / f".{NAME}-v0.collecting"

    def die_after_an_episode(where, split, episode, data):
        save(where, split, episode, data)
        if "observations" in data:
            raise KeyboardInterrupt

    monkeypatch.setattr(episode_files, "save", die_after_an_episode)
    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path / "killed")
    monkeypatch.setattr(episode_files, "save", save)
    kept = folder / "train-000000.npz"
    before = kept.stat().st_mtime_ns
    (folder / "states" / "val-000000.npz").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"states/val-000000\.npz was damaged and has been removed"):
        collect(tmp_path / "killed")
    assert kept.stat().st_mtime_ns == before
    monkeypatch.setattr(rendering, "renderer", lambda: "paint")
    capsys.readouterr()
    report = collect(tmp_path / "killed")
    out = capsys.readouterr().out
    assert "continuing: 2 of 3 episodes are there already" in out
    assert "paint goes on, after ink: pixels of two renderers may differ" in out
    assert (report.tally.steps, report.frames) == (6, 6)  # the states that were damaged
    for name in ("train_path", "val_path"):
        assert getattr(report, name).read_bytes() == getattr(whole, name).read_bytes()


def test_whose_episodes_they_are_is_said(tmp_path, ink, capsys):
    collect(tmp_path, STATES)
    collect(tmp_path)
    path = tmp_path / f"{STATES}-v0.npz"
    assert f"the episodes are those of {path}\n" in capsys.readouterr().out
    collect(tmp_path, seed=1, overwrite=True)
    assert f"not those of {path}, which --from_states={path} renders\n" in capsys.readouterr().out
    path.write_bytes(b"damaged, and not needed")
    collect(tmp_path, overwrite=True)
    assert "the episodes are" not in capsys.readouterr().out


def test_states_that_were_collected_here_are_rendered_exactly(tmp_path, ink, capsys):
    source = collect(tmp_path / "states", STATES, episodes=3, seed=4).train_path
    plain = collect(tmp_path / "plain", episodes=3, seed=4)
    ink.clear()
    report = collect(tmp_path / "same", episodes=None, seed=4, from_states=source)
    assert report.train_path.read_bytes() == plain.train_path.read_bytes()
    assert report.val_path.read_bytes() == plain.val_path.read_bytes()
    assert ink == 4 * ["float64"]
    assert "float32" not in capsys.readouterr().out


def test_states_of_others_are_rendered_as_they_are(tmp_path, ink, capsys):
    """One episode of a file is changed, as if others had collected it, or all with a seed."""
    source = collect(tmp_path / "states", STATES, episodes=3).train_path
    plain = collect(tmp_path / "plain", episodes=3)
    changed = arrays(source)
    changed["qpos"][7, 0] = 1 - changed["qpos"][7, 0]
    np.savez(source, **changed)
    ink.clear()
    report = collect(tmp_path / "seed 0", episodes=None, from_states=source)
    out = capsys.readouterr().out
    assert f"1 of 4 episodes of {source} are none that seed 0 gives here" in out
    assert ink == ["float64", "float32", "float64", "float64"]
    found, expected = arrays(report.train_path), arrays(plain.train_path)
    np.testing.assert_array_equal(found["qpos"], changed["qpos"])
    different = [
        np.any(found[key] != expected[key], tuple(range(1, found[key].ndim)))
        for key in ("observations", "qpos", "actions")
    ]
    assert [list(np.flatnonzero(rows)) for rows in different] == [[7], [7], []]

    report = collect(tmp_path / "seed 1", episodes=1, seed=1, from_states=source)
    assert report.tally.steps == 6  # one episode tells
    assert "2 of 2 episodes of" in capsys.readouterr().out
    np.testing.assert_array_equal(arrays(report.train_path)["qpos"], changed["qpos"][:6])


def test_an_unfinished_collection_of_other_states_is_kept(tmp_path, ink):
    source = collect(tmp_path / "states", STATES).train_path
    config = config_for(NAME, states=source)
    folder = tmp_path / f".{NAME}-v0.collecting"
    episode_files.prepare(folder, config, overwrite=False)
    with pytest.raises(UserError, match=r"made with states=[0-9a-f]{64} instead of None"):
        collect(tmp_path)
    copy = shutil.copy(source, tmp_path / "copy.npz")
    shutil.copy(source.with_name(f"{source.stem}-val.npz"), tmp_path / "copy-val.npz")
    collect(tmp_path, from_states=copy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": 3}, "--episodes must be at most 2 with these --from_states"),
        ({"val_episodes": 2}, "--val_episodes must be at most 1 with these --from_states"),
        ({"episode_length": 6}, "--episode_length=6 does not fit .* have 5 transitions"),
        ({"from_states": "none.npz"}, r"cannot read none\.npz"),
    ],
)
def test_numbers_that_do_not_fit_the_states_are_refused(tmp_path, ink, settings, message):
    source = collect(tmp_path, STATES).train_path
    with pytest.raises(UserError, match=message):
        collect(tmp_path / "images", **{"from_states": source, **settings})
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("visual-cube-double-play", r"'qpos' in .* has shape \(2, 21\) where .* \(rows, 28\); --f"),
        ("visual-scene-play", r"lacks button_states; --from_states takes the training file of a"),
    ],
)
def test_states_of_another_arm_are_refused(tmp_path, name, message):
    sizes = {"actions": 5, "qpos": 21, "qvel": 20}
    data = {key: np.zeros((2, size), np.float32) for key, size in sizes.items()}
    np.savez(tmp_path / "states.npz", terminals=np.array([False, True]), **data)
    with pytest.raises(UserError, match=message):
        StateFile(tmp_path / "states.npz", config_for(name))


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([3, 11], "has episodes of several lengths"),
        ([5], "has episodes of several lengths"),
        ([], "has episodes of several lengths"),
        ([2, 5, 8, 11], r"have 3 rows, and those of its -val 6"),
    ],
)
def test_files_of_states_have_episodes_of_one_length(tmp_path, ink, ends, message):
    source = collect(tmp_path, STATES).train_path
    np.savez(source, **arrays(source) | {"terminals": np.isin(np.arange(12), ends)})
    with pytest.raises(UserError, match=message):
        collect(tmp_path / "images", from_states=source)


# Collections with the renderer -------------------------------------------------------------------


@pytest.mark.slow
def test_worker_processes_render_what_a_live_collection_shows(tmp_path, opengl):
    config = config_for(NAME, rows=6)
    report = collect(tmp_path, workers=2)
    assert (report.tally.steps, report.frames) == (3 * 6, 3 * 6)
    assert not multiprocessing.active_children()
    collector = make_collector(config)
    live = [collect_attempt(collector, config, "train", number, 0) for number in range(2)]
    found = arrays(report.train_path)
    for key in live[0]:
        expected = np.concatenate([file_columns(episode)[key] for episode in live])
        assert found[key].dtype == expected.dtype
        np.testing.assert_array_equal(found[key], expected)
