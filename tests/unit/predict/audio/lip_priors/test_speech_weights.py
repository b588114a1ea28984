"""Weights of speech, music and noise."""

from fractions import Fraction

import numpy as np
import pytest

from talkinghead.media.audio_decoding import read_audio
from talkinghead.paths import DEMO_SPEECH
from talkinghead.predict.audio.lip_priors.distilled_prior import DistilledLipPrior
from talkinghead.predict.audio.lip_priors.speech_weights import SpeechWeights
from talkinghead.runtime.silero_vad import SileroVAD

pytest.importorskip("faster_whisper")

SPANS = {"whisper": ("2", "2/5", "1/5"), "distilled": ("33/10", "1/25", "11/50")}


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


def test_blocks_and_their_lip_prior_detect_speech_once(monkeypatch):
    prior, numbers = DistilledLipPrior(), []
    push = SileroVAD.push

    def counted(self, samples):
        numbers.append(len(numbers))
        return push(self, samples)

    monkeypatch.setattr(SileroVAD, "push", counted)
    size = int((prior.past_s + prior.block_s + prior.ahead_s) * 16_000)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, size)).astype(np.float32)
    weights = prior.speech_weights(noise)
    prior.predict_motion(noise, 0)
    assert len(numbers) == 2
    weights[:] = 5  # A change of the result does not change later ones.
    assert prior.speech_weights(noise).max() <= 1


def test_stream_weighs_speech_and_not_music_and_frees_its_past():
    weights = SpeechWeights(*map(Fraction, SPANS["distilled"]))
    demo = read_audio(DEMO_SPEECH, 16_000).samples
    times_s = np.arange(64_000) / 16_000
    chord = sum(np.sin(2 * np.pi * f * times_s) for f in (220, 277.2, 329.6)) / 5
    samples = np.concatenate([chord, demo, chord]).astype(np.float32)
    stream, taken = weights.start_stream(), []
    for number, start in enumerate(range(0, len(samples), 640)):
        stream.push(samples[start : start + 640])
        if number >= 6:
            taken.append(stream.take(number - 6, number - 5))
    found = np.concatenate(taken)
    last = (64_000 + len(demo)) // 640
    assert found[:90].max() < 0.1
    assert found[105 : last - 10].min() > 0.5
    assert found[105 : last - 10].mean() > 0.99
    assert found[last + 30 :].max() < 0.1
    assert len(stream._samples) < 16_000
    assert len(stream._probabilities) < 50
