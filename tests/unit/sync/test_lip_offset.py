"""The offset from predicted and detected lip motion."""

import numpy as np
import pytest

from talkinghead.errors import UsageError
from talkinghead.sync.lip_offset import LipOffsetRules, measure_lip_offset


def lip_motions(offset, num_frames=150, seed=0, noise=0.3):
    """Return predicted and detected motion [T, 20, 2]; the audio is `offset` frames late."""
    rng = np.random.default_rng(seed)
    times = np.arange(num_frames)[:, None]
    waves, phases = rng.uniform(0.2, 0.9, 6), rng.uniform(0, 6, 6)
    shape = rng.normal(size=(6, 40))
    predicted = np.sin(times * waves + phases) @ shape
    detected = np.sin((times + offset) * waves + phases) @ shape
    detected += noise * detected.std() * rng.normal(size=detected.shape)
    return tuple(x.reshape(-1, 20, 2).astype(np.float32) for x in (predicted, detected))


@pytest.mark.parametrize("offset", [0.0, 2.5, -4.0])
def test_offset_is_measured_with_fractions_of_a_frame(offset):
    measured = measure_lip_offset([lip_motions(offset)], 8)
    assert measured.frames == pytest.approx(offset, abs=0.2)
    assert measured.correlation > 0.8
    assert measured.is_reliable(LipOffsetRules())


def test_short_clips_of_a_source_are_measured_together():
    clips = [lip_motions(2.0, num_frames=24, seed=seed, noise=2.0) for seed in range(12)]
    pooled = measure_lip_offset(clips, 8)
    assert pooled.frames == pytest.approx(2.0, abs=0.4)
    assert not measure_lip_offset(clips[:1], 8).is_reliable(LipOffsetRules())
    assert pooled.is_reliable(LipOffsetRules())


def test_unrelated_motion_has_no_reliable_offset():
    predicted, _ = lip_motions(0.0, seed=1)
    _, detected = lip_motions(0.0, seed=2)
    assert not measure_lip_offset([(predicted, detected)], 8).is_reliable(LipOffsetRules())


def test_unknown_lips_are_left_out():
    predicted, detected = lip_motions(3.0)
    detected[40:60] = np.nan
    assert measure_lip_offset([(predicted, detected)], 8).frames == pytest.approx(3.0, abs=0.2)
    unknown = measure_lip_offset([(predicted, np.full_like(detected, np.nan))], 8)
    assert np.isnan(unknown.frames)
    assert not unknown.is_reliable(LipOffsetRules())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"max_offset_frames": 0}, "at least 1"), ({"undetermined": "ask"}, "keep or drop")],
)
def test_invalid_rules_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        LipOffsetRules(**options)
