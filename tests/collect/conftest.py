import importlib
import sys

import numpy as np
import pytest

from utils.envs import rendering


@pytest.fixture(autouse=True)
def _global_generator():
    """Keeps what in-process collecting does to NumPy's generator from other tests."""
    state = np.random.get_state()
    yield
    np.random.set_state(state)


@pytest.fixture
def opengl():
    """Lets a test render, also after one that has imported MuJoCo without OpenGL."""
    if rendering.choose_gl() == "disabled":
        pytest.skip("there is no OpenGL")
    if "mujoco" in sys.modules:
        importlib.reload(sys.modules["mujoco.gl_context"])
