"""Constraints on the lips by known phonemes: closed, lower lip at the teeth, or rounded.

Paper: Cohen and Massaro, "Modeling Coarticulation in Synthetic Visual Speech", in Models and
Techniques in Computer Animation, 1993, for the dominance functions.

Shape suffixes: N frames, V visemes, P = 20 lip points in ibug68's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from talkinghead.models.lipsync.lip_warp import GAP_OF_POINT, GAP_QUARTERS
from talkinghead.predict.audio.phonemes import Phoneme
from talkinghead.types import FloatArray

# Phonemes with closed lips, and the fraction of the phoneme before the lips open: the rest of a
# stop is the burst.
_CLOSED = {"p": 0.6, "b": 0.8, "ɓ": 0.8, "m": 1.0}
_TEETH = frozenset("fvɱ\u028b")
_ROUNDED = {
    **dict.fromkeys("wuʊʉyʍɥ", 1.0),
    **dict.fromkeys("oø\u028fɵ", 0.8),
    **dict.fromkeys("ɔœɒʃʒ", 0.5),
}

# Target displacement of the lower inner lip relative to the upper one, in canonical pixels, of
# closed and of labiodental lips. It is negative because the decoder leaves the lips of some faces
# slightly open at 0.
_CLOSED_GAP, _TEETH_GAP = -5.0, -0.5
# Rise in canonical pixels of the lower and the upper lip when the lower lip touches the teeth.
_TEETH_RISE = 1.5
# Largest change of the mouth's width, and largest gap, of rounded lips at articulation 1. The gap
# is inversely proportional to the square of the dominance, as o is more open than u.
_ROUNDED_WIDTH, _ROUNDED_GAP = -5.0, 2.5
# Indices of the lip points of each side, and of the right, middle and left gap of the inner lips.
_UPPER_INNER, _LOWER_INNER = (13, 14, 15), (19, 18, 17)
PARTED = tuple(-quarters / 4 for quarters in GAP_QUARTERS)
"""Fraction of a gap between the lips by which each lip point moves when the lips open.

The lower lip moves more, because the jaw moves with it.
"""

_RISING = (0, 0.5, 1, 1, 1, 0.5, 0, 0.5, 1, 1, 1, 0.5, 0, 1, 1, 1, 0, 1, 1, 1)
ACROSS = (
    *(-0.5, -0.36, -0.16, 0, 0.16, 0.36, 0.5, 0.36, 0.16, 0, -0.16, -0.36),
    *(-0.42, -0.16, 0, 0.16, 0.42, 0.16, 0, -0.16),
)
"""Position of each lip point between the corners of the mouth, -0.5 to 0.5."""


@dataclass(frozen=True)
class _Timing:
    """Times of a dominance function in seconds: rise, fall, shortest duration of its maximum."""

    attack_s: float
    release_s: float
    hold_s: float = 0.04


# A token needs at least 0.125 s of speech after its middle (half an audio window), so the phonemes
# that begin in this time are known, and a stream gives the same frames as the whole speech.
_TIMINGS = (_Timing(0.08, 0.07), _Timing(0.08, 0.07), _Timing(0.12, 0.1, 0.0))
MAX_REACH_S = 0.25
"""Maximum distance in seconds from a frame to a phoneme that has an effect on it."""


def viseme_weights(
    phonemes: Sequence[Phoneme], times_s: Sequence[float], frame_s: float = 0.04
) -> FloatArray:
    """Return the dominance of the closed, labiodental and rounded shape, float32 [N, 3] in [0, 1].

    Each dominance rises and falls smoothly around its phonemes and is 1 during the phoneme, for at
    least the duration of a frame, so that every closure is visible.

    Args:
        phonemes: phonemes in any order.
        times_s: times of the frames' middles [N].
        frame_s: duration of a frame.
    """
    weights = np.zeros((len(times_s), len(_TIMINGS)), np.float32)
    middles = np.asarray(times_s, np.float64)
    for phoneme in phonemes:
        for viseme, strength in enumerate(_strengths(phoneme.symbol)):
            if strength:
                timing = _TIMINGS[viseme]
                hold_s = max(timing.hold_s, frame_s) if timing.hold_s else 0.0
                value = strength * _dominance(phoneme, middles, timing, hold_s)
                weights[:, viseme] = np.maximum(weights[:, viseme], value)
    return weights


def constrain_lips(lips: Tensor, weights: Tensor, articulation: float = 1.0) -> Tensor:
    """Return the lip motion [N, 20, 2] with the constraints of `viseme_weights` [N, 3].

    Closed lips are the same at any articulation; the shape of rounded lips scales with it. A mouth
    that is already more closed, or narrower, is unchanged.

    Args:
        lips: displacement of closed lips in canonical pixels, float [N, 20, 2].
        weights: dominance of each viseme, float [N, 3].
        articulation: scale of the lip motion.
    """
    closed, teeth, rounded = weights.to(lips).unbind(1)
    constrained = lips.clone()
    total = (closed + teeth).clamp_min(1e-6)
    target = (closed * _CLOSED_GAP + teeth * _TEETH_GAP) / total
    gaps = lips[:, _LOWER_INNER, 1] - lips[:, _UPPER_INNER, 1]
    limit = _ROUNDED_GAP * articulation / rounded.clamp_min(1e-3) ** 2
    limited = torch.minimum(gaps, limit[:, None])
    excess = (limited - target[:, None]).clamp_min(0) * torch.maximum(closed, teeth)[:, None]
    narrowed = gaps - limited + excess
    constrained[..., 1] -= narrowed[:, GAP_OF_POINT] * lips.new_tensor(PARTED)
    # The labiodental shape shows the edge of the upper teeth, except where the lips are closed.
    rise = _TEETH_RISE * teeth * (1 - closed)
    constrained[..., 1] -= rise[:, None] * lips.new_tensor(_RISING)
    width = lips[:, 6, 0] - lips[:, 0, 0]
    narrower = (_ROUNDED_WIDTH * articulation - width).clamp_max(0) * rounded
    constrained[..., 0] += narrower[:, None] * lips.new_tensor(ACROSS)
    return constrained


def _strengths(symbol: str) -> tuple[float, float, float]:
    """Return the maxima of the three dominances; the first letter determines them."""
    letter = symbol[:1]
    return float(letter in _CLOSED), float(letter in _TEETH), _ROUNDED.get(letter, 0.0)


def _dominance(phoneme: Phoneme, times_s: np.ndarray, timing: _Timing, hold_s: float) -> np.ndarray:
    """Return a function of time that is 1 in the phoneme and falls to 0 with raised cosines."""
    held = _CLOSED.get(phoneme.symbol[:1], 1.0)
    release_s = phoneme.start_s + held * (phoneme.end_s - phoneme.start_s)
    middle_s = (phoneme.start_s + release_s) / 2
    start_s = min(phoneme.start_s, middle_s - hold_s / 2)
    end_s = max(release_s, middle_s + hold_s / 2)
    before = np.clip((start_s - times_s) / timing.attack_s, 0, 1)
    after = np.clip((times_s - end_s) / timing.release_s, 0, 1)
    return (1 + np.cos(np.pi * np.maximum(before, after))) / 2
