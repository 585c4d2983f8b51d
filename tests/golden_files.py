"""Recorded update steps of published code: how they are read, and named in our agents.

A file holds parameters before and after, and by step a batch, noise, values from before the update
and losses. Our tree of parameters says what is looked for; its paths are renamed to the file's.
Other files hold features of encoders, random crops, or stacks of frames.
"""

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from utils import diffusion, encoders, flow
from utils.agent import repeat
from utils.agent_files import load_agent_file
from utils.losses import td_target

REPOSITORY = Path(__file__).parents[1]
RENAMES = [
    (r"/(members|hidden|MLP_0)/", "/"),
    (r"/Dense_(\d+)/", r"/\1/"),
    (r"/LayerNorm_(\d+)/", r"/\1/ln_"),
    (r"^(log_\w+)/value$", r"\1"),
    (r"/mean/", "/last/"),
    (r"/log_std/", "_log_std/0/"),
    (r"/log_std(_\w+)?$", r"_log_std\1"),
]
# Of a network behind an encoder, before all others.
ENCODED = [
    (r"^(\w+)/head/", r"\1/"),
    (r"^(\w+)/encoder/Dense_0/", r"\1_encoder/last/"),
    (r"^(\w+)/encoder/ResidualStack_(\d+)/Conv_(\d+)/", r"\1_encoder/\2.\3/"),
]


def kind_of(path):
    """What a file is about: "agent" (updates), "parameters" (encoders), "p_aug", "frame_stack"."""
    with np.load(path, allow_pickle=False) as file:
        config = json.loads(bytes(file["config_json"]).decode())
    kinds = ("agent", "parameters", "p_aug", "frame_stack")
    return next(kind for kind in kinds if kind in config)


def recorded_parameters(parameters):
    """Parameters of an encoder as `encoders.npz` has them, by the number of the layer.

    Args:
        parameters: A tree of their shapes.
    """
    paths = jax.tree_util.tree_leaves_with_path(parameters)
    layers = sorted({tuple(key.key for key in path[:-1]) for path, _ in paths}, key=_layer_order)

    def leaf(path, like):
        *layer, name = (key.key for key in path)
        number = layers.index(tuple(layer))
        if name == "bias":
            value = 0.1 * np.random.RandomState(number + 100).standard_normal(like.shape)
        else:
            value = np.random.RandomState(number).standard_normal(like.shape)
            value = value * np.sqrt(2 / np.prod(like.shape[:-1]))
        return jnp.asarray(value, jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, parameters)


def _layer_order(layer):
    """Convolutions in the order of their use, then the dense layer."""
    return layer[0].startswith("Dense"), [int(name.split("_")[1]) for name in layer]


# --- Values from before an update, as functions of agent, batch and noise -------------------------


def output(network, key="observations"):
    """Of a network, at observations alone."""
    return lambda agent, batch, noise: agent.network.select(network)(batch[key])


def q_of(actions, target=False, key="observations"):
    """Of the critic, or its target, at actions that are such a function."""

    def q(agent, batch, noise):
        select = agent.network.select_target if target else agent.network.select
        return select("critic")(batch[key], actions(agent, batch, noise))

    return q


def data_actions(agent, batch, noise):
    return batch["actions"]


def mode(agent, batch, noise):
    return output("actor")(agent, batch, noise).mode()


def log_prob(agent, batch, noise):
    return output("actor")(agent, batch, noise).log_prob(batch["actions"])


def std(agent, batch, noise):
    return output("actor")(agent, batch, noise).std()


def sample(i, key="observations", eps="eps"):
    """Of a Gaussian actor, the actions (0) or their log densities (1)."""

    def part(agent, batch, noise):
        noise = noise[eps]
        repeated = batch[key][:, None] if noise.ndim == 3 else batch[key]
        return agent.network.select("actor")(repeated).sample_and_log_prob(noise)[i]

    return part


def base_actions(agent, batch, noise):
    return agent.propose(batch["observations"], noise["z"])


def refinement(agent, batch, noise):
    refine = agent.network.select("refinement")
    return refine(batch["observations"], base_actions(agent, batch, noise))


