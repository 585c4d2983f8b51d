"""main.py with a pause at every row, so that a training lasts on any machine.

python slow_main.py --env_name=pointmaze-medium-navigate --pause=0.5
"""

if __name__ == "__main__":  # before the imports that take seconds
    from utils.runs.signals import end_at_once

    end_at_once()

import time

from absl import flags

import agents
from utils.runs import settings
from utils.runs.launch import launch
from utils.runs.run import Run

settings.define_flags()
settings.define(
    flags.DEFINE_integer, "offline_steps", 1_000_000, "Updates to train for.", lower_bound=1
)
settings.define(flags.DEFINE_float, "pause", 0.0, "Seconds to wait at every row of train.csv.")


def main(run: Run) -> int:
    """Train up to each stop, and do what is due there."""
    trainer, state = run.start()  # from the last checkpoint, if there is one
    for stop in run.stops():
        state = trainer.update(state, stop.steps)
        if stop.log:
            state = run.log(state)
            time.sleep(run.settings.flags["pause"])
        if stop.evaluate:
            run.evaluate(state)  # in the background
        if stop.save:
            run.save(state)
    return run.end(state)


if __name__ == "__main__":
    launch(main, agents.DEFAULT)
