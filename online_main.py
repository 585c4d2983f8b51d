"""Train an agent offline on one task and go on online, with nothing re-tuned in between.

python online_main.py --env_name=cube-double-play --agent=agents/deflow.py
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
    flags.DEFINE_integer,
    "offline_steps",
    1_000_000,
    "Updates before going online; --restore_path takes their place. 0: begin with an agent from "
    "scratch and an empty replay.",
    lower_bound=0,
)
settings.define(
    flags.DEFINE_integer,
    "online_steps",
    1_000_000,
    "Environment steps to take online, per seed.",
    lower_bound=1,
)
settings.define(
    flags.DEFINE_integer,
    "buffer_size",
    2_000_000,
    "Most transitions in the replay, with the dataset if it begins as that.",
    lower_bound=5_000,  # the running episode must be in it to be taken up
)
settings.define(flags.DEFINE_integer, "utd", 1, "Updates per environment step.", lower_bound=1)
settings.define(
    flags.DEFINE_bool,
    "balanced_sampling",
    False,
    "Sample half of each batch from the dataset and half from online data, instead of from a "
    "replay that begins as the dataset.",
)


def main(run: Run) -> int:
    """Train up to each stop, offline and then online, and do what is due there."""
    trainer, state = run.start()
    for stop in run.stops():
        if stop.online:
            state = run.online.enter(state)  # environments and replay, the first time
            for step in stop:
                outcome, episodes = run.online.envs.step(state.actions)
                state = run.online.update(state, outcome)  # insert, learn, act
                run.logs.episodes(step, episodes)
        else:
            state = trainer.update(state, stop.steps)
        if stop.log:
            state = run.log(state)
        if stop.evaluate:
            run.evaluate(state)
        if stop.save:
            run.save(state)
    return run.end(state)


if __name__ == "__main__":
    launch(main, agents.DEFAULT, online=True)
