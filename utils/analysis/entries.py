"""Policies with their budgets, as a command line names them."""

import dataclasses
from collections.abc import Mapping, Sequence

from utils.errors import UserError
from utils.policies import Policy, load_policy

UNITS = ("samples", "steps")
"""Settings of policies that are a budget."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A policy with one budget.

    Attributes:
        name: The policy with its settings, but for the budget.
        unit: Which setting is its budget; empty for a policy that has none.
        budget: How much of it; 0 for a policy that has none.
        policy: The policy.
    """

    name: str
    unit: str
    budget: int
    policy: Policy

    @property
    def is_file(self) -> bool:
        """Whether a file of the user's defines it, which may have changed under its name."""
        return self.name.endswith(".py")

    def __str__(self) -> str:
        unit = self.unit.removesuffix("s") if self.budget == 1 else self.unit
        return f"{self.name}, {self.budget} {unit}" if unit else self.name


def parse_entries(names: str, budgets: Mapping[str, Sequence[int]]) -> list[Entry]:
    """Return policies with their budgets.

    Args:
        names: As `utils.policies.load_policy` takes them, separated by commas. A budget among a
            policy's settings is its only one.
        budgets: By unit, those of every policy that has the unit; without any a policy has the
            budget that is its default.

    Raises:
        UserError: There is no such policy or setting, or no policy has a unit that is given.
    """
    entries, used = [], set()
    for name in filter(None, names.split(",")):
        policy = load_policy(name)
        unit = next((unit for unit in UNITS if hasattr(policy, unit)), "")
        first, *settings = [name] if name.endswith(".py") else name.split(":")
        others = [setting for setting in settings if setting.partition("=")[0] != unit]
        wanted = [getattr(policy, unit)] if unit else [0]
        if unit and others == settings and budgets.get(unit):
            wanted = budgets[unit]
            used.add(unit)
        for budget in wanted:
            own = [f"{unit}={budget}"] if unit else []
            configured = load_policy(":".join([first, *others, *own]))
            entries.append(Entry(":".join([first, *others]), unit, budget, configured))
    for unit in UNITS:
        if budgets.get(unit) and unit not in used:
            raise UserError(f"--{unit} is no budget of {names}; leave it out, or add a policy")
    if not entries:
        raise UserError("--eval_policy names no policy; give one or several, separated by commas")
    return list(dict.fromkeys(entries))
