import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _global_generator():
    """Keeps what in-process collecting does to NumPy's generator from other tests."""
    state = np.random.get_state()
    yield
    np.random.set_state(state)
