"""Curves along the lids of an eye."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from talkinghead.predict.source.head.eyelids import _curve


@pytest.mark.parametrize("num_points", [4, 9])
def test_curve_is_that_of_scipy(num_points):
    rng = np.random.default_rng(num_points)
    for number in range(60):
        x, y = np.cumsum(rng.uniform(0.1, 3, num_points)), rng.normal(0, 2, num_points)
        y = np.cumsum(np.abs(y)) if number % 2 else y
        at = rng.uniform(x[0], x[-1], 30)
        found = _curve(np.stack([x, y]), at)
        assert np.allclose(found, PchipInterpolator(x, y)(at), atol=1e-9)
