"""Streams of lip motion: independence of chunks, unknown motion, priors without audio."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.lip_priors import LoudnessLipPrior
from helpers.small_predictor import speech

from talkinghead.predict.audio.lip_priors.lip_prior import LipPriorStream, predict_lip_motion
from talkinghead.types import AVSpec

SPEC = AVSpec()
SAMPLES = speech(3.13).samples


class Curve:
    """A lip prior without audio that returns the index of each frame as the motion."""

    past_s, block_s, ahead_s = Fraction(0), Fraction(2, 5), Fraction(0)
    sample_rate, fps, blend_weight = 16_000, Fraction(25), 1.0

    def predict_motion(self, windows, first_frame):
        frames = np.arange(first_frame, first_frame + 10 * len(windows), dtype=np.float32)
        return np.broadcast_to(frames.reshape(-1, 10, 1, 1), (len(windows), 10, 20, 2)).copy()


@pytest.mark.parametrize("chunk", [333, 16_000, 10**6])
def test_chunk_size_does_not_change_lip_motion(chunk):
    streams = [LipPriorStream(prior, SPEC) for prior in (LoudnessLipPrior(), Curve())]
    for stream in streams:
        for part in np.split(SAMPLES, range(chunk, len(SAMPLES), chunk)):
            stream.push(part)
        stream.finish()
    lips, curve = (stream.at(0, stream.num_frames) for stream in streams)
    assert torch.equal(
        lips, torch.from_numpy(predict_lip_motion(LoudnessLipPrior(), SAMPLES, SPEC))
    )
    assert len(lips) == 80  # 3.13 s are rounded up to eight blocks.
    level = np.abs(np.pad(SAMPLES, (0, 80 * 640 - len(SAMPLES)))).reshape(80, 640).mean(1)
    assert np.corrcoef(lips[:, 0, 0], level)[0, 1] > 0.99
    assert curve[:, 3, 1].tolist() == list(range(80))


def test_motion_is_nan_without_enough_speech():
    stream = LipPriorStream(LoudnessLipPrior(), SPEC)
    stream.push(SAMPLES[: stream.samples_for(9) - 1])
    assert stream.num_frames == 0
    stream.push(SAMPLES[stream.samples_for(9) - 1 : stream.samples_for(9)])
    assert stream.num_frames == 10
    lips = stream.at(-2, 12)
    assert lips.isfinite().all(-1).all(-1).tolist() == [False] * 2 + [True] * 10 + [False] * 2
