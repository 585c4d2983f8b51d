"""Where an unfinished run stands among the seeds of a published one."""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from utils.report.published.curves import PublishedCurve
from utils.report.published.protocol import short_steps


@dataclass(frozen=True)
class Standing:
    """One's own mean among a published curve's seeds at one step.

    Attributes:
        curve: The published curve.
        step: The step.
        own: The own mean over seeds.
        published: Values of the published seeds (seeds,) there; None if only their mean is known.
        mean: Their mean.
        bounds: Ends of the mean's 95 % interval, where it was released.
        between: Steps of the published evaluations between which theirs are interpolated; None for
            an evaluation.
    """

    curve: PublishedCurve
    step: int
    own: float
    published: np.ndarray | None
    mean: float
    bounds: tuple[float, float] | None
    between: tuple[int, int] | None

    @property
    def percentile(self) -> float | None:
        """Share in percent of published seeds below the own mean; equal ones count half."""
        if self.published is None:
            return None
        equal = np.isclose(self.published, self.own)
        below = (self.published < self.own) & ~equal
        return float(100 * (below.mean() + equal.mean() / 2))

    @property
    def text(self) -> str:
        """One sentence without its full stop."""
        at = short_steps(self.step)
        theirs = f"the {self.curve.seeds} published seeds"
        if self.percentile is not None:
            place = f"stands at the {_ordinal(round(self.percentile))} percentile of {theirs}"
        else:
            low, high = self.bounds
            side = "above" if self.own > high else "below" if self.own < low else "within"
            place = f"is {side} the 95 % interval {low:.1f} to {high:.1f} of the mean of {theirs}"
        how = ""
        if self.between is not None:
            ends = " and ".join(map(short_steps, self.between))
            how = f", interpolated between their evaluations at {ends}"
        return (
            f"your mean at {at}, {self.own:.1f}, {place} at {at} (mean {self.mean:.1f}{how}): "
            f"{self.curve.legend}"
        )


def standing(
    own: Mapping[int, float], curve: PublishedCurve, online_start: int | None = None
) -> Standing | None:
    """Return where one's own run stands at the last step that can be compared.

    It is the last step that both were evaluated at. If there is none, the published values are
    interpolated at the last own step that lies between two of their evaluations of one phase.

    Args:
        own: Mean over the seeds by step: updates, then environment steps.
        curve: The published curve.
        online_start: Step at which the own run went online; None if it did not. Beyond the end of
            either offline phase only runs that went online at the same step are compared.

    Returns:
        The standing, or None if no step can be compared.
    """
    end = curve.steps[-1]
    if online_start != curve.offline_steps:
        end = min(end, curve.offline_steps, *([] if online_start is None else [online_start]))
    steps = curve.steps.tolist()
    places = {step: _neighbours(steps, step) for step in sorted(own) if steps[0] <= step <= end}
    both = [step for step, (left, right) in places.items() if left == right]
    between = [
        step
        for step, (left, right) in places.items()
        if not steps[left] < curve.offline_steps < steps[right]
    ]
    if not between:
        return None
    step = (both or between)[-1]
    left, right = places[step]
    values, bounds = (
        None if array is None else _interpolated(array, steps, step, left, right)
        for array in (curve.values, curve.bounds)
    )
    return Standing(
        curve=curve,
        step=step,
        own=own[step],
        published=values,
        mean=float(_interpolated(curve.mean, steps, step, left, right)),
        bounds=None if bounds is None else (float(bounds[0]), float(bounds[1])),
        between=None if left == right else (steps[left], steps[right]),
    )


def _neighbours(steps: list[int], step: int) -> tuple[int, int]:
    """Return where the evaluations next to a step are, twice the same for one of that step."""
    right = bisect.bisect_left(steps, step)
    return (right if steps[right] == step else right - 1), right


def _interpolated(
    array: np.ndarray, steps: list[int], step: int, left: int, right: int
) -> np.ndarray:
    """Return an array (..., evaluations) at a step between two evaluations."""
    share = 0.0 if left == right else (step - steps[left]) / (steps[right] - steps[left])
    return (1 - share) * array[..., left] + share * array[..., right]


def _ordinal(number: int) -> str:
    """Return 1st, 2nd, 3rd, 4th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{ending or 'th'}"