def next_base_actions(agent, batch, noise):
    return agent.propose(batch["next_observations"], noise["next_z"])


def onestep_actions(agent, batch, noise):
    return agent.network.select("onestep_actor")(batch["observations"], noise["z"])


def velocity(network):
    """Of a flow, at the points where flow matching asks for it."""

    def of(agent, batch, noise):
        x_t, _ = flow.straight_path(noise["x0"], batch["actions"], noise["t"])
        return agent.network.select(network)(batch["observations"], x_t, noise["t"])

    return of


def flow_actions(key="observations", z="z"):
    """Of the policy's flow, from recorded noise."""
    return lambda agent, batch, noise: agent.actions(batch[key], noise[z])


def repeated_actions(agent, batch, noise):
    """At s', from each of the noises (b, R, a) that there are for it."""
    count = noise["next_z"].shape[1]
    observations = repeat(batch["next_observations"], count, 1)
    if "refinement" in agent.network.params:
        return agent.refine(observations, agent.propose(observations, noise["next_z"]))
    return agent.actions(observations, noise["next_z"])


def returns_of(next_actions):
    """Of a flow critic: where its fields end, and the target, by name."""

    def current(agent, batch, noise):
        repeated = (
            repeat(batch[key], noise["u"].shape[1], 1) for key in ("observations", "actions")
        )
        return agent.returns(agent.network.select("flow_critic"), *repeated, noise["u"])

    return {
        "current_returns": current,
        "next_returns": lambda agent, batch, noise: agent.next_returns(
            batch, noise, next_actions(agent, batch, noise)
        ),
        "target_returns": lambda agent, batch, noise: agent.target_returns(
            batch, noise, next_actions(agent, batch, noise)
        ),
    }


def noisy_actions(agent, batch, noise):
    return diffusion.noised(batch["actions"], noise["eps"], noise["t"], agent.betas())


def predicted_noise(agent, batch, noise):
    x_t, t = noisy_actions(agent, batch, noise), noise["t"][:, None].astype(jnp.float32)
    masks = diffusion.dropout_masks(noise, agent.config.dropout)
    return agent.network.select("actor")(batch["observations"], x_t, t, *masks)


def new_next_value(agent, batch, noise):
    """Of V after its step in this update."""
    updated, _ = agent._update(batch | {"noise": noise}, jax.random.key(0))
    return updated.network.select("value")(batch["next_observations"])


def squashed(agent, batch, noise):
    return agent.squash(output("actor")(agent, batch, noise))


def of_method(name):
    """Of a method that takes batch and noise."""
    return lambda agent, batch, noise: getattr(agent, name)(batch, noise)


def calibrated(agent, batch, noise):
    """Q of Cal-QL's other actions (ensemble, b, 3 n), and their log densities (b, 3 n)."""
    actions, log_prob = agent.other_actions(batch, noise)
    return agent.calibrated_q(batch, agent.network.params, actions)[0], log_prob


def third(i, what):
    """Of Cal-QL's other actions, Q (0) or log densities (1) of those uniform, at s or at s'."""
    return lambda *inputs: jnp.split(calibrated(*inputs)[what], 3, axis=-1)[i]


def ood(agent, batch, noise):
    q, log_prob = calibrated(agent, batch, noise)
    return jax.nn.logsumexp(q - log_prob, axis=-1)


def calql_target(agent, batch, noise):
    return td_target(batch, agent.next_q(batch, noise), agent.config.discount)


def td_losses(agent, batch, noise):
    return agent.td_losses(batch, agent.network.params, noise)


def differences(agent, batch, noise):
    return agent.differences(batch, agent.network.params, noise)[0]


def conservative_losses(agent, batch, noise):
    return agent.conservative_losses(differences(agent, batch, noise))


def prior_inputs(agent, batch, noise):
    """Of SRPO's diffusion model, actions, noise, times and dropout's factors of a file's stage."""
    if agent.config.pretrain_steps:
        masks = diffusion.dropout_masks(noise, agent.config.prior_dropout)
        return batch["actions"], noise["prior_z"], 0.001 + 0.999 * noise["prior_u"], masks
    return agent.act(batch["observations"]), noise["z"], 0.02 + 0.96 * noise["u"], ()


