"""Collect a dataset of OGBench with its own oracles.

The result is a training file and a validation file in OGBench's format, made with the official
settings (oracle, noise, episode length, number of episodes) by the oracles that ship in the ogbench
package. The ant walks by a policy that ships here; the official one is not published, so a score on
local antmaze data is not one on the official data.

Every episode is seeded on its own, so the files depend on the settings and the seed alone: not on
the number of workers, and not on whether the collection was interrupted. Run the same command again
to continue after an interruption.

Images take nearly all of the time, which is said at the start. An arm's are rendered of states that
are collected before: of the episodes that the dataset without visual- has with the same seed, or,
by --from_states, of those in a file.

python -m utils.collect.statistics compares datasets of mazes, official ones too.
"""

if __name__ == "__main__":  # before the imports that take seconds
    from utils.runs.signals import end_at_once

    end_at_once()

import argparse
import contextlib
import signal
import sys

from utils.collect.workers import collect
from utils.envs.ogbench.data import DEFAULT_DATASET_DIR
from utils.errors import UserError
from utils.output import guard_stdout


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.collect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--env_name",
        required=True,
        help="dataset to collect, cube-single-play for instance: pointmaze-* (navigate, stitch), "
        "antmaze-* (navigate, stitch, explore), cube-*, scene and puzzle-* (play, noisy), and the "
        "visual- forms of the latter four",
    )
    parser.add_argument("--episodes", type=int, help="training episodes (default: official number)")
    parser.add_argument(
        "--val_episodes",
        type=int,
        help="validation episodes (default: a tenth of --episodes)",
    )
    parser.add_argument(
        "--episode_length",
        type=int,
        help="transitions per episode (default: official number)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes, best one per core (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the collection (default: 0)")
    parser.add_argument(
        "--dataset_dir", help=f"folder for the files (default: {DEFAULT_DATASET_DIR})"
    )
    parser.add_argument(
        "--walker", help="file of the ant's walker (default: the one that comes with the package)"
    )
    parser.add_argument(
        "--from_states",
        metavar="FILE",
        help="for images: render the states of this training file of the dataset without images, "
        "and of the validation file beside it, instead of collecting some; give the --seed that it "
        "was collected with, if it was",
    )
    parser.add_argument(
        "--if_missing",
        action="store_true",
        help="wait for another process that collects the same files, and do nothing if both are "
        "there",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing files and discard an unfinished collection of other settings",
    )
    arguments = vars(parser.parse_args())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        report = collect(arguments.pop("env_name"), **arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        with contextlib.suppress(BrokenPipeError):
            print("interrupted; repeat the command to continue.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    tally = report.tally
    done = "wrote" if tally.steps or report.frames else "there are"
    print(f"{done} {report.train_path} and {report.val_path}")
    if tally.steps:
        rate = tally.steps / report.seconds
        print(f"{tally.steps} steps in {report.seconds:.0f} s: {rate:.0f} steps per second")
    if report.frames:
        rate = report.frames / report.frame_seconds
        print(f"{report.frames} frames in {report.frame_seconds:.0f} s: {rate:.3g} per second")
    if walk := tally.walk():
        print(walk)


if __name__ == "__main__":
    guard_stdout()
    main()
