"""What both agents do."""


def td_loss(network, batch, params, next_actions, discount):
    next_q = network.select("target_critic")(batch["next_observations"], next_actions)
    target = batch["rewards"] + discount * batch["masks"] * next_q
    q = network.select("critic")(batch["observations"], batch["actions"], params=params)
    loss = ((q - target) ** 2).mean()
    return loss, {"critic/critic_loss": loss, "critic/q_mean": q.mean()}