def prior_noisy_actions(agent, batch, noise):
    actions, z, t, _ = prior_inputs(agent, batch, noise)
    alpha, sigma = diffusion.vp_marginal(t[:, None])
    return alpha * actions + sigma * z


def prior_noise(agent, batch, noise):
    actions, z, t, masks = prior_inputs(agent, batch, noise)
    return agent.predicted_noise(batch["observations"], actions, t, z, None, *masks)


def srpo_actions(agent, batch, noise):
    return agent.act(batch["observations"])


def plain_gradient(agent, batch, noise):
    """Of the mean of the target critics by the policy's actions, before it is normalised."""

    def total(actions):
        q = agent.network.select_target("critic")(batch["observations"], actions)
        return q.mean(axis=0).sum()

    return jax.grad(total)(agent.act(batch["observations"]))


def srpo_noise(recorded, settings):
    """The same for both stages, of which a file is about one; where it drops none all is kept."""
    shape = (*recorded["u"].shape, settings["prior_hidden_dim"])
    kept = {f"dropout{k}": jnp.ones(shape, bool) for k in range(settings["prior_num_blocks"])}
    prior = {f"prior_{name}": recorded[name] for name in ("u", "z")}
    return kept | recorded | prior


def cac_actions(agent, batch, noise):
    return agent.act(agent.network.select("actor"), batch["observations"], noise["z"])


def cac_next_q(agent, batch, noise):
    """Of the target critics, at all actions of the average policy at s'."""
    return agent.network.select_target("critic")(*agent.next_actions(batch, noise))


def new_q_of_actions(agent, batch, noise):
    """Of the critics after their step in this update, at the actions of the policy before its."""
    updated, _ = agent._update(batch | {"noise": noise}, jax.random.key(0))
    critic = updated.network.select("critic")
    return critic(batch["observations"], cac_actions(agent, batch, noise))


