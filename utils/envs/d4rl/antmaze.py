"""D4RL's antmazes, over the ant that ogbench ships.

After Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning" (2020).
"""

from pathlib import Path
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np

from utils.envs.d4rl import simulation
from utils.envs.d4rl.simulation import mujoco  # After how it renders has been chosen.

# S is the start, which is the origin, and G the goal's cell; x runs to the right and y downwards.
_MAZES = {
    "umaze": """
        #####
        #S..#
        ###.#
        #G..#
        #####
    """,
    "medium": """
        ########
        #S.##..#
        #..#...#
        ##...###
        #..#...#
        #.#..#.#
        #...#.G#
        ########
    """,
    "large": """
        ############
        #S...#.....#
        #.##.#.#.#.#
        #......#...#
        #.####.###.#
        #..#.#.....#
        ##.#.#.#.###
        #..#...#.G.#
        ############
    """,
}

_FINGERPRINTS = {
    "umaze": "938dbcaaa1f7d485",
    "medium": "67b6a2776434dabf",
    "large": "012e37e69ba33cea",
}

_PACKAGE = "ogbench"
_ASSET = "locomaze/assets/ant.xml"

_CELL = 4.0
_WALL_HEIGHT = 2.0
_TORQUE = 30.0
_GOAL_RADIUS = 0.5


class AntMaze(simulation.Simulation):
    """An ant with eight torques, in a maze.

    Observations are the ant's 15 positions and 14 velocities; the goal is not among them, because
    it stays within one cell. The reward is 1 and the episode ends where the torso is within 0.5 of
    the goal, and it is 0 elsewhere.

    Args:
        maze: "umaze", "medium" or "large".
        inertia_correction: Whether the legs weigh what they did in MuJoCo up to 2.1.0, which D4RL
            was made with: it computed capsules' inertia as that of cylinders.
        reference_scores: See `Simulation`.
        render_mode: None or "rgb_array".
        width: Width of images, in pixels.
        height: Height of images, in pixels.

    Raises:
        UserError: MuJoCo's version or the ant is not the one that was compared with D4RL's.
    """

    metadata: ClassVar = {**simulation.Simulation.metadata, "render_fps": 10}

    def __init__(
        self,
        maze: str,
        inertia_correction: bool = True,
        reference_scores: tuple[float, float] = (0.0, 1.0),
        render_mode: str | None = None,
        width: int = 200,
        height: int = 200,
    ):
        simulation.require_version()
        rows = _MAZES[maze].split()
        model, turns = simulation.load_model(
            (maze, inertia_correction), lambda: _compile(maze, inertia_correction)
        )
        super().__init__(
            model, turns, 29, _camera_above(rows), reference_scores, render_mode, width, height
        )
        self._goal_cell = np.array(_position(rows, "G"))
        # It is kept as the place of a site, which is how it is seen.
        self._goal = model.site("goal").pos[:2]
        self.placement["goal"] = self._goal
        self._low, self._high = np.float32(model.actuator_ctrlrange.T)
        self._span = self._high - self._low

    def _sample_start(self) -> None:
        random = self.np_random
        # Within a quarter of the cell, and another eighth.
        self._goal[:] = self._goal_cell + random.uniform(0, _CELL / 4, 2)
        self._goal += random.uniform(0, _CELL / 8, 2)
        self._qpos += random.uniform(-0.1, 0.1, self.model.nq)
        self._qvel[:] = 0.1 * random.standard_normal(self.model.nv)

    def _control(self, action: np.ndarray) -> np.ndarray:
        return (self._low + (action + 1) * 0.5 * self._span).clip(self._low, self._high)

    def _observe(self) -> np.ndarray:
        return np.concatenate((self._qpos, self._qvel))

    def _judge(self, observation: np.ndarray) -> tuple[float, bool, bool]:
        reached = simulation.norm(observation[:2] - self._goal) <= _GOAL_RADIUS
        return float(reached), reached, reached


def _compile(maze: str, inertia_correction: bool) -> mujoco.MjModel:
    """Return the model of a maze.

    Raises:
        UserError: The ant is not the one that was compared with D4RL's.
    """
    xml = _with_walls(simulation.asset_path(_PACKAGE, _ASSET), _MAZES[maze].split())
    model = mujoco.MjModel.from_xml_string(xml)
    simulation.require_fingerprint(model, _FINGERPRINTS[maze], _PACKAGE)
    if inertia_correction:
        _make_capsules_cylinders(model)
    return model


def _position(rows: list[str], mark: str) -> tuple[float, float]:
    """Return x and y of the cell with a mark."""
    row = next(i for i, line in enumerate(rows) if mark in line)
    return _centre(row, rows[row].index(mark))


def _centre(row: float, column: float) -> tuple[float, float]:
    """Return x and y of a cell; the start is in row and column 1."""
    return (column - 1) * _CELL, (row - 1) * _CELL


def _with_walls(path: Path, rows: list[str]) -> str:
    """Return the XML of the ant among walls, with a visible goal."""
    root = ElementTree.parse(path).getroot()
    world = root.find("worldbody")
    world.find("geom[@name='floor']").set("size", "40 40 40")
    for i, line in enumerate(rows):
        for j, mark in enumerate(line):
            if mark == "#":
                x, y = _centre(i, j)
                attributes = {
                    "name": f"wall_{i}_{j}",
                    "type": "box",
                    "pos": f"{x} {y} {_WALL_HEIGHT / 2}",
                    "size": f"{_CELL / 2} {_CELL / 2} {_WALL_HEIGHT / 2}",
                    "contype": "1",
                    "conaffinity": "1",
                    "material": "wall",
                }
                ElementTree.SubElement(world, "geom", attributes)
    x, y = _position(rows, "G")
    attributes = {
        "name": "goal",
        "type": "cylinder",
        "pos": f"{x} {y} 0",
        "size": f"{_GOAL_RADIUS} 0.05",
        "material": "target",
    }
    ElementTree.SubElement(world, "site", attributes)
    # The same torques as with ogbench's gear, but in D4RL's arithmetic.
    for motor in root.iter("motor"):
        motor.set("gear", "1")
        motor.set("ctrlrange", f"{-_TORQUE} {_TORQUE}")
    return ElementTree.tostring(root, encoding="unicode")


def _make_capsules_cylinders(model: mujoco.MjModel) -> None:
    """Give capsules the inertia of cylinders longer by one radius.

    Every capsule of the ant is a body's only geom, so the body's inertial frame is the capsule's,
    whose axis is z.
    """
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_CAPSULE):
        radius, half_length, _ = model.geom_size[geom]
        length = 2 * half_length + radius
        body = model.geom_bodyid[geom]
        volume = np.pi * radius**2 * (2 * half_length + 4 / 3 * radius)
        density = model.body_mass[body] / volume
        mass = density * np.pi * radius**2 * length
        across, along = mass * (3 * radius**2 + length**2) / 12, mass * radius**2 / 2
        model.body_mass[body] = mass
        model.body_inertia[body] = across, across, along
    # All that follows from them, such as the mass of a whole leg.
    mujoco.mj_setConst(model, mujoco.MjData(model))


def _camera_above(rows: list[str]) -> mujoco.MjvCamera:
    """Return a camera that looks down on the whole maze."""
    camera = mujoco.MjvCamera()
    height, width = len(rows), len(rows[0])
    camera.lookat[:2] = _centre((height - 1) / 2, (width - 1) / 2)
    camera.azimuth, camera.elevation = 90, -90
    camera.distance = 1.3 * _CELL * max(height, width)
    return camera
