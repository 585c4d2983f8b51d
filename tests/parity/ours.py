"""This library's agent of the same algorithm as another repository's file, with equal settings."""

from pathlib import Path

from utils.agent_files import load_agent_file

AGENTS = Path(__file__).resolve().parents[2] / "agents"
# Where the two are called differently; RLPD offline is FQL's SAC.
NAMES = {"sac": "rlpd"}
# What Floq's settings are, by its authors' file, where they have other names there.
FLOQ = {
    "flow_steps": lambda theirs: theirs["actor_flow_steps"],
    "num_critics": lambda theirs: theirs["distill_num_ensembles"],
    "num_flow_critics": lambda theirs: theirs["flow_num_ensembles"],
    "flow_critic_hidden_dims": lambda theirs: (theirs["block_width"],) * theirs["block_depth"],
}


def our_file(path):
    """Return the file of this library's agent beside a repository's file, or None."""
    ours = AGENTS / f"{NAMES.get(path.stem, path.stem)}.py"
    return ours if ours.exists() else None


def our_settings(ours, theirs):
    """Return settings of this library's agent that are equal to those of another repository's.

    Args:
        ours: The file of this library's agent.
        theirs: All settings of the other, by name.
    """
    known = load_agent_file(ours).config
    shared = {key: value for key, value in theirs.items() if key in known and value is not None}
    if ours.stem == "floq":
        shared |= {key: equal(theirs) for key, equal in FLOQ.items()}
    return shared
