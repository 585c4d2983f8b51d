import numpy as np
import pytest

from utils.collect import mazes
from utils.collect.collectors import collect_attempt, make_collector
from utils.collect.config import CollectionConfig
from utils.collect.mazes import MazeCollector, SubgoalOracle
from utils.collect.statistics import maze_statistics, read_maze_dataset
from utils.collect.workers import collect
from utils.envs.ogbench import names
from utils.envs.ogbench.environments import make_registered


def config_for(env_name, rows, seed=0):
    return CollectionConfig.create(names.resolve(env_name), rows, seed)


@pytest.mark.parametrize(
    ("env_name", "position", "action"),
    [
        ("pointmaze-large-navigate", (27.86081314, 19.06779671), (0.63443369, -0.97390875)),
        ("pointmaze-teleport-stitch", (-0.12894547, 12.08675194), (1.0, -0.06823798)),
    ],
)
def test_points_end_where_they_always_did(env_name, position, action):
    config = config_for(env_name, rows=401, seed=3)
    data = collect_attempt(make_collector(config), config, "train", 0, 0)
    # Another processor may round otherwise; another sample ends elsewhere.
    np.testing.assert_allclose(data["qpos"][-1], position, atol=1e-4)
    np.testing.assert_allclose(data["actions"][-1], action, atol=1e-4)


@pytest.mark.parametrize("maze_type", ["medium", "teleport"])
def test_remembered_subgoals_are_those_of_the_package(maze_type):
    maze = make_registered(f"pointmaze-{maze_type}-v0").unwrapped
    oracle = SubgoalOracle(maze)
    free = [tuple(cell) for cell in np.argwhere(maze.maze_map == 0).tolist()]
    for goal in free:
        for start in free:
            for shift in (0.0, 1.9):
                position = np.array(maze.ij_to_xy(start)) + shift
                aim = np.array(maze.ij_to_xy(goal)) - shift
                expected, _ = maze.get_oracle_subgoal(position, aim)
                np.testing.assert_array_equal(oracle.subgoal(position, aim), expected)


def test_the_maze_is_searched_once_per_pair_of_cells(monkeypatch):
    config = config_for("pointmaze-medium-navigate", rows=301)
    collector = make_collector(config)
    searches = []
    search = collector.env.unwrapped.get_oracle_subgoal
    monkeypatch.setattr(
        collector.env.unwrapped,
        "get_oracle_subgoal",
        lambda *cells: searches.append(cells) or search(*cells),
    )
    collect_attempt(collector, config, "train", 0, 0)
    assert 1 < len(searches) < 60
    first = len(searches)
    collect_attempt(collector, config, "train", 0, 0)
    assert len(searches) == first


def test_stitch_ends_four_cells_from_its_start():
    config = config_for("pointmaze-large-stitch", rows=201)
    collector = make_collector(config)
    maze = collector.env.unwrapped
    for episode in range(5):
        data = collect_attempt(collector, config, "train", episode, 0)
        first, last = (maze.xy_to_ij(data["qpos"][row]) for row in (0, -1))
        assert last in mazes.cells_at_distance(collector.free, first, 4)


def test_navigate_goes_on_to_new_goals():
    config = config_for("pointmaze-medium-navigate", rows=1001)
    collector = make_collector(config)
    roaming = 0
    for episode in range(6):
        data = collect_attempt(collector, config, "train", episode, 0)
        late = {collector.env.unwrapped.xy_to_ij(xy) for xy in data["qpos"][500:]}
        assert late <= set(collector.free)
        roaming += len(late) > 8
    # Now and then a goal lies so far from its cell's centre that the oracle never reaches it.
    assert roaming >= 4


class Recorder:
    """A walker that stands still and keeps what it is asked."""

    def __init__(self):
        self.asked = []

    def act(self, observation, direction):
        self.asked.append((observation.copy(), direction.copy()))
        return np.zeros(8)


def recorded(env_name, rows):
    config = config_for(env_name, rows)
    recorder = Recorder()
    collector = MazeCollector(config, recorder)
    data = collect_attempt(collector, config, "train", 0, 0)
    observations, directions = map(np.array, zip(*recorder.asked, strict=True))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-4)
    return collector, data, observations, directions


@pytest.mark.parametrize("kind", ["navigate", "stitch"])
def test_an_ant_is_told_the_way_to_the_next_cell(kind):
    collector, data, observations, directions = recorded(f"antmaze-large-{kind}", rows=101)
    np.testing.assert_allclose(observations, data["observations"][:, 2:], atol=1e-5)
    maze = collector.env.unwrapped
    for row in (0, 50, 100):
        position = data["qpos"][row, :2]
        subgoal, _ = maze.get_oracle_subgoal(position, maze.cur_goal_xy)
        assert directions[row] @ (subgoal - position) > 0.999 * np.linalg.norm(subgoal - position)
    assert np.std(data["actions"]) == pytest.approx(0.2, rel=0.1)
    assert np.abs(data["actions"]).max() <= 1


def test_explore_goes_in_a_random_direction_for_ten_steps():
    _, data, _, directions = recorded("antmaze-medium-explore", rows=101)
    changes = np.flatnonzero(np.any(np.diff(directions, axis=0), axis=1)) + 1
    assert changes.tolist() == list(range(10, 101, 10))
    turns = np.sum(directions[10::10] * directions[:-10:10], axis=1)
    assert turns.min() < 0 < turns.max()
    # A third of standard normal noise is beyond the limits.
    assert np.mean(np.abs(data["actions"]) == 1) == pytest.approx(0.317, abs=0.05)
    assert not data["reached"].any()


@pytest.mark.slow
def test_the_shipped_walker_finds_its_way(tmp_path):
    """In 100 episodes with seed 0; measured: 4.50 goals, 0.186 m, all cells and 3 overturned."""
    report = collect(
        "antmaze-large-navigate", dataset_dir=tmp_path, episodes=100, val_episodes=1, workers=2
    )
    maze, arrays = read_maze_dataset(report.train_path)
    stats = maze_statistics(maze, **arrays)
    assert stats.episodes == 100
    assert report.tally.goals / report.tally.episodes >= 3.3
    assert stats.speed >= 0.17
    assert stats.cells == 1
    assert stats.overturned_ends <= 5


def test_goals_are_no_corridors():
    free = np.array(
        [[c == "." for c in row] for row in ("#####", "#...#", "###.#", "#...#", "#####")]
    )
    straight = [(i, j) for i, j in np.argwhere(free).tolist() if mazes._is_corridor(free, i, j)]
    assert straight == [(1, 2), (2, 3), (3, 2)]


def test_cells_at_distance():
    free = [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (2, 3)]
    assert sorted(mazes.cells_at_distance(free, (1, 1), 2)) == [(1, 3), (3, 1)]
    assert mazes.cells_at_distance(free, (1, 1), 9) == []
