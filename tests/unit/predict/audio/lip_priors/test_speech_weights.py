"""Weights of speech, music and noise."""

from fractions import Fraction

import numpy as np
import pytest

from talkinghead.media.audio_decoding import read_audio
from talkinghead.paths import DEMO_SPEECH
from talkinghead.predict.audio.lip_priors.distilled_prior import DistilledLipPrior
from talkinghead.predict.audio.lip_priors.lip_prior import predict_lip_motion
from talkinghead.predict.audio.lip_priors.speech_weights import SpeechWeights
from talkinghead.runtime.silero_vad import SileroVAD
from talkinghead.types import AVSpec

pytest.importorskip("faster_whisper")

SPANS = {"whisper": ("2", "2/5", "1/5"), "distilled": ("8/5", "1/5", "11/50")}


@pytest.mark.parametrize("name", SPANS)
def test_weights_are_those_of_speech_and_not_of_music_and_noise(name):
    spans = [Fraction(span) for span in SPANS[name]]
    rng, weights = np.random.default_rng(0), SpeechWeights(*spans)
    size = int(sum(spans) * 16_000)
    times_s = np.arange(size) / 16_000
    chord = sum(np.sin(2 * np.pi * f * times_s) for f in (220, 277.2, 329.6)) / 5
    others = (0.1 * rng.normal(size=size), chord, np.sin(2 * np.pi * 440 * times_s))
    for samples in others:
        assert weights.of_blocks(np.float32(samples)[None]).max() < 0.1
    # The lips that are predicted for quiet pauses are kept.
    assert weights.of_blocks(np.float32(0.005 * rng.normal(size=(1, size)))).min() == 1
    demo = read_audio(DEMO_SPEECH, 16_000).samples
    speech = weights.of_blocks(demo[None, 16_000 : 16_000 + size])
    assert speech.shape == (1, int(spans[1] * 25))
    assert speech.min() == 1


def test_stream_and_lip_prior_detect_speech_once(monkeypatch):
    prior, numbers = DistilledLipPrior(), []
    push = SileroVAD.push

    def counted(self, samples):
        numbers.append(len(numbers))
        return push(self, samples)

    monkeypatch.setattr(SileroVAD, "push", counted)
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    motion = predict_lip_motion(prior, noise, AVSpec())
    assert len(numbers) == len(motion) / 5
    other = prior.speech_weights(noise[None, :32_320])
    other[:] = 5  # A change of the result does not change later ones.
    assert prior.speech_weights(noise[None, :32_320]).max() <= 1
