"""D4RL's tasks of the Adroit hand, over the models that gymnasium-robotics ships.

After Rajeswaran et al., "Learning Complex Dexterous Manipulation with Deep Reinforcement Learning
and Demonstrations" (2018), in the form that D4RL has them. The environments of gymnasium-robotics
itself differ from these.
"""

import math
from typing import ClassVar

import numpy as np

from utils.envs.d4rl import simulation
from utils.envs.d4rl.simulation import mujoco  # After how it renders has been chosen.

_PACKAGE = "gymnasium_robotics"
_FOLDER = "envs/assets/adroit_hand"

_GIMBAL_LOCK = 4 * np.finfo(np.float64).eps


class _Hand(simulation.Simulation):
    """An Adroit hand with something to do.

    An action is the actuators' inputs, from one end of their range (-1) to the other (1).

    Args:
        reference_scores: See `Simulation`.
        render_mode: None or "rgb_array".
        width: Width of images, in pixels.
        height: Height of images, in pixels.

    Raises:
        UserError: MuJoCo's version or the model is not the one that was compared with D4RL's, or
            gymnasium-robotics is missing.
    """

    metadata: ClassVar = {**simulation.Simulation.metadata, "render_fps": 100}

    _file: str
    _fingerprint: str
    _observation_size: int

    def __init__(
        self,
        reference_scores: tuple[float, float],
        render_mode: str | None = None,
        width: int = 200,
        height: int = 200,
    ):
        simulation.require_version()
        model, turns = simulation.load_model(
            self._file, lambda: _compile(self._file, self._fingerprint)
        )
        super().__init__(
            model,
            turns,
            self._observation_size,
            "vil_camera",
            reference_scores,
            render_mode,
            width,
            height,
        )
        low, high = model.actuator_ctrlrange.T
        self._centre, self._half_range = (low + high) / 2, (high - low) / 2
        self._palm = self.data.site("S_grasp").xpos

    def _control(self, action: np.ndarray) -> np.ndarray:
        return self._centre + action.clip(-1, 1) * self._half_range


class Pen(_Hand):
    """Turning a pen in the hand to an orientation.

    The episode ends when the pen is dropped. Observations: 24 joints, the pen's position and
    velocity (6), its direction and the one wanted, and the differences of positions and directions.
    """

    _file, _fingerprint, _observation_size = "adroit_pen.xml", "215f04b65bc4c281", 45

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        mujoco.mj_forward(self.model, self.data)
        self._pen = self.data.body("Object").xpos
        self._wanted = self.data.site("eps_ball").xpos
        self._ends = self.data.site("object_top").xpos, self.data.site("object_bottom").xpos
        self._wanted_ends = self.data.site("target_top").xpos, self.data.site("target_bottom").xpos
        self._length = simulation.norm(np.subtract(*self._ends))
        self._wanted_length = simulation.norm(np.subtract(*self._wanted_ends))
        self._wanted_quat = self.model.body("target").quat
        self.placement["target_quat"] = self._wanted_quat

    def _sample_start(self) -> None:
        # Turned about x and then about the new y.
        x, y = self.np_random.uniform(-1, 1, 2) / 2
        self._wanted_quat[:] = (
            math.cos(y) * math.cos(x),
            math.cos(y) * math.sin(x),
            math.sin(y) * math.cos(x),
            math.sin(y) * math.sin(x),
        )

    def _observe(self) -> np.ndarray:
        direction = np.subtract(*self._ends) / self._length
        wanted_direction = np.subtract(*self._wanted_ends) / self._wanted_length
        return np.concatenate(
            (
                self._qpos[:-6],
                self._pen,
                self._qvel[-6:],
                direction,
                wanted_direction,
                self._pen - self._wanted,
                direction - wanted_direction,
            )
        )

    def _judge(self, observation: np.ndarray) -> tuple[float, bool, bool]:
        distance = simulation.norm(observation[39:42])
        similarity = float(observation[33:36].dot(observation[36:39]))
        reward = similarity - distance
        near = distance < 0.075
        if near and similarity > 0.9:
            reward += 10
        success = near and similarity > 0.95
        if success:
            reward += 50
        dropped = bool(observation[26] < 0.075)
        if dropped:
            reward -= 5
        return reward, dropped, success


class Door(_Hand):
    """Undoing a latch and swinging a door open.

    Observations: 27 joints (all but the arm's slide), the latch, the hinge, the positions of palm
    and handle, their difference, and whether the door is open (1 or -1).
    """

    _file, _fingerprint, _observation_size = "adroit_door.xml", "4afa1089b940aa73", 39

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._handle = self.data.site("S_handle").xpos
        self._frame = self.model.body("frame").pos
        self.placement["frame_pos"] = self._frame

    def _sample_start(self) -> None:
        self._frame[:] = self.np_random.uniform((-0.3, 0.25, 0.252), (-0.2, 0.35, 0.35))

    def _observe(self) -> np.ndarray:
        hinge, latch = self._qpos[-2:]
        return np.concatenate(
            (
                self._qpos[1:-2],
                (latch, hinge),
                self._palm,
                self._handle,
                self._palm - self._handle,
                (1.0 if hinge > 1 else -1.0,),
            )
        )

    def _judge(self, observation: np.ndarray) -> tuple[float, bool, bool]:
        hinge = float(observation[28])
        shut = hinge - 1.57
        reward = -0.1 * simulation.norm(observation[35:38])
        reward -= 0.1 * shut * shut
        reward -= 1e-5 * float(np.square(self._qvel).sum())
        if hinge > 0.2:
            reward += 2
        if hinge > 1:
            reward += 8
        if hinge > 1.35:
            reward += 10
        return reward, False, hinge >= 1.35


