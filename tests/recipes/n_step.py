"""A sampling rule: returns over three steps, for any agent with a target r + gamma * mask * Q'.

The agent multiplies by gamma once; the two further factors are in the masks. A rule knows no
settings, so DISCOUNT must be the agent's `--agent.discount`: where a task's published settings have
another one (0.995 for some mazes), change it here too.

python main.py --env_name=./my_task.py --sampling=./n_step.py --agent.discount=0.99
"""

STEPS = 3
DISCOUNT = 0.99
COLUMNS = ("terminals",)


def gather(arrays, rows):
    """Return a batch whose rewards, masks and next observations look three steps ahead.

    Nothing is taken from beyond an episode's end: there are fewer steps in its last rows.
    """
    batch = {name: array[rows] for name, array in arrays.items() if name not in COLUMNS}
    rewards, masks = batch["rewards"], batch["masks"]
    for _ in range(STEPS - 1):
        more = 1.0 - arrays["terminals"][rows]  # 0 at an episode's last row, where `rows` stays
        rows = rows + more.astype(rows.dtype)
        rewards = rewards + more * DISCOUNT * masks * arrays["rewards"][rows]
        masks = masks * (1.0 - more + more * DISCOUNT * arrays["masks"][rows])
    following = {"next_observations": arrays["next_observations"][rows]}
    return batch | following | {"rewards": rewards, "masks": masks}
