"""Audio features: the same in chunks as in one piece, in fixed ranges, windows in their place."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from talkinghead.features.audio_features import (
    SILENCE,
    AudioFeatures,
    LogMel,
    Mfcc,
    Prosody,
    StreamingAudioFeatures,
    mel_windows,
)
from talkinghead.types import AVSpec

SPEC = AVSpec()


def _speech(seconds: float, pitch_hz: float = 140.0) -> torch.Tensor:
    """A buzz that comes and goes, with some noise."""
    time = torch.arange(int(seconds * SPEC.sample_rate)) / SPEC.sample_rate
    buzz = sum(torch.sin(2 * torch.pi * pitch_hz * k * time) / k for k in range(1, 20))
    loud = (torch.sin(2 * torch.pi * 3 * time) > 0).float()
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    return 0.1 * loud * buzz + 0.001 * noise


@pytest.mark.parametrize("prosody", [False, True])
@pytest.mark.parametrize("chunk", [1, 160, 640, 799, 5000])
def test_chunks_give_what_the_whole_gives(chunk: int, prosody: bool) -> None:
    samples = _speech(0.3 if chunk == 1 else 1.3)
    features = AudioFeatures(SPEC, prosody)
    stream = StreamingAudioFeatures(features)
    parts = [stream.push(part) for part in samples.split(chunk)]
    streamed = torch.cat([*parts, stream.flush()], dim=-1)
    torch.testing.assert_close(streamed, features(samples), atol=1e-5, rtol=1e-5)


def test_a_stream_can_begin_again() -> None:
    features = AudioFeatures(SPEC)
    stream = StreamingAudioFeatures(features)
    first = torch.cat([stream.push(_speech(0.5)), stream.flush()], dim=-1)
    second = torch.cat([stream.push(_speech(0.5)), stream.flush()], dim=-1)
    assert torch.equal(first, second)


def test_a_pushed_frame_is_complete_half_a_window_after_its_centre() -> None:
    stream = StreamingAudioFeatures(AudioFeatures(SPEC))
    assert stream.push(torch.zeros(399)).shape[-1] == 0
    assert stream.push(torch.zeros(1)).shape[-1] == 1
    assert stream.push(torch.zeros(200)).shape[-1] == 1


def test_mel_range_count_and_silence() -> None:
    mel = LogMel(SPEC)(torch.zeros(16_000))
    assert mel.shape == (80, 81)
    assert torch.all(mel == SILENCE)
    loud = LogMel(SPEC)(torch.randn(16_000))
    assert loud.min() >= -4
    assert loud.max() <= 4


def test_mel_does_not_depend_on_what_comes_later() -> None:
    quiet, loud = 0.01 * _speech(1.0), torch.cat([0.01 * _speech(1.0), _speech(1.0)])
    mel = LogMel(SPEC)
    torch.testing.assert_close(mel(quiet)[:, :78], mel(loud)[:, :78])


def test_mel_of_a_tone_peaks_in_its_bin() -> None:
    def peak(hz: float) -> int:
        time = torch.arange(8000) / SPEC.sample_rate
        return int(LogMel(SPEC)(torch.sin(2 * torch.pi * hz * time))[:, 20].argmax())

    bins = [peak(hz) for hz in (200, 500, 1000, 2000, 4000, 7000)]
    assert bins == sorted(bins)
    assert len(set(bins)) == 6


@pytest.mark.parametrize("pitch_hz", [90.0, 150.0, 220.0, 300.0])
def test_prosody_finds_the_pitch(pitch_hz: float) -> None:
    time = torch.arange(8000) / SPEC.sample_rate
    buzz = sum(torch.sin(2 * torch.pi * pitch_hz * k * time) for k in range(1, 8))
    pitch, energy, voicing = Prosody(SPEC)(0.05 * buzz)[:, 20]
    assert 150 * 2**pitch == pytest.approx(pitch_hz, rel=0.02)
    assert energy > -1
    assert voicing > 0.8


def test_prosody_of_silence_and_of_noise() -> None:
    silence = AudioFeatures(SPEC, prosody=True)
    assert torch.equal(silence(torch.zeros(4000)), silence.silence(21))
    noise = torch.randn(16_000, generator=torch.Generator().manual_seed(1)) * 0.1
    assert Prosody(SPEC)(noise)[2].mean() < 0.5


def test_mfcc_is_the_cosine_transform_of_the_mel() -> None:
    mel = torch.randn(80, 7)
    bins = torch.arange(80) + 0.5
    basis = torch.stack([torch.cos(torch.pi * k * bins / 80) for k in range(13)])
    basis *= (2 / 80) ** 0.5
    basis[0] /= 2**0.5
    torch.testing.assert_close(Mfcc(SPEC)(mel), basis @ mel, atol=1e-4, rtol=1e-4)


def test_a_click_lies_in_the_middle_of_its_frames_window() -> None:
    """Else there is a skew: the middle of a frame must light up the middle of its window."""
    for frame in (0, 10, 31):
        samples = torch.zeros(32_000)
        samples[int((frame + 0.5) / 25 * 16_000)] = 1.0
        window = mel_windows(LogMel(SPEC)(samples), [frame], Fraction(25), SPEC)[0]
        lit = (window > SILENCE).any(0).nonzero().flatten().float()
        assert lit.mean() == pytest.approx(8, abs=0.6)


def test_windows_outside_the_audio_hear_silence() -> None:
    windows = mel_windows(LogMel(SPEC)(torch.randn(16_000)), range(-20, 60), Fraction(25), SPEC)
    assert windows.shape == (80, 80, 16)
    assert torch.all(windows[0] == SILENCE)
    assert torch.all(windows[-1] == SILENCE)
    assert windows[20].max() > SILENCE


def test_windows_keep_time_at_29_97_fps() -> None:
    """An hour in, a frame's window is still centred on it."""
    fps = Fraction(30_000, 1001)
    frame = 107_892
    mel = torch.full((80, 20), SILENCE).expand(80, 20)
    from talkinghead.media.timing import mel_window_start

    centre_s = (mel_window_start(frame, fps, SPEC) + 8) / SPEC.mels_per_second
    assert abs(centre_s - (frame + Fraction(1, 2)) / fps) <= Fraction(1, 160)
    assert mel_windows(mel, [frame], fps, SPEC).shape == (1, 80, 16)
