"""Data alone, without an environment: agents are trained and not evaluated.

python main.py --env_name=./my_arrays.py --eval_interval=0
"""

import numpy as np


def load_datasets():
    """Return training and validation transitions; they could as well come from np.load."""
    generator = np.random.default_rng(0)

    def transitions(rows):
        return {
            "observations": generator.normal(size=(rows, 3)),
            "actions": generator.uniform(-1, 1, (rows, 2)),
            "next_observations": generator.normal(size=(rows, 3)),
            "rewards": generator.normal(size=rows),
            "masks": np.ones(rows),  # 0 where the next state is terminal
            "terminals": np.arange(rows) % 10 == 9,  # the last row of each episode
        }

    return transitions(200), transitions(50)
