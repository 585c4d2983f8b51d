"""Stands for an entry point: says what its commands mean, and trains for milliseconds.

Flags are those of a run (`--vary` once, and not of `agent.count`), and `--behave`: crash,
crash_twice (with a new checkpoint each time), diverge, all_diverge, wait (until it is told to save)
or nothing.
"""

import hashlib
import json
import signal
import sys
import time
from pathlib import Path

from utils.runs.meaning import RESOLVE

STEPS = 5


def parse(arguments):
    return {"behave": "", "num_seeds": "1"} | dict(
        argument.removeprefix("--").split("=", 1) for argument in arguments
    )


def folder_of(flags):
    digest = hashlib.sha256(json.dumps(flags, sort_keys=True).encode()).hexdigest()[:8]
    agent = Path(flags["agent"]).stem
    return f"exp/{flags['run_group']}/{flags['env_name']}_{agent}_{digest}/sd"


def meaning(arguments):
    flags = parse(arguments)
    if "agent.wrong" in flags:
        return f"{flags['agent']} has no setting --agent.wrong"
    name, _, values = flags.get("vary", "").partition("=")
    if name == "agent.count":
        return "--vary agent.count: it is a count"
    return {
        "task": flags["env_name"],
        "agent": Path(flags["agent"]).stem,
        "folder": folder_of(flags),
        "num_seeds": int(flags["num_seeds"]),
        "offline_steps": STEPS,
        "online_steps": 0,
        "updates": STEPS,
        "idle": ["unread"] if "agent.unread" in flags else [],
        "points": [f"{folder_of(flags)}-{value}" for value in values.split(",")] if name else [],
    }


def save(folder, step):
    (folder / "checkpoints" / str(step)).mkdir(parents=True)


def end(folder, code, **score):
    (folder / "score.json").write_text(json.dumps({"line": "score", "step": STEPS, **score}))
    return code


def train(flags):
    folder = Path(folder_of(flags))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"training {flags}", flush=True)
    starts = len(list(folder.glob("checkpoints/*")))
    if flags["behave"] == "crash" or (flags["behave"] == "crash_twice" and starts < 2):
        if flags["behave"] == "crash_twice":
            save(folder, starts + 1)
        print("boom", flush=True)
        return 1
    if flags["behave"] == "all_diverge":
        (folder / "train.csv").write_text("step,seed,failed\n3,0,1\n3,1,1\n")
        return 1
    if flags["behave"] == "diverge":
        return end(folder, 3, failed={"1": 4})
    if flags["behave"] == "wait" and not starts:
        told = []
        signal.signal(signal.SIGTERM, lambda *_: told.append(1))
        save(folder, 1)
        while not told:
            time.sleep(0.01)
        time.sleep(0.5)  # in which it may be told again
        save(folder, 2)
        print(f"saved, told {len(told)} times")
        return 75
    return end(folder, 0)


if __name__ == "__main__":
    if sys.argv[1:] == [RESOLVE]:
        print(json.dumps([meaning(arguments) for arguments in json.load(sys.stdin)["commands"]]))
    else:
        sys.exit(train(parse(sys.argv[1:])))
