"""Log-mel, MFCC and prosody, the same whether speech is read whole or in chunks.

Every feature is a function of one 50 ms frame of pre-emphasised samples, with a fixed range and no
statistics of the utterance: what has not been heard yet cannot change what has.

Shape suffixes: N samples, M mel frames, S samples of a frame, C feature rows, T video frames, K mel
    frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import torch
import torchaudio.functional as taf
from torch import Tensor, nn

from talkinghead.media.timing import mel_window_start
from talkinghead.types import AVSpec

SILENCE = -4.0
"""The value of every mel bin in digital silence."""

NUM_PROSODY = 3
NUM_MFCC = 13
_REFERENCE_DB = 20.0
_MIN_DB = -100.0
_MAX_MEL = 4.0
_PITCH_RANGE_HZ = (60.0, 400.0)
_OCTAVE_PRICE = 0.05
_ENERGY_FLOOR = 1e-10


class LogMel(nn.Module):
    """Log-mel spectrogram in a fixed range.

    Magnitudes in dB relative to 20 dB, floored at -100 dB and scaled so that -100 dB is -4 and 0 dB
    is 4.

    Paper: Shen et al., "Natural TTS Synthesis by Conditioning WaveNet on Mel Spectrogram
        Predictions", 2018, arXiv:1712.05884, for the scaling; Prajwal et al., 2020,
        arXiv:2008.10010, for the figures.
    """

    filters: Tensor
    window: Tensor

    def __init__(self, spec: AVSpec) -> None:
        super().__init__()
        self.spec = spec
        filters = taf.melscale_fbanks(
            spec.n_fft // 2 + 1,
            spec.fmin,
            spec.fmax,
            spec.num_mels,
            spec.sample_rate,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(spec.n_fft), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Samples [..., N] in [-1, 1] to [..., num_mels, M] in [-4, 4], M = N // hop_length + 1."""
        padded = preemphasise(pad_silence(samples, self.spec), self.spec)
        return self.from_frames(padded.unfold(-1, self.spec.n_fft, self.spec.hop_length))

    def from_frames(self, frames_MS: Tensor) -> Tensor:
        """Pre-emphasised frames [..., M, n_fft] to [..., num_mels, M]."""
        magnitude = torch.fft.rfft(frames_MS * self.window).abs()
        decibel = 20.0 * torch.log10((magnitude @ self.filters).clamp_min(1e-5)) - _REFERENCE_DB
        mel = (decibel - _MIN_DB) * (2 * _MAX_MEL / -_MIN_DB) - _MAX_MEL
        return mel.clamp(-_MAX_MEL, _MAX_MEL).transpose(-1, -2)


