"""Record what rliable computes: ``python -m tests.report.record_rliable``.

It needs an environment with rliable 1.2.0 (arch 7.2, pandas 2), and writes data/rliable.npz beside
this file: scores of two methods, the indices of seeds that the bootstrap took, and the results.
"""

from pathlib import Path

import numpy as np
from rliable import library, metrics

REPETITIONS = 200
RECORDED = Path(__file__).parent / "data" / "rliable.npz"


class Recorder:
    """Calls rliable and keeps the indices that it takes and the values that it gets."""

    def __init__(self):
        self.arrays = {}

    def record(self, name, scores, function, bootstrap_class):
        """Record one statistic; rliable's scores are (seeds, tasks)."""
        indices, values = [], []
        original = bootstrap_class.update_indices

        def update_indices(bootstrap):
            taken = original(bootstrap)
            indices.append(taken)
            return taken

        def statistic(*arrays):
            values.append(function(*arrays))
            return values[-1]

        np.random.seed(0)  # rliable takes its indices from the global generator
        bootstrap_class.update_indices = update_indices
        try:
            points, intervals = library.get_interval_estimates(
                {"method": scores}, statistic, reps=REPETITIONS
            )
        finally:
            bootstrap_class.update_indices = original
        self.arrays[f"{name}_point"] = points["method"]
        self.arrays[f"{name}_interval"] = intervals["method"]
        self.arrays[f"{name}_values"] = np.array(values[-REPETITIONS:])
        return indices[-REPETITIONS:]


def main():
    rng = np.random.default_rng(0)
    level = rng.uniform(size=5)
    # Multiples of 1/50 have ties, as success rates do.
    x, y = (rng.binomial(50, level, size=(seeds, 5)) / 50 for seeds in (7, 4))
    y = np.minimum(y + 0.04, 1)
    thresholds = np.linspace(0, 1, 11)
    recorder = Recorder()
    recorder.arrays.update(x=x, y=y, thresholds=thresholds)
    for name, function in {
        "mean": lambda scores: np.array([metrics.aggregate_mean(scores)]),
        "iqm": lambda scores: np.array([metrics.aggregate_iqm(scores)]),
        "profile": lambda scores: library.score_distributions(scores, thresholds),
    }.items():
        taken = recorder.record(name, x, function, library.StratifiedBootstrap)
        indices = np.array([seeds for seeds, _ in taken], np.int8)
        assert np.array_equal(recorder.arrays.setdefault("indices", indices), indices)
    pairs = recorder.record(
        "improvement",
        [x, y],
        lambda x, y: np.array([metrics.probability_of_improvement(x, y)]),
        library.StratifiedIndependentBootstrap,
    )
    for i, name in enumerate("xy"):
        taken = np.array([positional[i][0] for positional, _ in pairs], np.int8)
        recorder.arrays[f"improvement_indices_{name}"] = taken
    np.savez_compressed(RECORDED, **recorder.arrays)


if __name__ == "__main__":
    main()
