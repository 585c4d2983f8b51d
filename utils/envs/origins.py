"""The table of where datasets come from.

Layouts of the mirrors are those of their first users: every file lies at the top. A mirror that
turns out to have a file under another name, or another file, is passed over.
"""

from utils.downloads import Origin

ORIGINS: dict[str, Origin] = {
    "OGBench": Origin(
        "OGBENCH_DATASET_URL",
        (
            "https://rail.eecs.berkeley.edu/datasets/ogbench/{path}",
            "https://huggingface.co/datasets/zhouzypaul/ogbench_datasets/resolve/main/{name}",
        ),
    ),
    "D4RL": Origin(
        "D4RL_DATASET_URL",
        (
            "http://rail.eecs.berkeley.edu/datasets/offline_rl/{path}",
            "https://huggingface.co/datasets/imone/D4RL/resolve/main/{name}",
        ),
    ),
}
"""Origins by suite. The official server stands first, and checksums may be added."""