class Prosody(nn.Module):
    """Pitch, energy and voicing of every mel frame.

    Rows: log2 of F0 relative to 150 Hz (0 where unvoiced), energy in dB scaled as the mel is, and
        voicing in [0, 1]
    (the height of the normalised autocorrelation's peak).

    Paper: Boersma, "Accurate short-term analysis of the fundamental frequency", 1993, for dividing
        the autocorrelation by the window's own.
    """

    lag_price: Tensor
    window: Tensor
    window_correlation: Tensor

    def __init__(self, spec: AVSpec) -> None:
        super().__init__()
        self.spec = spec
        self.min_lag = int(spec.sample_rate / _PITCH_RANGE_HZ[1])
        self.max_lag = int(spec.sample_rate / _PITCH_RANGE_HZ[0])
        lags = torch.arange(self.min_lag, self.max_lag + 1)
        price = _OCTAVE_PRICE * torch.log2(lags / self.min_lag)
        self.register_buffer("lag_price", price, persistent=False)
        window = torch.hann_window(spec.n_fft)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("window_correlation", _autocorrelation(window), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Float samples [..., N] in [-1, 1] to float32 [..., 3, M]."""
        padded = pad_silence(samples, self.spec)
        return self.from_frames(padded.unfold(-1, self.spec.n_fft, self.spec.hop_length))

    def from_frames(self, frames_MS: Tensor) -> Tensor:
        """Raw frames [..., M, n_fft] (without pre-emphasis) to [..., 3, M]."""
        correlation = _autocorrelation(frames_MS * self.window)
        power = correlation[..., 0]
        normalised = correlation / power.clamp_min(_ENERGY_FLOOR).unsqueeze(-1)
        normalised = normalised / (self.window_correlation / self.window_correlation[0]).clamp_min(
            0.05
        )
        candidates = normalised[..., self.min_lag : self.max_lag + 1]
        # Every multiple of the period is as good a period: a small price on longer lags decides.
        lag = (candidates - self.lag_price).argmax(dim=-1)
        strength = candidates.gather(-1, lag.unsqueeze(-1)).squeeze(-1)
        voicing = strength.clamp(0.0, 1.0) * (power > 1e-4)
        pitch = torch.log2(self.spec.sample_rate / (lag + self.min_lag).float() / 150.0)
        decibel = 10.0 * torch.log10(power.clamp_min(_ENERGY_FLOOR) / self.spec.n_fft)
        energy = ((decibel - _MIN_DB) * (2 * _MAX_MEL / -_MIN_DB) - _MAX_MEL).clamp(
            -_MAX_MEL, _MAX_MEL
        )
        return torch.stack([torch.where(voicing > 0.5, pitch, 0.0), energy, voicing], dim=-2)


class Mfcc(nn.Module):
    """Cepstral coefficients of a log-mel.

    Its orthonormal cosine transform, taken bin by bin and so frame by frame.
    """

    dct: Tensor

    def __init__(self, spec: AVSpec, num_mfcc: int = NUM_MFCC) -> None:
        super().__init__()
        self.register_buffer(
            "dct", taf.create_dct(num_mfcc, spec.num_mels, norm="ortho"), persistent=False
        )

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel [..., num_mels, M] to [..., num_mfcc, M]."""
        return (mel.transpose(-1, -2) @ self.dct).transpose(-1, -2)


class AudioFeatures(nn.Module):
    """What a model hears: the log-mel, with the prosody's rows below it where a model wants them.

    MFCCs are a linear function of the log-mel, so the `AudioEncoder` takes them from it (after
    augmentation).
    """

    def __init__(self, spec: AVSpec, prosody: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.mel = LogMel(spec)
        self.prosody = Prosody(spec) if prosody else None

    @property
    def num_rows(self) -> int:
        """Rows of a feature matrix: the mel's, and the prosody's where it is wanted."""
        return self.spec.num_mels + (NUM_PROSODY if self.prosody else 0)

    def forward(self, samples: Tensor) -> Tensor:
        """Float samples [..., N] in [-1, 1] at the spec's rate to float32 [..., num_rows, M]."""
        mel = self.mel(samples)
        return torch.cat([mel, self.prosody(samples)], dim=-2) if self.prosody else mel

    def silence(self, num_frames: int) -> Tensor:
        """The features [num_rows, num_frames] of digital silence."""
        rows = torch.full((self.num_rows, num_frames), SILENCE)
        rows[self.spec.num_mels :: 2] = (
            0.0  # Pitch and voicing; the energy between them is at its floor.
        )
        return rows


class StreamingAudioFeatures:
    """The same features from chunks of any size.

    `push` gives those that are complete, `flush` the rest.

    The last frame of a push is complete when half a window (25 ms) has been heard beyond its
    centre.
    """

    def __init__(self, features: AudioFeatures) -> None:
        self._features = features
        self.reset()

    def reset(self) -> None:
        """Forget everything heard: the next push begins a new stream."""
        # One sample more than half a window: the first is the pre-emphasis' memory and makes no
        # frame of its own.
        self._tail = torch.zeros(self._features.spec.n_fft // 2 + 1)

    def push(self, samples: Tensor) -> Tensor:
        """Float samples [n] to features [num_rows, m]; m may be 0."""
        spec = self._features.spec
        buffer = torch.cat([self._tail, samples.float()])
        count = max(0, (len(buffer) - 1 - spec.n_fft) // spec.hop_length + 1)
        if count == 0:
            self._tail = buffer
            return torch.empty(self._features.num_rows, 0)
        used = buffer[: (count - 1) * spec.hop_length + spec.n_fft + 1]
        self._tail = buffer[count * spec.hop_length :]
        emphasised = used[1:] - spec.preemphasis * used[:-1]
        mel = self._features.mel.from_frames(emphasised.unfold(0, spec.n_fft, spec.hop_length))
        if self._features.prosody is None:
            return mel
        frames = used[1:].unfold(0, spec.n_fft, spec.hop_length)
        return torch.cat([mel, self._features.prosody.from_frames(frames)], dim=-2)

    def flush(self) -> Tensor:
        """The last features, with silence behind the last sample; then as after `reset`."""
        rest = self.push(torch.zeros(self._features.spec.n_fft // 2))
        self.reset()
        return rest


def preemphasise(samples: Tensor, spec: AVSpec) -> Tensor:
    """First-order high-pass y[n] = x[n] - a x[n-1], with silence before the first sample.

    Shape [..., N] is kept.
    """
    return samples - spec.preemphasis * torch.nn.functional.pad(samples, (1, 0))[..., :-1]


def pad_silence(samples: Tensor, spec: AVSpec) -> Tensor:
    """Half a window of silence at both ends of [..., N].

    Frame m is then centred on sample m * hop_length.
    """
    return torch.nn.functional.pad(samples, (spec.n_fft // 2, spec.n_fft // 2))


def mel_windows(features: Tensor, frames: Iterable[int], fps: Fraction, spec: AVSpec) -> Tensor:
    """The window centred on each video frame.

    Args:
        features: float [C, M], from the stream's first sample.
        frames: video frame numbers, T of them; those outside the audio hear silence.
        fps: the frame rate that the numbers count in.
        spec: for the window's length and the features' rate.

    Returns:
        float [T, C, mel_window].
    """
    starts = [mel_window_start(frame, fps, spec) for frame in frames]
    before = max(0, -min(starts))
    after = max(0, max(starts) + spec.mel_window - features.shape[-1])
    padded = torch.cat(
        [_silence_like(features, before, spec), features, _silence_like(features, after, spec)], -1
    )
    index = torch.tensor(starts).unsqueeze(1) + before + torch.arange(spec.mel_window)
    return padded[:, index].permute(1, 0, 2)


def _silence_like(features: Tensor, num_frames: int, spec: AVSpec) -> Tensor:
    rows = features.new_full((features.shape[0], num_frames), SILENCE)
    rows[spec.num_mels :: 2] = 0.0
    return rows


def _autocorrelation(frames: Tensor) -> Tensor:
    """Linear autocorrelation over the last axis, by the Wiener-Khinchin theorem."""
    size = frames.shape[-1]
    spectrum = torch.fft.rfft(frames, n=2 * size)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * size)[..., :size]
