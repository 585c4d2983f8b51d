"""What is said about metrics: how they are drawn."""

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Panel:
    """One plot: where its numbers stand and how they are drawn.

    Attributes:
        title: The heading.
        file: Name of the CSV file in the run folder.
        key: The column, by its exact name.
        scale: Axis of the values; values without a logarithm are left out of a logarithmic one.
        reference: Value marked by a line, if any.
        factor: Multiplies the values.
        bounds: The least and the greatest value possible, after `factor`.
    """

    title: str
    file: str
    key: str
    scale: Literal["linear", "log"] = "linear"
    reference: float | None = None
    factor: float = 1.0
    bounds: tuple[float, float] = (-np.inf, np.inf)
