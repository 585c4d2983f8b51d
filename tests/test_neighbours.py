"""Nearest rows, against a k-d tree and on data where rounding would mislead."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from utils.neighbours import nearest_rows, normalized


def by_tree(points, rows, k):
    """Distances (q, k) of the nearest other rows, which must all be different points."""
    distances, found = cKDTree(points.astype(np.float64)).query(points[rows], k + 1)
    assert np.array_equal(found[:, 0], rows)
    return found[:, 1:], distances[:, 1:]


@pytest.mark.parametrize(("size", "dimensions"), [(700, 2), (9000, 12)])
def test_the_nearest_rows_are_those_of_a_tree(size, dimensions):
    points = np.random.default_rng(0).normal(size=(size, dimensions)).astype(np.float32)
    rows = np.arange(0, size, 13)
    found, distances = nearest_rows(points, rows, 5)
    expected, expected_distances = by_tree(points, rows, 5)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-12)


def test_rounding_far_from_the_origin_does_not_show():
    """Squared norms of 1e8 leave float32's products nothing of distances below 1."""
    rng = np.random.default_rng(1)
    points = np.unique((1e4 + rng.uniform(0, 30, (6000, 2))).astype(np.float32), axis=0)
    rng.shuffle(points)
    rows = np.arange(40)
    found, distances = nearest_rows(points, rows, 3)
    _, expected = by_tree(points, rows, 3)
    np.testing.assert_allclose(distances, expected, rtol=1e-12)
    assert not np.any(found == rows[:, None])


def test_equal_rows_come_in_their_order():
    points = np.zeros((5000, 3), np.float32)
    found, distances = nearest_rows(points, np.array([0, 2, 4999]), 3)
    assert found.tolist() == [[1, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert not distances.any()


def test_rows_of_the_same_label_are_no_neighbours():
    points = np.arange(600, dtype=np.float32)[:, None]
    labels = np.arange(600) // 10
    found, distances = nearest_rows(points, np.array([0, 15, 599]), 2, labels)
    assert found.tolist() == [[10, 11], [20, 9], [589, 588]]
    assert distances.tolist() == [[10, 11], [5, 6], [10, 11]]


def test_too_few_rows_are_refused():
    points = np.arange(6, dtype=np.float32)[:, None]
    assert nearest_rows(points, np.array([0]), 5)[0].tolist() == [[1, 2, 3, 4, 5]]
    with pytest.raises(ValueError, match="too few for 6 neighbours"):
        nearest_rows(points, np.array([0]), 6)
    with pytest.raises(ValueError, match="too few for 4 neighbours"):
        nearest_rows(points, np.array([0]), 4, np.array([0, 0, 0, 1, 2, 3]))


def test_dimensions_are_brought_to_one_scale():
    rng = np.random.default_rng(2)
    observations = rng.normal([5.0, -300.0, 0.0, 1.7], [2.0, 50.0, 1e-3, 0.0], (4000, 4))
    scaled = normalized(observations.astype(np.float32))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(0), 0.0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(0), [1, 1, 1, 0], atol=1e-4)
