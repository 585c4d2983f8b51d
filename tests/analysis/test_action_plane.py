"""Planes in the space of actions."""

import numpy as np
import pytest

from utils.analysis.action_plane import coordinate_plane, principal_plane


def test_the_principal_plane_has_the_directions_of_greatest_variance():
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    vectors = rng.normal(size=(20000, 6)) * [3.0, 0.1, 2.0, 0.1, 0.1, 0.1] @ rotation.T
    plane = principal_plane(vectors, np.zeros(6))
    cosines = np.abs(plane.axes @ rotation[:, [0, 2]])
    np.testing.assert_allclose(cosines, np.eye(2), atol=0.03)
    assert plane.names == ("component 1 (68%)", "component 2 (31%)")
    assert plane.held(vectors) == pytest.approx(1 - 0.04 / 13.04, abs=1e-3)
    np.testing.assert_array_equal(principal_plane(-vectors, np.zeros(6)).axes, plane.axes)


def test_points_of_the_plane_come_back():
    rng = np.random.default_rng(1)
    origin = rng.normal(size=24)
    plane = principal_plane(rng.normal(size=(30, 24)), origin)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
    coordinates = rng.normal(size=(5, 3, 2))
    lifted = plane.lift(coordinates)
    assert lifted.shape == (5, 3, 24)
    np.testing.assert_allclose(plane.project(lifted), coordinates)
    np.testing.assert_allclose(plane.project(origin), 0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_few_or_equal_vectors_have_a_plane_too(size):
    """One vector is a line, and none that is not zero nothing: any second direction will do."""
    plane = principal_plane(np.eye(4)[:1].repeat(size, 0), np.zeros(4))
    np.testing.assert_allclose(np.abs(plane.axes[0]), [1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(plane.axes @ plane.axes.T, np.eye(2), atol=1e-12)
    still = principal_plane(np.zeros((size, 4)), np.ones(4))
    np.testing.assert_allclose(still.axes @ still.axes.T, np.eye(2), atol=1e-12)
    assert still.names[0] == "component 1 (0%)"
    assert still.held(np.zeros((size, 4))) == 1.0


def test_a_plane_of_two_dimensions_has_their_own_coordinates():
    origin = np.array([0.5, -0.25, 0.1])
    plane = coordinate_plane(2, 0, origin)
    assert plane.project(np.array([0.3, 0.9, -0.7])).tolist() == [-0.7, 0.3]
    assert plane.lift(np.array([0.2, 0.4])).tolist() == [0.4, -0.25, 0.2]
    assert plane.names == ("action 2", "action 0")