class Hammer(_Hand):
    """Driving a nail into a board with a hammer.

    Observations: 27 joints (the nail's is the last), the hammer's velocity (6, within +-1), the
    positions of palm and hammer, the hammer's Euler angles, the nail's position, and the force on
    it (within +-1).
    """

    _file, _fingerprint, _observation_size = "adroit_hammer.xml", "b36e2cc2799c94b6", 46

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        hammer = self.data.body("Object")
        self._hammer, self._hammer_quat = hammer.xpos, hammer.xquat
        self._head = self.data.site("tool").xpos
        self._nail = self.data.site("S_target").xpos
        self._hole = self.data.site("nail_goal").xpos
        self._force = self.data.sensor("S_nail").data
        self._board_height = self.model.body("nail_board").pos[2:]
        self.placement["board_height"] = self._board_height

    def _sample_start(self) -> None:
        self._board_height[:] = self.np_random.uniform(0.1, 0.25)

    def _observe(self) -> np.ndarray:
        return np.concatenate(
            (
                self._qpos[:-6],
                self._qvel[-6:].clip(-1, 1),
                self._palm,
                self._hammer,
                _euler_angles(self._hammer_quat),
                self._nail,
                self._force.clip(-1, 1),
            )
        )

    def _judge(self, observation: np.ndarray) -> tuple[float, bool, bool]:
        depth = simulation.norm(self._nail - self._hole)
        reward = -0.1 * simulation.norm(self._palm - self._hammer)
        reward -= simulation.norm(self._head - self._nail)
        reward -= 10 * depth
        reward -= 0.01 * simulation.norm(self._qvel)
        if self._hammer[2] > 0.04 and self._head[2] > 0.04:
            reward += 2
        if depth < 0.02:
            reward += 25
        success = depth < 0.01
        if success:
            reward += 75
        return reward, False, success


class Relocate(_Hand):
    """Carrying a ball to a place in the air.

    Observations: 30 joints, and the differences of palm and ball, palm and target, ball and target.
    """

    _file, _fingerprint, _observation_size = "adroit_relocate.xml", "57179a838caca3b2", 39

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._ball = self.data.body("Object").xpos
        self._target = self.data.site("target").xpos
        self._ball_start = self.model.body("Object").pos
        self._target_place = self.model.site("target").pos
        self.placement["ball_pos"] = self._ball_start
        self.placement["target_pos"] = self._target_place

    def _sample_start(self) -> None:
        self._ball_start[:2] = self.np_random.uniform((-0.15, -0.15), (0.15, 0.3))
        self._target_place[:] = self.np_random.uniform((-0.2, -0.2, 0.15), (0.2, 0.2, 0.35))

    def _observe(self) -> np.ndarray:
        return np.concatenate(
            (
                self._qpos[:-6],
                self._palm - self._ball,
                self._palm - self._target,
                self._ball - self._target,
            )
        )

    def _judge(self, observation: np.ndarray) -> tuple[float, bool, bool]:
        to_ball, to_target = (
            simulation.norm(observation[30:33]),
            simulation.norm(observation[33:36]),
        )
        ball_to_target = simulation.norm(observation[36:39])
        reward = -0.1 * to_ball
        if self._ball[2] > 0.04:
            reward += 1
            reward -= 0.5 * to_target
            reward -= 0.5 * ball_to_target
        success = ball_to_target < 0.1
        if success:
            reward += 10
        if ball_to_target < 0.05:
            reward += 20
        return reward, False, success


def _compile(file: str, fingerprint: str) -> mujoco.MjModel:
    """Return the model of a task.

    Raises:
        UserError: It is not the one that was compared with D4RL's, or gymnasium-robotics is
            missing.
    """
    path = simulation.asset_path(_PACKAGE, f"{_FOLDER}/{file}")
    # MuJoCo leaves open the meshes and textures that it opens itself.
    assets = {asset.name: asset.read_bytes() for asset in path.parent.rglob("*") if asset.is_file()}
    model = mujoco.MjModel.from_xml_string(path.read_text(), assets)
    simulation.require_fingerprint(model, fingerprint, _PACKAGE)
    _set_gains(model, "A_WRJ1", "A_WRJ0", 10.0)
    _set_gains(model, "A_FFJ3", "A_THJ0", 1.0)
    return model


def _set_gains(model: mujoco.MjModel, first: str, last: str, gain: float) -> None:
    """Make a block of actuators position servos of this stiffness."""
    block = slice(model.actuator(first).id, model.actuator(last).id + 1)
    model.actuator_gainprm[block, :3] = gain, 0, 0
    model.actuator_biasprm[block, :3] = 0, -gain, 0


def _euler_angles(quat: np.ndarray) -> tuple[float, float, float]:
    """Return the angles of rotations about x, the new y, the new z."""
    w, x, y, z = quat.tolist()
    scale = 2 / (w * w + x * x + y * y + z * z)
    x_axis_x = 1 - scale * (y * y + z * z)
    y_axis_x = scale * (x * y - w * z)
    z_axis_x = scale * (x * z + w * y)
    z_axis_y = scale * (y * z - w * x)
    z_axis_z = 1 - scale * (x * x + y * y)
    cosine = math.hypot(z_axis_y, z_axis_z)
    about_y = math.atan2(z_axis_x, cosine)
    if cosine > _GIMBAL_LOCK:
        return math.atan2(-z_axis_y, z_axis_z), about_y, math.atan2(-y_axis_x, x_axis_x)
    # Only the sum or difference of the other two is determined.
    x_axis_y, y_axis_y = scale * (x * y + w * z), 1 - scale * (x * x + z * z)
    return 0.0, about_y, math.atan2(x_axis_y, y_axis_y)
