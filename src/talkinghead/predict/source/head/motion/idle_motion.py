"""Motion of a face that does not speak: blinks, saccades and nods at natural times.

All values depend on the time and a seed only.
"""

from __future__ import annotations

import numpy as np

from talkinghead.predict.source.head.head_geometry import Floats, smooth_step

# One blink begins in each slot of this duration, at a random time within the given part of it.
_SLOT_S, _PART = 4.0, (0.15, 0.85)
_CLOSING_S, _CLOSED_S, _OPENING_S = 0.1, 0.04, 0.2
# One saccade begins in each slot of this duration; spread of the gaze to the right and down.
_SACCADE_SLOT_S, _SACCADE_S = 1.1, 0.04
_SACCADE_DEG = np.array([1.2, 0.7])
# One nod of a listener begins in each slot of this duration, with this probability.
_NOD_SLOT_S, _NOD_PROBABILITY = 2.6, 0.7
_NOD_S, _NOD_DEG = 0.9, (2.0, 4.5)


def blink_closure(time_s: float, seed: int) -> float:
    """Return the closure of the eyes at a given time, from 0 (open) to 1 (closed)."""
    # A blink that began in the previous slot may not have ended.
    closures = [closure_since(time_s - start_s) for start_s in _blink_starts_s(time_s, seed)]
    return max(closures)


def _blink_starts_s(time_s: float, seed: int) -> list[float]:
    slot = int(time_s // _SLOT_S)
    parts = [np.random.default_rng((seed, s)).uniform(*_PART) for s in (slot - 1, slot) if s >= 0]
    return [(slot - len(parts) + 1 + index + part) * _SLOT_S for index, part in enumerate(parts)]


def closure_since(since_s: float) -> float:
    """Return the closure of the eyes, 0 to 1, at a time after the start of a blink."""
    opening_s = since_s - _CLOSING_S - _CLOSED_S
    if since_s < 0 or opening_s > _OPENING_S:
        return 0.0
    closing = smooth_step(since_s / _CLOSING_S)
    return float(min(closing, 1 - smooth_step(opening_s / _OPENING_S)))


def saccade_deg(time_s: float, seed: int) -> Floats:
    """Return the gaze to the right and down in degrees, [2]: small jumps between fixations."""
    slot = int(time_s // _SACCADE_SLOT_S)
    before, now = (_fixation(seed, number) for number in (slot - 1, slot))
    start_s = (slot + np.random.default_rng((seed, slot, 2)).uniform(*_PART)) * _SACCADE_SLOT_S
    return np.asarray(before + smooth_step((time_s - start_s) / _SACCADE_S) * (now - before))


def _fixation(seed: int, slot: int) -> Floats:
    if slot < 0:
        return np.zeros(2)
    return _SACCADE_DEG * np.random.default_rng((seed, slot, 3)).standard_normal(2).clip(-2, 2)


def listening_nod_deg(time_s: float, seed: int) -> float:
    """Return the pitch in degrees by which a listener nods; positive is down."""
    slot = int(time_s // _NOD_SLOT_S)
    rng = np.random.default_rng((seed, slot, 4))
    start_s = (slot + rng.uniform(0, 1 - _NOD_S / _NOD_SLOT_S)) * _NOD_SLOT_S
    size_deg = rng.uniform(*_NOD_DEG)
    part = (time_s - start_s) / _NOD_S
    if rng.random() > _NOD_PROBABILITY or not 0 < part < 1:
        return 0.0
    return float(size_deg * np.sin(np.pi * part) ** 2)
