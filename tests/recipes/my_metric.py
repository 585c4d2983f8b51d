"""A metric, its panel in curves.png, and a warning when it tells of trouble.

python main.py --env_name=./my_task.py --agent=./my_metric.py
"""

import jax.numpy as jnp

from agents import deflow
from utils.metrics import Panel, Signature

get_config = deflow.get_config
PUBLISHED = deflow.PUBLISHED  # of the tasks; a file that leaves it out has none


class MetricAgent(deflow.DeFlowAgent):
    """DeFlow that logs how far its critics disagree."""

    PANELS = (
        *deflow.DeFlowAgent.PANELS,
        Panel("critics' disagreement / |Q|", "critic/disagreement", "log"),
    )
    SIGNATURES = (
        *deflow.DeFlowAgent.SIGNATURES,
        Signature(
            "critics disagree by more than a tenth of |Q|",
            "raise --agent.num_critics, or train for longer",
            above={"critic/disagreement": 0.1},
        ),
    )

    def critic_loss(self, batch, params, next_base_actions):
        """Return DeFlow's loss, and one metric more."""
        loss, metrics = super().critic_loss(batch, params, next_base_actions)
        q = self.network.select("critic")(batch["observations"], batch["actions"])  # (ensemble, b)
        metrics["critic/disagreement"] = q.std(axis=0).mean() / jnp.abs(q).mean()
        return loss, metrics
