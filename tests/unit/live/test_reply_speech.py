"""Speech of replies."""

from fractions import Fraction

import numpy as np
import torch

from talkinghead.live.reply_speech import PredictedMotion
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior, LipPriorStream
from talkinghead.types import AVSpec


class LoudnessPrior(LipPrior):
    """A lip prior whose motion and weights are the mean level of the block."""

    past_s, block_s, ahead_s = Fraction(1, 5), Fraction(1, 5), Fraction(1, 5)
    sample_rate, fps, blend_weight = 16_000, Fraction(25), 0.5

    def predict_motion(self, windows, first_frame):
        weights = self.speech_weights(windows)[..., None, None]
        return weights * np.ones((20, 2), np.float32)

    def speech_weights(self, windows):
        return np.repeat(np.abs(windows[:, 3200:6400]).mean(1, keepdims=True), 5, 1)


def test_prepared_reply_has_the_motion_and_weights_of_its_prior():
    prior, spec = LoudnessPrior(), AVSpec()
    predicted = PredictedMotion(prior)
    prepared, own, played = (LipPriorStream(p, spec) for p in (prior, prior, predicted))
    chunks = np.random.default_rng(0).random((8, 5000)).astype(np.float32) ** np.arange(8)[:, None]
    for chunk in chunks:
        prepared.push(chunk)
        predicted.add(prepared)
        own.push(chunk)
        played.push(chunk)
    assert own.num_frames == played.num_frames >= 50
    assert torch.equal(own.at(0, 50), played.at(0, 50))
    weights = own.speech_weights_at(0, 50)
    assert weights.min() < 0.3
    assert torch.equal(weights, played.speech_weights_at(0, 50))
