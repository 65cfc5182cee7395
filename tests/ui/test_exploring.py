"""The map as it is drawn: gaps closed, names that do not hide each other."""

from __future__ import annotations

import numpy as np

from ui import exploring


def test_islands_move_near_and_keep_their_shape_and_order() -> None:
    rng = np.random.default_rng(0)
    mainland = rng.uniform(-1, 1, (400, 2))
    island = np.array([[90.0, -70.0], [90.01, -70.0], [90.0, -70.02]])
    xy = np.vstack([mainland, island]).astype(np.float32)
    closed = exploring.without_gaps(xy)
    assert np.ptp(closed, axis=0).max() < 3
    assert np.array_equal(np.argsort(closed, axis=0, kind="stable"), np.argsort(xy, axis=0, kind="stable"))
    assert np.allclose(closed[-3:] - closed[-3], island - island[0], atol=1e-4)
    assert np.allclose(np.ptp(closed[:400], axis=0), np.ptp(mainland, axis=0), atol=1e-3)


def test_few_and_equal_points_stay() -> None:
    for xy in (np.zeros((0, 2), np.float32), np.zeros((1, 2), np.float32), np.ones((5, 2), np.float32)):
        assert np.ptp(exploring.without_gaps(xy), axis=0).tolist() == [0, 0] if len(xy) else True
        assert exploring.without_gaps(xy).shape == xy.shape


def test_names_stay_inside_and_apart() -> None:
    view = ([0.0, 7.0], [0.0, 6.0])  # 100 pixels a unit
    names = [("水" * 10, 0.0, 1.0), ("first", 3.0, 3.0), ("hidden by the first", 3.1, 3.1), ("outside", 9.0, 1.0)]
    kept = exploring.uncrowded(names, view)
    assert [text for text, _, _ in kept] == ["水" * 10, "first"]
    assert kept[0][1] == 10 * 7.5 / 2 / 100
