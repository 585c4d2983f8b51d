"""A changed schedule: a copy of main.py in which the refinement stands still at first.

Which networks are frozen follows from the step and is set at every stop, so that a run that was
killed and resumed does the same.

python warm_up.py --env_name=./my_task.py --warm_up_steps=100
"""

if __name__ == "__main__":  # before the imports that take seconds
    from utils.runs.signals import end_at_once

    end_at_once()

from absl import flags

import agents
from utils.runs import settings
from utils.runs.launch import launch
from utils.runs.run import Run

settings.define_flags()
settings.define(
    flags.DEFINE_integer, "offline_steps", 1_000_000, "Updates to train for.", lower_bound=1
)
settings.define(
    flags.DEFINE_float,
    "p_aug",
    None,
    "Probability with which a batch's images are cropped at random.",
    lower_bound=0.0,
    upper_bound=1.0,
)
settings.define(flags.DEFINE_integer, "frame_stack", None, "Images per observation.", lower_bound=1)
settings.define(flags.DEFINE_integer, "warm_up_steps", 0, "Updates with the refinement frozen.")


def main(run: Run) -> int:
    """Train up to each stop, and do what is due there."""
    trainer, state = run.start()  # from the last checkpoint, if there is one
    warm_up = run.settings.flags["warm_up_steps"]
    for stop in run.stops(extra=[warm_up]):
        frozen = ["refinement"] if stop.start < warm_up else []
        state = state.replace(agents=state.agents.freeze(*frozen))
        state = trainer.update(state, stop.steps)
        if stop.log:
            state = run.log(state)
        if stop.evaluate:
            run.evaluate(state)  # in the background
        if stop.save:
            run.save(state)
    return run.end(state)


if __name__ == "__main__":
    launch(main, agents.DEFAULT)
