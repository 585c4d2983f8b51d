"""Parameters and optimiser of the lab's agents."""

import functools
from typing import Any

import flax
import flax.linen as nn
import jax
import optax

static = functools.partial(flax.struct.field, pytree_node=False)


class Modules(nn.Module):
    modules: dict

    @nn.compact
    def __call__(self, *inputs, name=None, examples=None, **keywords):
        if name is None:
            return {key: module(*examples[key]) for key, module in self.modules.items()}
        return self.modules[name](*inputs, **keywords)


class State(flax.struct.PyTreeNode):
    step: int
    params: Any
    opt_state: Any
    definition: Any = static()
    tx: Any = static()

    @classmethod
    def create(cls, rng, table, tx, targets):
        """`targets` share the buffers of what they follow until the first update."""
        definition = Modules({name: module for name, (module, _) in table.items()})
        examples = {name: inputs for name, (_, inputs) in table.items()}
        params = definition.init(rng, examples=examples)["params"]
        for name in targets:
            params[f"modules_target_{name}"] = params[f"modules_{name}"]
        return cls(1, params, tx.init(params), definition, tx)

    def select(self, name):
        def call(*inputs, params=None, **keywords):
            variables = {"params": self.params if params is None else params}
            return self.definition.apply(variables, *inputs, name=name, **keywords)

        return call

    def apply_loss_fn(self, loss_fn):
        grads, info = jax.grad(loss_fn, has_aux=True)(self.params)
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params)
        params = optax.apply_updates(self.params, updates)
        info["grad/norm"] = optax.tree.norm(grads)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state), info

    def move_target(self, name, before, tau):
        """Assigns into the dictionary of parameters."""
        target = f"modules_target_{name}"
        self.params[target] = jax.tree.map(
            lambda p, t: tau * p + (1 - tau) * t, before[f"modules_{name}"], before[target]
        )
