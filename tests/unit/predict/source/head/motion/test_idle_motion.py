from __future__ import annotations

import numpy as np
import pytest

from talkinghead.predict.source.head.motion.idle_motion import listening_nod_deg, saccade_deg

FPS = 25


def test_saccades_are_small_jumps_between_fixations():
    times_s = np.arange(0, 60, 0.01)
    gaze = np.array([saccade_deg(t, 1) for t in times_s])
    moves = np.linalg.norm(np.diff(gaze, axis=0), axis=1) > 1e-6
    assert np.abs(gaze).max(0) == pytest.approx([2.4, 1.4], abs=0.3)
    assert moves.mean() < 0.1
    starts = moves[1:] & ~moves[:-1]
    assert 45 < starts.sum() < 65
    assert not np.array_equal(saccade_deg(30.0, 1), saccade_deg(30.0, 2))


def test_gaze_begins_at_that_of_the_photo():
    assert np.array_equal(saccade_deg(0.0, 5), [0, 0])


def test_nods_are_smooth_and_irregular():
    pitch = np.array([listening_nod_deg(i / FPS, 3) for i in range(120 * FPS)])
    assert 3 < pitch.max() < 4.6
    assert pitch.min() == 0
    assert np.abs(np.diff(pitch)).max() < 0.7
    starts_s = np.flatnonzero((pitch[1:] > 0) & (pitch[:-1] == 0)) / FPS
    assert 20 < len(starts_s) < 45
    assert np.diff(starts_s).std() > 0.5
