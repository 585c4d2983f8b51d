"""Train an agent offline on one task and go on online, with nothing re-tuned in between.

python online_main.py --env_name=cube-double-play --agent=agents/deflow.py
"""

from absl import flags

from utils.runs import settings as config
from utils.runs.launch import launch
from utils.runs.online_run import OnlineRun

config.define_flags()
for name, default, least, text in (
    (
        "offline_steps",
        1_000_000,
        0,
        "Updates before going online; --restore_path takes their place. 0: begin with an agent "
        "that knows nothing and an empty replay.",
    ),
    ("online_steps", 1_000_000, 1, "Environment steps to take online, per seed."),
    (
        "buffer_size",
        2_000_000,
        5_000,  # The running episode must be in it to be taken up; the longest have 4,000 steps.
        "Most transitions in the replay, with the dataset if it begins as that.",
    ),
    ("utd", 1, 1, "Updates per environment step."),
):
    config.define(flags.DEFINE_integer, name, default, text, lower_bound=least)
config.define(
    flags.DEFINE_bool,
    "balanced_sampling",
    False,
    "Draw half of each batch from the dataset and half from online data, instead of from a replay "
    "that begins as the dataset.",
)

if __name__ == "__main__":
    # The published number of updates is that of offline results; fine-tuning has its own, 1M.
    launch(OnlineRun, unpublished=("offline_steps",))
