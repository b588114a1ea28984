"""Audio features: registry, ranges, streaming and windows."""

from fractions import Fraction

import pytest
import torch

from talkinghead.errors import UsageError
from talkinghead.features.audio_features import (
    AudioFeatures,
    StreamingAudioFeatures,
    mel_windows,
    select_features,
)
from talkinghead.features.feature_registry import AUDIO_FEATURES, AudioFeature, register
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.models.encoders import AudioEncoder
from talkinghead.types import AVSpec

SPEC = AVSpec()
MEL = AudioFeatures(SPEC)
ALL = AudioFeatures(SPEC, ("mel", "prosody", "mfcc"))


def harmonic_tone(duration_s, pitch_hz, num_harmonics=20):
    time = torch.arange(int(duration_s * SPEC.sample_rate)) / SPEC.sample_rate
    return sum(torch.sin(2 * torch.pi * pitch_hz * k * time) / k for k in range(1, num_harmonics))


def make_speech(duration_s):
    """Return a harmonic tone that is switched on and off, with some noise."""
    tone = harmonic_tone(duration_s, 140.0)
    time = torch.arange(len(tone)) / SPEC.sample_rate
    loud = (torch.sin(2 * torch.pi * 3 * time) > 0).float()
    noise = torch.randn(len(tone), generator=torch.Generator().manual_seed(0))
    return 0.1 * loud * tone + 0.001 * noise


def stream(features, samples, chunk):
    """Push samples in chunks and return all features."""
    streaming = StreamingAudioFeatures(features)
    parts = [streaming.push(part) for part in samples.split(chunk)]
    return torch.cat([*parts, streaming.flush()], dim=-1)


def test_registered_feature_works_in_modules_streams_and_encoders(monkeypatch):
    monkeypatch.setitem(AUDIO_FEATURES, "peak", AudioFeature)  # Restored after the test.

    @register
    class Peak(AudioFeature):
        name = "peak"

        @classmethod
        def silence(cls, spec):
            return [0.0]

        def forward(self, source):
            return source.abs().amax(-1).unsqueeze(-2)

    names = ("mel", "peak", "mfcc")
    samples = make_speech(1.0)
    features = AudioFeatures(SPEC, names)
    rows = features(samples)
    assert rows.shape == (80 + 1 + 13, 81)
    assert features.split(rows)["peak"][0, 40] == samples[40 * 200 - 400 :][:800].abs().max()
    torch.testing.assert_close(stream(features, samples, 640), rows, atol=1e-5, rtol=1e-5)
    encoder = AudioEncoder(names, channels=(4, 4, 8, 8), dim=24)
    assert encoder.input_features == ("mel", "peak")
    inputs = select_features(rows, SPEC, names, encoder.input_features)
    windows = mel_windows(inputs, range(-9, 3), SPEC.fps, SPEC, encoder.input_features)
    assert encoder(windows).shape == (12, 24)
    assert (windows[0, 80] == 0).all()
    with pytest.raises(ValueError, match="expected 81: mel, peak"):
        encoder(windows[:, :80])


def test_unknown_or_missing_feature_names_are_refused():
    with pytest.raises(UsageError, match="'whisper' is unknown: choose among mel, mfcc, prosody"):
        AudioFeatures(SPEC, ("mel", "whisper"))
    with pytest.raises(UsageError, match="audio_features is empty"):
        AudioFeatures(SPEC, ())


@pytest.mark.parametrize("chunk", [1, 799, 5000])
def test_stream_gives_the_features_of_the_whole_recording(chunk):
    samples = make_speech(0.3 if chunk == 1 else 1.3)
    torch.testing.assert_close(stream(ALL, samples, chunk), ALL(samples), atol=1e-5, rtol=1e-5)


def test_streamed_frame_is_returned_half_a_window_after_its_centre():
    streaming = StreamingAudioFeatures(MEL)
    for _ in range(2):  # A stream starts again after it was flushed.
        counts = [streaming.push(torch.zeros(n)).shape[-1] for n in (399, 1, 200)]
        assert counts == [0, 1, 1]
        streaming.flush()


def test_mel_is_in_range_and_does_not_depend_on_later_audio():
    quiet, loud = 0.01 * make_speech(1.0), torch.randn(16_000)
    both = MEL(torch.cat([quiet, loud]))
    assert both.shape == (80, 161)
    assert both.min() >= -4
    assert both.max() <= 4
    torch.testing.assert_close(MEL(quiet)[:, :78], both[:, :78])


def test_mel_peak_rises_with_the_frequency_of_a_tone():
    tones = [harmonic_tone(0.5, hz, 2) for hz in (200, 500, 1000, 2000, 4000, 7000)]
    bins = [int(MEL(tone)[:, 20].argmax()) for tone in tones]
    assert bins == sorted(set(bins))


@pytest.mark.parametrize("pitch_hz", [90.0, 150.0, 300.0])
def test_prosody_measures_the_pitch(pitch_hz):
    rows = ALL(0.05 * harmonic_tone(0.5, pitch_hz, 8))
    pitch, energy, voicing = ALL.split(rows)["prosody"][:, 20]
    assert 150 * 2**pitch == pytest.approx(pitch_hz, rel=0.02)
    assert energy > -1
    assert voicing > 0.8
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(1)) * 0.1
    assert ALL.split(ALL(noise))["prosody"][2].mean() < 0.5


def test_silence_returns_the_features_of_zero_samples():
    torch.testing.assert_close(ALL(torch.zeros(4000)), ALL.silence(21), atol=1e-4, rtol=0)


def test_mfcc_is_the_cosine_transform_of_the_mel():
    bins = torch.arange(80) + 0.5
    basis = torch.stack([torch.cos(torch.pi * k * bins / 80) for k in range(13)])
    basis *= (2 / 80) ** 0.5
    basis[0] /= 2**0.5
    parts = ALL.split(ALL(make_speech(0.2)))
    torch.testing.assert_close(parts["mfcc"], basis @ parts["mel"], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("frame", [0, 31])
def test_window_is_centred_on_its_frame(frame):
    samples = torch.zeros(32_000)
    samples[int((frame + 0.5) / 25 * 16_000)] = 1.0
    window = mel_windows(MEL(samples), [frame], Fraction(25), SPEC)[0]
    loud = (window > MEL_SILENCE).any(0).nonzero().flatten().float()
    assert loud.mean() == pytest.approx(8, abs=0.6)


def test_windows_outside_the_audio_contain_silence():
    windows = mel_windows(MEL(torch.randn(16_000)), range(-20, 60), Fraction(25), SPEC)
    assert windows.shape == (80, 80, 16)
    assert torch.all(windows[[0, -1]] == MEL_SILENCE)
    assert windows[20].max() > MEL_SILENCE
