"""Train an agent offline on one task, evaluate it, and resume by the same command.

python main.py --env_name=antmaze-large-navigate --agent=agents/deflow.py --agent.lr=1e-4
"""

import functools

from absl import flags

import agents
from agents.base import load_agent_file, published_settings
from utils import config
from utils.run import Run

config.define_flags()
config.define(
    flags.DEFINE_integer, "offline_steps", 1_000_000, "Updates to train for.", lower_bound=1
)


def main() -> int:
    """Run the command line's job and return the exit code."""
    agent_class, module = load_agent_file(config.agent_path())
    settings = config.resolve(functools.partial(published_settings, module))
    with Run(settings, agent_class) as run:
        if line := run.finished():
            print(f"finished already: {line}\n{run.folder}\n--overwrite starts over")
            return 0
        run.prepare()
        code = run.train_offline()
        if code == 0:
            run.finish()
        return code


if __name__ == "__main__":
    config.launch(main, lambda path: load_agent_file(path)[1].get_config(), agents.DEFAULT)