# --- The table ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the files of an agent are read.

    Attributes:
        before: Recorded values by name, and losses of each critic; `q`, of the data's actions, in
            any case.
        agent: Its file's name, if the recorded one is another.
        actor: The network that has the actor's hidden layers.
        settings: Our names of settings by theirs, or what gives ours from a value; None for what is
            no setting of ours.
        renames: Of paths in our parameters, before the common ones.
        drawn: Noise in the order in which acting draws it.
        noise: Gives our noise from the recorded one and the file's settings.
        by_step: Settings recorded as a list, of which each step has one in its noise.
        first: Number of an agent's first update, where a file says that of its own first one.
        absent: Networks that files may lack, which then stand still.
    """

    before: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
    agent: str | None = None
    actor: str = "actor"
    settings: Mapping[str, str | Callable | None] = dataclasses.field(default_factory=dict)
    renames: tuple[tuple[str, str], ...] = ()
    drawn: tuple[str, ...] = ("eps",)
    noise: Callable = lambda recorded, settings: recorded
    by_step: tuple[str, ...] = ()
    first: int = 1
    absent: tuple[str, ...] = ()


FLOW_CRITIC_SETTINGS = {
    "flow_num_ensembles": "num_flow_critics",
    "distill_num_ensembles": "num_critics",
    "embed_time": None,  # time_embedding says it
}
LAYOUTS = {
    "bc": Layout(before={"mean_actions": mode, "log_prob": log_prob}),
    "cac": Layout(
        drawn=("z", "gumbel"),
        first=0,
        by_step=("num_scales",),
        settings={
            "steps": "sampling_steps",
            "iteration": None,
            "num_scales": None,
        },
        renames=((r"^actor/time/", "actor_time/"),),
        before={
            "next_actions": lambda *inputs: inputs[0].next_actions(*inputs[1:])[1],
            "target_q": cac_next_q,
            "actions": cac_actions,
            "q_pi": new_q_of_actions,
            "consistency": lambda agent, batch, noise: agent.consistency_errors(
                batch, agent.network.params, noise
            )[0],
        },
    ),
    "calql": Layout(
        settings={"separate_noise": None},
        before={
            "actions": sample(0),
            "log_probs": sample(1),
            "q_pi": lambda *inputs: q_of(sample(0))(*inputs).min(axis=0),
            "next_actions": sample(0, "next_observations", "next_eps"),
            "target_q": of_method("next_q"),
            "target": calql_target,
            "q_random": third(0, 0),
            "q_current": third(1, 0),
            "q_next": third(2, 0),
            "current_log_probs": third(1, 1),
            "next_log_probs": third(2, 1),
            "ood": ood,
            "td_loss": td_losses,
            "diff": differences,
            "conservative_loss": conservative_losses,
            "critic_loss": lambda *inputs: td_losses(*inputs) + conservative_losses(*inputs),
        },
    ),
    "deflow": Layout(
        actor="base_flow",
        drawn=("z",),
        before={
            "base_actions": base_actions,
            "refinement": refinement,
            "next_base_actions": next_base_actions,
            "target_q": q_of(data_actions, target=True, key="next_observations"),
        },
    ),
    "deflowvf": Layout(
        actor="base_flow",
        drawn=("z",),
        settings=FLOW_CRITIC_SETTINGS,
        before={
            "base_actions": base_actions,
            "refinement": refinement,
            "next_actions": repeated_actions,
        }
        | returns_of(repeated_actions),
    ),
    "fawac": Layout(
        actor="actor_flow",
        drawn=("z",),
        before={
            "next_actions": flow_actions("next_observations", "next_z"),
            "target_q": q_of(data_actions, target=True),
            "v": output("value"),
            "weights": lambda agent, batch, noise: agent.weight(agent.advantage(batch)),
        },
    ),
    "fbrac": Layout(
        actor="actor_flow",
        drawn=("z",),
        before={
            "next_actions": flow_actions("next_observations", "next_z"),
            "actions": flow_actions(),
            "q_pi": q_of(flow_actions()),
        },
    ),
    "floq": Layout(
        actor="base_flow",
        drawn=("z",),
        settings=FLOW_CRITIC_SETTINGS,
        before={
            "base_actions": base_actions,
            "onestep_actions": onestep_actions,
            "next_actions": repeated_actions,
        }
        | returns_of(repeated_actions),
    ),
    "fql": Layout(
        actor="base_flow",
        drawn=("z",),
        before={
            "base_actions": base_actions,
            "onestep_actions": onestep_actions,
            "next_onestep_actions": flow_actions("next_observations", "next_z"),
            "target_q": q_of(data_actions, target=True, key="next_observations"),
        },
    ),
    "idql": Layout(
        drawn=("z", "step_z"),
        renames=(
            (r"^actor/(time|input|output)/", r"actor_\1/0/"),
            (r"^actor/(time_mlp|block\d+)/", r"actor_\1/"),
            (r"^value/LayerNorm_0/", r"value_input/LayerNorm_0/"),
        ),
        before={
            "noisy_actions": noisy_actions,
            "eps_hat": predicted_noise,
            "target_q": q_of(data_actions, target=True),
            "v": output("value"),
            "next_v": new_next_value,
        },
    ),
    "ifql": Layout(
        actor="base_flow",
        drawn=("z",),
        before={
            "target_q": q_of(data_actions, target=True),
            "v": output("value"),
            "next_v": output("value", "next_observations"),
            "velocity": velocity("base_flow"),
        },
    ),
    "iql": Layout(
        before={
            "mean_actions": mode,
            "log_prob": log_prob,
            "target_q": q_of(data_actions, target=True),
            "v": output("value"),
            "next_v": output("value", "next_observations"),
        },
    ),
    "rebrac": Layout(
        before={
            "next_actions": of_method("next_actions"),
            "actions": squashed,
            "q_pi": q_of(squashed),
        },
    ),
    "sac": Layout(
        agent="rlpd",
        before={
            "next_actions": sample(0, "next_observations", "next_eps"),
            "next_log_probs": sample(1, "next_observations", "next_eps"),
            "actions": sample(0),
            "log_probs": sample(1),
            "q_pi": q_of(sample(0)),
            "std": std,
            "alpha": lambda agent, batch, noise: agent.alpha(),
        },
    ),
    "srpo": Layout(
        drawn=(),
        absent=("actor",),
        noise=srpo_noise,
        settings={
            "time_hidden_dim": None,
            "stage": lambda stage: {"pretrain_steps": 0 if stage == "policy" else 1000},
            "weighting": lambda name: {
                "weighting": name.removesuffix("_noise"),
                "subtract_noise": name.endswith("_noise"),
            },
        },
        renames=(
            (r"^prior/(time|input|output)/", r"prior_\1/0/"),
            (r"^prior/(time_mlp|block\d+)/", r"prior_\1/"),
        ),
        before={
            "noisy_actions": prior_noisy_actions,
            "eps_hat": prior_noise,
            "actions": srpo_actions,
            "q_pi": q_of(srpo_actions, target=True),
            "action_gradient": plain_gradient,
            "target_q": q_of(data_actions, target=True),
            "v": output("value"),
            "next_v": output("value", "next_observations"),
        },
    ),
}


class Golden:
    """A file of recorded update steps.

    Attributes:
        path: The file.
        arrays: All arrays in it, by name.
        steps: By recorded step the parts `batch`, `noise`, `before`, `loss`.
        layout: How it is read.
    """

    def __init__(self, path):
        self.path = path
        with np.load(path, allow_pickle=False) as file:
            self.arrays = dict(file)
        steps = sorted({int(n[4 : n.index("/")]) for n in self.arrays if n.startswith("step")})
        assert steps == list(range(len(steps)))
        parts = ("batch", "noise", "before", "loss")
        self.steps = [{part: self.part(f"step{step}/{part}") for part in parts} for step in steps]
        self._settings = json.loads(bytes(self.arrays["config_json"]).decode())
        name = self._settings.pop("agent")
        self._encoder = self._recorded_encoder(self._settings.pop("encoder", None))
        self.layout = LAYOUTS[name]
        for step, parts in enumerate(self.steps):
            parts["noise"] = self.layout.noise(parts["noise"], self._settings)
            for key in self.layout.by_step:
                parts["noise"][key] = jnp.asarray(self._settings[key][step])
        self._agent_file = load_agent_file(
            REPOSITORY / "agents" / f"{self.layout.agent or name}.py"
        )

    def part(self, prefix):
        """Arrays below `prefix`, by the rest of their names."""
        start = f"{prefix}/"
        named = ((name, x) for name, x in self.arrays.items() if name.startswith(start))
        return {name.removeprefix(start): jnp.asarray(x) for name, x in named}

    def build(self):
        """The agent at its initial parameters, its noise fed as a part of the batch."""

        class Fed(self._agent_file.agent_class):
            def sample_noise(self, rng, batch):
                return batch["noise"]

        batch = self.steps[0]["batch"]
        # Shapes are enough: every value is replaced.
        with mock.patch.dict(encoders.ENCODERS, recorded=lambda: self._encoder):
            agent = jax.eval_shape(
                lambda key, *example: Fed.create(key, *example, self._config()),
                jax.random.key(0),
                batch["observations"],
                batch["actions"],
            )
        params, targets = self.params("init", agent)
        first = self.layout.first
        opt_state = {name: tx.init(params[name]) for name, tx in agent.optimizers().items()}
        network = agent.network.replace(
            step=jnp.asarray(self._settings.get("first_step", first) - first),
            params=params,
            target_params=targets,
            opt_state=opt_state,
        )
        return agent.replace(network=network)

    def params(self, prefix, agent):
        """Parameters and targets as the agent has them, `init` or `final`; all that there are.

        Those of a network that the file may lack and does are 0, before and after.
        """
        used = set()
        absent = [name for name in self.layout.absent if not self._layers(name)]

        def read(start):
            def leaf(path, like):
                if path[0].key in absent:
                    return jnp.zeros(like.shape)
                name = prefix + "/" + start + self._file_name([key.key for key in path], start)
                used.add(name)
                assert self.arrays[name].shape == like.shape, name
                return jnp.asarray(self.arrays[name])

            return lambda tree: jax.tree_util.tree_map_with_path(leaf, tree)

        found = read("")(agent.network.params), read("target_")(agent.network.target_params)
        assert used == {name for name in self.arrays if name.startswith(f"{prefix}/")}
        return found

    def intermediates(self, agent, batch, noise):
        """Values before the update that are recorded, computed by the agent's own parts."""
        recorded = {*self.steps[0]["before"], *self.steps[0]["loss"]}
        found = {
            name: of(agent, batch, noise)
            for name, of in self.layout.before.items()
            if name in recorded
        }
        if "critic" in agent.network.params:
            found["q"] = q_of(data_actions)(agent, batch, noise)
        if self._encoder is not None and "base_flow" in agent.network.params:
            params = agent.network.params["base_flow"]["encoder"]
            found["base_features"] = self._encoder.apply({"params": params}, batch["observations"])
        return found

    @contextlib.contextmanager
    def drawn_noise(self):
        """Have `jax.random` return what acting drew in the recorded code."""
        noise = iter([self.part("eval/noise")[name] for name in self.layout.drawn])

        def recorded(key, shape):
            array = next(noise)
            assert array.shape == tuple(shape)
            return array

        with (
            mock.patch("jax.random.normal", recorded),
            mock.patch("jax.random.gumbel", recorded),
        ):
            yield

    def _config(self):
        """Settings as recorded; the sizes of networks as the arrays have them."""
        config = ml_collections.ConfigDict(self._agent_file.config)
        ours = {"first_step": None} | dict(self.layout.settings)
        recorded = {}
        for key, value in self._settings.items():
            name = ours.get(key, key)
            recorded |= name(value) if callable(name) else {name: value}
        recorded.pop(None, None)
        for key in [key for key in recorded if key.endswith("hidden_dims")]:
            del recorded[key]
        actor, kernels = self.layout.actor, self.arrays
        sizes = {
            "actor_hidden_dims": self._hidden_dims(actor),
            "value_hidden_dims": self._hidden_dims("critic"),
            "time_hidden_dims": self._widths("actor_time_mlp") or self._widths("prior_time_mlp"),
            "flow_critic_hidden_dims": self._hidden_dims("flow_critic"),
            "actor_layer_norm": f"init/{actor}/0/ln_scale" in kernels,
            "layer_norm": "init/critic/0/ln_scale" in kernels,
            "num_critics": len(kernels.get("init/critic/0/kernel", ())),
        }
        if self._encoder is not None:
            recorded["encoder"] = "recorded"
        assert set(recorded) <= set(config), "the file has a setting the agent lacks"
        with config.unlocked():
            config.update(recorded | {key: sizes[key] for key in sizes if key in config})
        return config

    def _recorded_encoder(self, sizes):
        """The encoder of the recorded sizes; None for states."""
        if sizes is None:
            return None
        (output_dim,) = sizes["hidden_dims"]
        return encoders.ImpalaEncoder(sizes["stack_sizes"], sizes["num_blocks"], output_dim)

    def _layers(self, network):
        pattern = re.compile(f"init/{network}/(\\d+)/bias")
        return sorted(int(found[1]) for name in self.arrays if (found := pattern.match(name)))

    def _hidden_dims(self, network):
        """Widths of the hidden layers, from the biases."""
        return self._widths(network)[:-1]

    def _widths(self, network):
        layers = self._layers(network)
        return tuple(self.arrays[f"init/{network}/{i}/bias"].shape[-1] for i in layers)

    def _file_name(self, path, start):
        name = "/".join(path)
        for pattern, replacement in (*ENCODED, *self.layout.renames, *RENAMES):
            name = re.sub(pattern, replacement, name)
        if found := re.search(r"/(\d+)\.(\d+)/", name):  # stack and convolution in it
            stack, convolution = map(int, found.groups())
            number = stack * (1 + 2 * self._encoder.num_blocks) + convolution
            name = name.replace(found[0], f"/{number}/")
        network = start + name.split("/")[0]
        return name.replace("/last/", f"/{max(self._layers(network), default=0)}/")
