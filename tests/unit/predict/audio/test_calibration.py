"""Calibration on a clip: alignment, style, adaptation of the map, and unusable speech."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.media_files import write_wav

from talkinghead.errors import MediaError
from talkinghead.predict.audio.calibration import (
    SpokenClip,
    adapt_map,
    align_clip,
    clip_scores,
    estimate_style,
    opening_of,
    read_spoken_clip,
)
from talkinghead.predict.audio.speaker_style import SpeakerStyle
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.types import AudioClip, AVSpec

SPEC = AVSpec()
IMAGE = np.zeros((4, 4, 3), np.uint8)
REFERENCE = Reference(IMAGE, np.eye(2, 3, dtype=np.float32), np.zeros((20, 2), np.float32))


def smooth_series(num_frames, seed):
    noise = np.random.default_rng(seed).normal(size=num_frames + 4)
    return np.convolve(noise, np.ones(5) / 2, "valid").astype(np.float32)


def lips_with(opening, width=None, upper_share=0.2):
    """Return lips [T, 20, 2] whose opening and width [T] vary around a mouth of 40 x 10 pixels."""
    lips = np.zeros((len(opening), 20, 2), np.float32)
    x = np.array([-20, -13, -7, 0, 7, 13, 20, 13, 7, 0, -7, -13, -17, -7, 0, 7, 17, 7, 0, -7])
    lips[:, :, 0] = 128 + x
    lips[:, :, 1] = 180
    lips[:, [2, 3, 4, 13, 14, 15], 1] -= upper_share * (10 + opening[:, None])
    lips[:, [8, 9, 10, 17, 18, 19], 1] += (1 - upper_share) * (10 + opening[:, None])
    if width is not None:
        lips[..., 0] += x / 40 * width[:, None]
    return lips


def noise(num_frames, level=0.1):
    samples = level * np.random.default_rng(0).standard_normal(num_frames * 640)
    return samples.astype(np.float32)


def make_clip(lips, samples=None):
    samples = noise(len(lips)) if samples is None else samples
    return SpokenClip("me.mp4", samples, lips, REFERENCE, SPEC)


def centred(lips):
    return lips - lips.mean(0)


OPENING = smooth_series(250, 1)
PREDICTED = centred(lips_with(OPENING, smooth_series(250, 2)))


def test_late_audio_is_measured_and_corrected():
    lips = lips_with(np.roll(OPENING, -3))  # The lips are three frames ahead of the audio.
    aligned = align_clip(make_clip(lips), PREDICTED)
    assert aligned.offset.frames == pytest.approx(3, abs=0.3)
    assert clip_scores(aligned, PREDICTED)["r"] > 0.99
    assert np.isnan(aligned.motion[:3]).all()


def test_style_gives_the_prediction_the_spread_of_the_speaker():
    width = smooth_series(250, 2)
    lips = lips_with(1.5 * OPENING, 0.5 * width, upper_share=0.4)
    aligned = replace(align_clip(make_clip(lips), PREDICTED), fps=0.25)  # As if 17 min long.
    style = estimate_style(aligned, PREDICTED)
    assert style.opening == pytest.approx(1.5, rel=0.02)
    assert style.width == pytest.approx(0.5, rel=0.02)
    assert style.upper_lip == pytest.approx(0.2, abs=0.02)
    styled = style.apply(torch.from_numpy(PREDICTED), torch.zeros(20, 2)).numpy()
    assert clip_scores(aligned, styled)["spread"] == pytest.approx(1, abs=0.02)
    assert clip_scores(aligned, styled)["shape_error_px"] < 0.1


def test_style_of_little_speech_is_closer_to_neutral():
    aligned = align_clip(make_clip(lips_with(0.5 * OPENING)), PREDICTED)
    part = aligned.only(np.arange(250) < 75)
    assert part.speech_s == 3
    much = estimate_style(replace(part, fps=0.25), PREDICTED).opening
    assert estimate_style(part, PREDICTED).opening == pytest.approx(much**0.5, rel=0.01)


def test_factors_of_faulty_lips_are_limited():
    aligned = align_clip(make_clip(lips_with(50 * OPENING)), PREDICTED)
    assert estimate_style(aligned, PREDICTED).opening == 1.6


def test_only_restricts_the_clip_to_frames():
    aligned = align_clip(make_clip(lips_with(OPENING)), PREDICTED)
    part = aligned.only(np.arange(250) < 100)
    assert part.is_known.sum() == 100
    assert part.speech_s == 4


def map_data(num_frames, share):
    """Return inputs, predicted motion and detected lips; `share` of the motion is not predicted."""
    inputs = np.random.default_rng(3).normal(size=(num_frames, 30)).astype(np.float32)
    known, unknown = smooth_series(num_frames, 4), smooth_series(num_frames, 5)
    inputs[:, 0], inputs[:, 1] = known, unknown
    lips = lips_with((1 - share) * known + share * unknown)
    return inputs, centred(lips_with(known)), lips


def test_map_is_fitted_to_the_motion_that_the_prediction_lacks():
    inputs, predicted, lips = map_data(400, 0.5)
    aligned = align_clip(make_clip(lips), predicted)
    change = adapt_map(aligned.only(np.arange(400) < 300), inputs, predicted)
    difference = torch.from_numpy(inputs) @ change.weight + change.bias
    adapted = predicted + difference.numpy().reshape(-1, 20, 2)
    held_out = aligned.only(np.arange(400) >= 300)
    before, after = (clip_scores(held_out, motion) for motion in (predicted, adapted))
    assert after["r"] > before["r"] + 0.1
    # The style scales the motion, so the adapted map must not change the spread of the prediction.
    assert opening_of(adapted).std() == pytest.approx(opening_of(predicted).std(), rel=0.2)


@pytest.mark.parametrize(("num_frames", "share"), [(120, 0.5), (400, 0.0)], ids=["short", "known"])
def test_map_is_kept_without_enough_speech_or_gain(num_frames, share):
    inputs, predicted, lips = map_data(num_frames, share)
    aligned = align_clip(make_clip(lips), predicted)
    assert adapt_map(aligned, inputs, predicted) is None


def test_other_audio_is_refused():
    lips = lips_with(smooth_series(250, 9))
    with pytest.raises(MediaError, match=r"do not follow the audio.*music"):
        align_clip(make_clip(lips), PREDICTED)


def test_silence_is_refused():
    samples = noise(250, level=1e-4)
    with pytest.raises(MediaError, match=r"0\.0 s of speech"):
        align_clip(make_clip(lips_with(OPENING), samples), PREDICTED)


def source_frames(lips, fps=25, black=()):
    for number, points in enumerate(lips):
        time_s = Fraction(number, fps)
        found = number not in black
        yield SourceFrame(
            IMAGE,
            time_s,
            Fraction(1, fps),
            transform=REFERENCE.transform if found else None,
            reference=REFERENCE if found else None,
            lips=points if found else None,
            strength=1.0 if found else 0.0,
            file_time_s=time_s,
        )


def write_speech(path, duration_s):
    write_wav(path, AudioClip(noise(round(duration_s * 25)), 16_000))
    return path


def test_lips_are_interpolated_to_the_grid_and_unknown_in_gaps(tmp_path):
    opening = np.linspace(0, 10, 150).astype(np.float32)  # 5 s at 30 frames/s.
    path = write_speech(tmp_path / "me.wav", 5)
    frames = source_frames(lips_with(opening), fps=30, black=range(60, 90))
    clip = read_spoken_clip(path, frames, SPEC, max_s=60)
    assert clip.lips.shape == (125, 20, 2)
    assert np.isnan(clip.lips[52:73]).all()
    known = np.isfinite(clip.lips[:, 0, 0])
    middle_s = (np.arange(125) + 0.5) / 25
    expected = np.interp(middle_s, (np.arange(150) + 0.5) / 30, opening)
    assert np.allclose(opening_of(clip.lips)[known], 10 + expected[known], atol=1e-3)


def test_only_the_first_seconds_are_read(tmp_path):
    path = write_speech(tmp_path / "me.wav", 5)
    clip = read_spoken_clip(path, source_frames(lips_with(OPENING)), SPEC, max_s=3)
    assert len(clip.samples) == 3 * 16_000
    assert len(clip.lips) == 75


def test_invisible_face_is_refused(tmp_path):
    path = write_speech(tmp_path / "me.wav", 5)
    frames = source_frames(lips_with(OPENING), black=range(250))
    with pytest.raises(MediaError, match="visible in 0 frames"):
        read_spoken_clip(path, frames, SPEC, max_s=60)


def test_style_of_a_clip_without_change_is_nearly_neutral():
    aligned = align_clip(make_clip(lips_with(OPENING, smooth_series(250, 2))), PREDICTED)
    style = estimate_style(aligned, PREDICTED)
    assert (style.opening, style.width) == pytest.approx((1, 1), abs=0.01)
    assert style.upper_lip == pytest.approx(SpeakerStyle().upper_lip, abs=0.01)
