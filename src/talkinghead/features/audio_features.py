"""Computation of one or several audio features, from whole recordings or from streams.

Shape suffixes: N samples, M mel frames, C feature rows, T video frames, K mel frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

import torch
from torch import Tensor, nn

from talkinghead.errors import UsageError

# Importing the module of a feature registers the feature.
from talkinghead.features import mel, prosody  # noqa: F401
from talkinghead.features.feature_registry import feature_class
from talkinghead.media.timing import mel_window_start
from talkinghead.types import AVSpec


class AudioFeatures(nn.Module):
    """Module that computes audio features and stacks their rows in the order of `names`.

    Raises:
        UsageError: a name is unknown or there is none.

    Example:
        >>> features = AudioFeatures(AVSpec(), ("mel", "prosody"))
        >>> features(torch.zeros(16_000)).shape
        torch.Size([83, 81])
    """

    def __init__(self, spec: AVSpec, names: Sequence[str] = ("mel",)) -> None:
        super().__init__()
        self.spec = spec
        self.names = check_names(names)
        self.features = nn.ModuleDict({name: feature_class(name)(spec) for name in self.names})
        uses_mel = any(feature_class(name).source == "log_mel" for name in self.names)
        self._mel = mel.LogMel(spec) if uses_mel else None

    @property
    def num_rows(self) -> int:
        """Number of rows C of the stacked features."""
        return sum(num_feature_rows(self.spec, self.names))

    def forward(self, samples: Tensor) -> Tensor:
        """Return the features [..., num_rows, M] of samples float [..., N] in [-1, 1].

        M = N // hop_length + 1; frame m is centred on sample m * hop_length, with silence before
        the first sample and after the last.
        """
        half = self.spec.n_fft // 2
        return self.from_segment(nn.functional.pad(samples, (half + 1, half)))

    def from_segment(self, samples: Tensor) -> Tensor:
        """Return the features of all complete analysis frames of samples [..., 1 + N], unpadded.

        The first sample precedes the first frame and is used by the pre-emphasis only.
        """
        spec = self.spec
        inputs = {
            "samples": samples[..., 1:],
            "emphasised_samples": samples[..., 1:] - spec.preemphasis * samples[..., :-1],
        }
        inputs = {k: v.unfold(-1, spec.n_fft, spec.hop_length) for k, v in inputs.items()}
        if self._mel is not None:
            inputs["log_mel"] = self._mel(inputs["emphasised_samples"])
        rows = [f(inputs[feature_class(name).source]) for name, f in self.features.items()]
        return torch.cat(rows, dim=-2)

    def split(self, rows: Tensor) -> dict[str, Tensor]:
        """Split stacked rows [..., C, M] into a dict with the rows of each feature."""
        return _split(rows, self.spec, self.names)

    def silence(self, num_frames: int) -> Tensor:
        """Return the features [num_rows, num_frames] of digital silence."""
        return silence_column(self.spec, self.names).unsqueeze(1).repeat(1, num_frames)


class StreamingAudioFeatures:
    """Streaming version of `AudioFeatures`; the values do not depend on the chunk size.

    A frame is returned as soon as the 25 ms (half a window) after its centre have been pushed.
    """

    def __init__(self, features: AudioFeatures) -> None:
        self._features = features
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        # Half a window of silence before the audio, and one more sample for the pre-emphasis.
        self._tail = torch.zeros(self._features.spec.n_fft // 2 + 1)

    def push(self, samples: Tensor) -> Tensor:
        """Add samples float [n], and return the features [num_rows, m] of m >= 0 new frames."""
        spec = self._features.spec
        buffer = torch.cat([self._tail, samples.float()])
        count = max(0, (len(buffer) - 1 - spec.n_fft) // spec.hop_length + 1)
        self._tail = buffer[count * spec.hop_length :]
        if count == 0:
            return torch.empty(self._features.num_rows, 0)
        return self._features.from_segment(buffer)

    def flush(self) -> Tensor:
        """Return the features of the remaining, silence-padded frames; reset the stream."""
        rest = self.push(torch.zeros(self._features.spec.n_fft // 2))
        self.reset()
        return rest


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """Check the names of audio features, and return them without repetitions.

    Raises:
        UsageError: a name is unknown or there is none.
    """
    if not names:
        raise UsageError("audio_features is empty: give at least one, for example [mel]")
    for name in names:
        feature_class(name)
    return tuple(dict.fromkeys(names))


def input_features(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the input features of an `AudioEncoder` with the features `names`.

    The log-mel comes first, as augmentation, losses and features such as MFCC need it; features
    that are computed from the log-mel need no rows.
    """
    direct = [name for name in check_names(names) if feature_class(name).source != "log_mel"]
    return check_names(["mel", *direct])


def num_feature_rows(spec: AVSpec, names: Sequence[str]) -> list[int]:
    """Return the number of rows of each feature."""
    return [len(feature_class(name).silence(spec)) for name in names]


def silence_column(spec: AVSpec, names: Sequence[str]) -> Tensor:
    """Return the stacked features float [C] of one frame of digital silence."""
    return torch.tensor([value for name in names for value in feature_class(name).silence(spec)])


def select_features(
    rows: Tensor, spec: AVSpec, names: Sequence[str], selected: Sequence[str]
) -> Tensor:
    """Return the rows of the `selected` features from rows [..., C, K] of the features `names`."""
    if tuple(names) == tuple(selected):
        return rows
    parts = _split(rows, spec, names)
    return torch.cat([parts[name] for name in selected], dim=-2)


def _split(rows: Tensor, spec: AVSpec, names: Sequence[str]) -> dict[str, Tensor]:
    return dict(zip(names, rows.split(num_feature_rows(spec, names), dim=-2), strict=True))


def mel_windows(
    features: Tensor,
    frames: Iterable[int],
    fps: Fraction,
    spec: AVSpec,
    names: Sequence[str] = ("mel",),
) -> Tensor:
    """Return windows [T, C, mel_window] of features [C, M], each centred on a video frame.

    Windows outside the audio contain silence.
    """
    starts = [mel_window_start(frame, fps, spec) for frame in frames]
    before = max(0, -min(starts))
    after = max(0, max(starts) + spec.mel_window - features.shape[-1])
    silence = silence_column(spec, names).to(features).unsqueeze(1)
    padded = torch.cat([silence.expand(-1, before), features, silence.expand(-1, after)], -1)
    index = torch.tensor(starts).unsqueeze(1) + before + torch.arange(spec.mel_window)
    return padded[:, index].permute(1, 0, 2)
