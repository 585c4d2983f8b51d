"""Planes in the space of actions, in which a landscape is drawn."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class ActionPlane:
    """A plane through a point of the space of actions.

    Attributes:
        origin: The point, (a,).
        axes: Two orthonormal directions, (2, a).
        names: What the axes are called.
    """

    origin: np.ndarray
    axes: np.ndarray
    names: tuple[str, str]

    def project(self, actions: np.ndarray) -> np.ndarray:
        """Return coordinates (..., 2) of the points of the plane nearest to actions (..., a)."""
        return (actions - self.origin) @ self.axes.T

    def lift(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the actions (..., a) at coordinates (..., 2)."""
        return self.origin + coordinates @ self.axes

    def held(self, vectors: np.ndarray) -> float:
        """Return the share of the square length of vectors (n, a) that lies in the plane."""
        total = np.sum(vectors**2)
        return float(np.sum((vectors @ self.axes.T) ** 2) / total) if total > 0 else 1.0


def principal_plane(vectors: np.ndarray, origin: np.ndarray) -> ActionPlane:
    """Return the plane of the two directions in which vectors (n, a) are longest.

    Of vectors about their mean they are the principal components. The component of each direction
    that is greatest in size is positive, so that equal vectors give equal planes.
    """
    squares, directions = np.linalg.eigh(vectors.T @ vectors)  # ascending
    axes = directions.T[:-3:-1]
    greatest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    total = squares.sum()
    shares = squares[:-3:-1] / total if total > 0 else np.zeros(2)
    names = tuple(f"component {i + 1} ({share:.0%})" for i, share in enumerate(shares))
    return ActionPlane(origin, axes * np.where(greatest < 0, -1.0, 1.0), names)


def coordinate_plane(i: int, j: int, origin: np.ndarray) -> ActionPlane:
    """Return the plane of two action dimensions, whose coordinates are the actions' own."""
    axes = np.zeros((2, len(origin)))
    axes[[0, 1], [i, j]] = 1.0
    return ActionPlane(origin * (axes.sum(axis=0) == 0), axes, (f"action {i}", f"action {j}"))
