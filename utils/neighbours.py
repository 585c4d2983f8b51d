"""Nearest rows of a large array, exact, with the distances in blocks on the device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

_QUERIES = 512
"""Queries at once; more cost memory and gain no time."""

_BLOCK = 4096
"""Rows of one product of matrices, whose result stays in a processor's cache."""

_GROUP = 128
"""Rows of which the product keeps the nearest alone."""

_MORE_GROUPS = 4
"""Groups that are looked into beyond the number of rows wanted."""

_REFINED = 64
"""Queries whose candidates are gathered at once."""


def normalized(observations: np.ndarray) -> np.ndarray:
    """Return observations (n, o) with mean 0 and deviation 1 per dimension, float32.

    A dimension that does not vary is 0.
    """
    mean = observations.mean(axis=0, dtype=np.float64)
    deviation = observations.std(axis=0, dtype=np.float64)
    varies = deviation > 1e-6 * np.maximum(1.0, np.abs(mean))  # beyond float32's rounding
    scaled = (observations - mean) / np.where(varies, deviation, 1.0)
    return np.where(varies, scaled, 0.0).astype(np.float32)


def nearest_rows(
    points: np.ndarray, rows: np.ndarray, k: int, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest rows of some rows, in Euclidean distance.

    Exact: what a product of matrices in float32 finds on the device is only a choice of candidates.
    Rows are in groups, and the k nearest lie in those k groups that have the nearest rows. The
    distances of all rows of a few more groups are computed from differences in float64. Where the
    nearest row of the next group is within the product's rounding error of the k-th, all
    rows are compared so.

    Args:
        points: Finite float32, (n, d).
        rows: Which of them are asked about, (q,).
        k: Number of neighbours.
        labels: Integers, (n,). Rows with the label of the one asked about are no neighbours of it.
            By default no row is a neighbour of itself.

    Returns:
        Rows (q, k) and their distances (q, k), the nearest first, of equal ones the first.

    Raises:
        ValueError: A row has fewer than k others.
    """
    labels = np.arange(len(points)) if labels is None else labels
    labels = labels.astype(np.int32)
    _, counts = np.unique(labels, return_counts=True)
    if len(points) - counts.max() < k:
        raise ValueError(f"{len(points)} rows are too few for {k} neighbours")
    blocks, norms, block_labels = _blocks(points, labels)
    groups = min(k + _MORE_GROUPS, blocks.shape[0] * _BLOCK // _GROUP - 1)
    found, distances = np.empty((len(rows), k), np.int64), np.empty((len(rows), k))
    for start in range(0, len(rows), _QUERIES):
        chosen = rows[start : start + _QUERIES]
        padded = np.resize(chosen, _QUERIES)  # one shape, one program
        nearest, minima = _nearest_groups(
            blocks, norms, block_labels, points[padded], labels[padded], groups + 1
        )
        nearest, minima = np.asarray(nearest), np.asarray(minima, np.float64)
        for first in range(0, len(chosen), _REFINED):
            part = slice(first, min(first + _REFINED, len(chosen)))
            into = slice(start + part.start, start + part.stop)
            found[into], distances[into] = _refine(
                points, labels, chosen[part], k, nearest[part, :-1], minima[part, -1]
            )
    return found, distances


def _blocks(points: np.ndarray, labels: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return points, their squared norms and labels in blocks, on the device.

    Rows that fill up the last block are infinitely far away.
    """
    missing = -len(points) % _BLOCK
    squared = np.square(points, dtype=np.float64).sum(axis=1).astype(np.float32)
    return (
        jnp.asarray(np.pad(points, ((0, missing), (0, 0))).reshape(-1, _BLOCK, points.shape[1])),
        jnp.asarray(np.pad(squared, (0, missing), constant_values=np.inf).reshape(-1, _BLOCK)),
        jnp.asarray(np.pad(labels, (0, missing)).reshape(-1, _BLOCK)),
    )


@functools.partial(jax.jit, static_argnames="number")
def _nearest_groups(
    blocks: jax.Array,
    norms: jax.Array,
    block_labels: jax.Array,
    queries: jax.Array,
    query_labels: jax.Array,
    number: int,
) -> tuple[jax.Array, jax.Array]:
    """Return the groups with the nearest rows, (q, number), and the squared distances of these.

    The nearest first; distances are those of the product of matrices.
    """

    def nearest_in_groups(block: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        points, squared, labels = block
        products = jnp.dot(queries, points.T, precision="highest")
        distances = jnp.where(query_labels[:, None] == labels, jnp.inf, squared - 2.0 * products)
        return distances.reshape(len(queries), -1, _GROUP).min(axis=-1)

    minima = jax.lax.map(nearest_in_groups, (blocks, norms, block_labels))
    minima = jnp.moveaxis(minima, 0, 1).reshape(len(queries), -1)
    negative, groups = jax.lax.top_k(-minima, number)
    return groups, jnp.square(queries).sum(axis=-1, keepdims=True) - negative


def _refine(
    points: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    k: int,
    groups: np.ndarray,
    beyond: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return neighbours (q, k) and distances from groups of candidates.

    Args:
        points: All rows, (n, d).
        labels: Their labels, (n,).
        rows: Those asked about, (q,).
        k: Number of neighbours.
        groups: Where the candidates are, (q, groups).
        beyond: Squared distance of the nearest row outside of them, up to rounding, (q,).
    """
    candidates = (groups[..., None] * _GROUP + np.arange(_GROUP)).reshape(len(rows), -1)
    found, squared = _closest(points, labels, rows, k, candidates)
    # A row outside that is as near as the k-th has at most this norm. Its product of d terms and
    # the sums are off by d + 3 roundings of the norms' square at most; twice that is assumed.
    norm = 2.0 * np.linalg.norm(points[rows].astype(np.float64), axis=1) + np.sqrt(squared[:, -1])
    rounding = (points.shape[1] + 3) * np.finfo(np.float32).eps * norm**2
    for i in np.flatnonzero(~(squared[:, -1] + rounding < beyond)):
        everything = np.arange(len(points))[None]
        one = slice(i, i + 1)
        found[one], squared[one] = _closest(points, labels, rows[one], k, everything)
    return found, np.sqrt(squared)


def _closest(
    points: np.ndarray, labels: np.ndarray, rows: np.ndarray, k: int, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k closest of candidates (q, c), and their squared distances (q, k)."""
    candidates = np.sort(candidates, axis=1)
    inside = np.minimum(candidates, len(points) - 1)
    differences = points[inside].astype(np.float64) - points[rows, None]
    squared = np.einsum("qcd,qcd->qc", differences, differences)
    squared[(candidates >= len(points)) | (labels[inside] == labels[rows, None])] = np.inf
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(candidates, order, 1), np.take_along_axis(squared, order, 1)
