"""Train an agent offline on one task, evaluate it, and resume by the same command.

python main.py --env_name=antmaze-large-navigate --agent=agents/deflow.py --agent.lr=1e-4"""

from absl import flags

from utils.runs import settings as config
from utils.runs.launch import launch
from utils.runs.run import Run

config.define_flags()
config.define(
    flags.DEFINE_integer, "offline_steps", 1_000_000, "Updates to train for.", lower_bound=1
)

if __name__ == "__main__":
    launch(Run)
