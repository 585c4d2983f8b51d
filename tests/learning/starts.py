"""Success of a run on antmaze-large-navigate by how far from the goal it starts.

python -m tests.learning.starts exp/RUN/sd000 --cells=6,12,15

Says what keeps a run from its task: data that lack something fail near the goal too, and a horizon
that is not learnt yet fails far from it alone.
"""

import argparse
import functools
import sys
from collections.abc import Sequence

import numpy as np

from tests.learning.maze_starts import make_env
from utils.analysis.arguments import numbers, positive
from utils.compilation_cache import enable_compilation_cache
from utils.devices import enable_cpu_backend
from utils.envs import rendering
from utils.errors import UserError
from utils.evaluation import Evaluator
from utils.load_agent import LoadedAgents, load_agents
from utils.policies import sample
from utils.training import evaluation_keys


def play(loaded: LoadedAgents, cells: int, episodes: int) -> str:
    """Play episodes of every seed from so far; say how they ended.

    Raises:
        UserError: There is no such start.
    """
    make = functools.partial(make_env, cells)
    make().close()  # A wrong distance is refused here, and not in each worker.
    members = len(loaded.seeds)
    with Evaluator(make, sample, num_episodes=episodes, num_members=members) as evaluator:
        found = evaluator.evaluate(loaded.agents, evaluation_keys(loaded.seeds, loaded.step))
    success, length = (
        np.mean([one.mean()[name] for one in found]) for name in ("success", "length")
    )
    return f"{cells} cells: {100 * success:.0f} %, {length:.0f} steps"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per run and distance; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.learning.starts", description=__doc__.split("\n")[0]
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument("--cells", type=numbers, default=[15], help="distances (default: 15)")
    parser.add_argument("--episodes", type=positive, default=20, help="of each (default: 20)")
    options = parser.parse_args(arguments)
    enable_cpu_backend()
    enable_compilation_cache()
    rendering.choose_gl()
    try:
        for folder in options.runs:
            loaded = load_agents(folder)
            for cells in options.cells:
                print(f"{loaded.step} updates, {play(loaded, cells, options.episodes)}", flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
