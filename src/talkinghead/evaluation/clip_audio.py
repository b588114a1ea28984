"""Audio of an evaluated clip: samples and the features computed from them.

Shape suffixes: C feature rows, M mel frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from talkinghead.features.audio_features import mel_windows, select_features
from talkinghead.media.timing import mel_centre
from talkinghead.types import AVSpec, FloatArray


@dataclass(frozen=True)
class ClipAudio:
    """Audio that starts with the clip's first frame.

    Attributes:
        samples: float32 [num_samples] in [-1, 1].
        features: float32 [C, M].
        names: names of the audio features in the rows, in order; the mel is first.
        spec: sample rate and feature layout.
    """

    samples: FloatArray
    features: Tensor
    names: tuple[str, ...]
    spec: AVSpec

    @property
    def mel(self) -> Tensor:
        """Log-mel, float32 [num_mels, M]."""
        return self.features[: self.spec.num_mels]

    def select(self, names: Sequence[str]) -> Tensor:
        """Return the rows of the named features."""
        return select_features(self.features, self.spec, self.names, names)

    def windows(self, num_frames: int, names: Sequence[str]) -> Tensor:
        """Return the feature window of each video frame, float32 [num_frames, C, mel_window]."""
        return mel_windows(
            self.select(names), range(num_frames), self.spec.fps, self.spec, tuple(names)
        )

    def silenced(self) -> ClipAudio:
        """Return empty audio, which generators extend with silence."""
        return replace(self, samples=self.samples[:0], features=self.features[:, :0])

    def rotated(self) -> ClipAudio:
        """Return the audio from its middle to its end, followed by its first half."""
        samples = np.roll(self.samples, -(len(self.samples) // 2))
        return replace(
            self, samples=samples, features=self.features.roll(-(self.features.shape[1] // 2), 1)
        )

    def repeated(self, num_frames: int) -> ClipAudio:
        """Return the audio repeated until it covers `num_frames` video frames."""
        needed = mel_centre(num_frames, self.spec.fps, self.spec) + self.spec.mel_window
        count = -(-needed // max(1, self.features.shape[1]))
        return replace(
            self,
            samples=np.tile(self.samples, count),
            features=torch.tile(self.features, (1, count)),
        )
