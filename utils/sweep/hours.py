"""How many hours of GPU a sweep takes, at rates that were measured."""

from collections import Counter
from collections.abc import Sequence

from utils.errors import UserError
from utils.runs.meaning import Meaning

Rates = dict[str, float]
"""Updates per second, of all seeds of a run together, by agent; '' stands for all others."""


def parse_rates(text: str) -> Rates:
    """Return the rates of `1500`, or of `A:1500,B:1800`.

    Raises:
        UserError: A rate is no positive number.
    """
    rates = {}
    for part in text.split(","):
        agent, _, number = part.strip().rpartition(":")
        try:
            rates[agent] = float(number)
        except ValueError:
            rates[agent] = 0.0
        if not 0 < rates[agent] < float("inf"):
            raise UserError(
                f"--rate={text}: {number!r} is no positive number of updates per second; give "
                "--rate=1500, or --rate=A:1500,B:1800"
            )
    return rates


def describe(meanings: Sequence[Meaning], rates: Rates, command: str) -> str:
    """Return what a sweep amounts to: runs, seeds, updates and, if rates are known, hours.

    Updates are those of programs, whose members take them together.

    Args:
        meanings: What its commands mean.
        rates: See `Rates`; may be empty.
        command: One of the commands, by which a rate can be measured.

    Raises:
        UserError: An agent of the sweep has no rate while others have, or a rate is for none.
    """
    seeds = sum(meaning.num_seeds * len(meaning.run_folders) for meaning in meanings)
    updates = Counter()
    for meaning in meanings:
        updates[meaning.agent] += meaning.updates
    runs = sum(len(meaning.run_folders) for meaning in meanings)
    programs = f" in {len(meanings)} programs" if runs > len(meanings) else ""
    text = f"{runs} run{'s' * (runs > 1)}{programs}, {seeds} seed{'s' * (seeds > 1)}, "
    text += f"{updates.total():,} updates"
    if not rates:
        return (
            f"{text}\nfor the GPU hours measure updates/s on the GPU and give them as --rate: "
            f"{command} --dry_run"
        )
    if unknown := [agent for agent in rates if agent and agent not in updates]:
        raise UserError(f"--rate names {unknown[0]}, of which the sweep has no run")
    if missing := [agent for agent in updates if agent not in rates and "" not in rates]:
        raise UserError(f"--rate lacks {missing[0]}; add {missing[0]}:UPDATES_PER_SECOND")
    hours = {a: number / rates.get(a, rates.get("")) / 3600 for a, number in updates.items()}
    total = f"{text}, {sum(hours.values()):,.3g} GPU hours"
    if len(hours) > 1:
        total += f" ({', '.join(f'{agent} {value:,.3g}' for agent, value in hours.items())})"
    return f"{total}, without what evaluations take"
