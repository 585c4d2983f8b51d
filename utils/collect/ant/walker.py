"""The walker: a network in NumPy that has the ant walk in a given direction."""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from utils.collect.ant.directional_ant import rotate
from utils.errors import UserError
from utils.files import Column, read_arrays, write_atomically

SHIPPED = Path(__file__).with_name("expert.npz")
"""The one that comes with the package."""

_FRACTION = 2.0**16
_DECIMALS = 4
_REMEDY = "install the package anew, or train one (python -m utils.collect.ant.train --help)"

Layer = tuple[np.ndarray, np.ndarray]
"""A dense layer's kernel (inputs, outputs) and bias (outputs,)."""


class Walker:
    """Mode of a Gaussian policy with tanh, made to give one action everywhere.

    A sum of floats depends on its order, which differs between BLAS kernels and shapes. Here all
    that is added up are multiples of 2^-32 below 2^21, whose sums float64 holds exactly in any
    order: parameters, inputs and hidden activations are rounded to multiples of 2^-16. What is left
    is the last digit of tanh, which rounding hides but for one activation in about 10^10; actions
    are rounded to four decimals, a twentieth of a percent of the noise that is added to them.

    Args:
        layers: Dense layers; GELU (its tanh form) follows all but the last, tanh follows that.
        facts: What JSON can hold: how it was trained.

    Attributes:
        layers: The same, rounded, in float64.
        facts: As given.
    """

    def __init__(self, layers: Sequence[Layer], facts: Mapping[str, Any]):
        self.layers = tuple((_fixed_point(kernel), _fixed_point(bias)) for kernel, bias in layers)
        self.facts = dict(facts)

    def act(self, observations: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Return the actions that walk in the given directions.

        Args:
            observations: The ant's without its position, (..., 27), as `rotate` takes them.
            directions: Unit vectors (..., 2).

        Returns:
            Torques (..., 8) in [-1, 1].
        """
        x = _fixed_point(rotate(observations, directions))
        *hidden, (kernel, bias) = self.layers
        for hidden_kernel, hidden_bias in hidden:
            x = _fixed_point(_gelu(x @ hidden_kernel + hidden_bias))
        return np.round(np.tanh(x @ kernel + bias), _DECIMALS)

    @classmethod
    def load(cls, path: str | os.PathLike = SHIPPED) -> Self:
        """Read a walker.

        Args:
            path: A file that `save` wrote.

        Raises:
            UserError: It cannot be read, or is not what was written.
        """
        parameters = read_arrays(path, {"parameters": Column((), "f")}, _REMEDY)["parameters"]
        text = read_arrays(path, {"facts": Column((), "u")}, _REMEDY)["facts"].tobytes()
        try:
            facts = json.loads(text)
            checksum = facts.pop("checksum")
            shapes = list(zip(facts["widths"][:-1], facts["widths"][1:], strict=True))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{path} holds no walker; {_REMEDY}") from error
        if checksum != _checksum(parameters, facts):
            raise UserError(f"{path} is damaged (its checksum differs); {_REMEDY}")
        sizes = [size for inputs, outputs in shapes for size in (inputs * outputs, outputs)]
        pieces = np.split(parameters, np.cumsum(sizes)[:-1])
        kernels = [piece.reshape(shape) for piece, shape in zip(pieces[::2], shapes, strict=True)]
        return cls(list(zip(kernels, pieces[1::2], strict=True)), facts)

    def save(self, path: str | os.PathLike) -> None:
        """Write a file of plain arrays: float32 parameters, and JSON with a checksum.

        Args:
            path: The file; its folder must exist.

        Raises:
            UserError: It cannot be written.
        """
        flat = [array.ravel() for layer in self.layers for array in layer]
        parameters = np.concatenate(flat).astype(np.float32)
        widths = [len(kernel) for kernel, _ in self.layers] + [len(self.layers[-1][1])]
        facts = self.facts | {"widths": widths}
        text = json.dumps(facts | {"checksum": _checksum(parameters, facts)}, sort_keys=True)
        buffer = io.BytesIO()
        np.savez(buffer, parameters=parameters, facts=np.frombuffer(text.encode(), np.uint8))
        write_atomically(path, buffer.getvalue())


def _fixed_point(x: np.ndarray) -> np.ndarray:
    """Round to multiples of 2^-16, in float64."""
    return np.rint(np.asarray(x, np.float64) * _FRACTION) / _FRACTION


def _gelu(x: np.ndarray) -> np.ndarray:
    """Return GELU in its tanh form, arXiv 1606.08415."""
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x * x * x)))


def _checksum(parameters: np.ndarray, facts: Mapping[str, Any]) -> str:
    """Return SHA-256 of the parameters' bytes and of the facts."""
    found = hashlib.sha256(parameters.astype("<f4").tobytes())
    found.update(json.dumps(facts, sort_keys=True).encode())
    return found.hexdigest()
