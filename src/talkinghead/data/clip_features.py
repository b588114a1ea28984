"""Audio features of prepared clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from talkinghead.data.clip_file import ClipFile
from talkinghead.errors import CorpusError
from talkinghead.features.audio_features import AudioFeatures, input_features
from talkinghead.types import AVSpec


class ClipFeatureReader:
    """Reads the features that a model needs from clip files.

    Features that a clip file stores (the log-mel and prosody) are read; others are computed from
    its audio.

    Args:
        spec: the corpus's AVSpec.
        names: the model's audio features.

    Attributes:
        names: the features in the returned rows, in order; see `input_features`.
    """

    def __init__(self, spec: AVSpec, names: Sequence[str] = ("mel",)) -> None:
        self.names = input_features(names)
        self._spec = spec
        self._features = {name: AudioFeatures(spec, (name,)) for name in self.names}

    def read(self, clip: ClipFile, start: int = 0, stop: int | None = None) -> Tensor:
        """Return mel frames `start` to `stop` (the clip's end if None), as far as they exist.

        Returns:
            float32 [num_rows, num_frames].

        Raises:
            CorpusError: the clip stores neither a feature nor audio to compute it from.
        """
        stop = clip.num_columns("mel") if stop is None else min(stop, clip.num_columns("mel"))
        start = min(max(0, start), max(0, stop))
        rows = [self._rows(clip, name, start, max(start, stop)) for name in self.names]
        return torch.cat(rows)

    def silence(self, num_frames: int) -> Tensor:
        """Return the features [num_rows, num_frames] of digital silence."""
        return torch.cat([features.silence(num_frames) for features in self._features.values()])

    def _rows(self, clip: ClipFile, name: str, start: int, stop: int) -> Tensor:
        if clip.has(name):
            return torch.from_numpy(clip.columns(name, start, stop))
        if not clip.has("audio"):
            raise CorpusError(
                f"clip {clip.path} stores neither {name} nor audio to compute it from: use other "
                "model.generator.audio_features, or run `talkinghead prepare` again"
            )
        features, spec = self._features[name], self._spec
        if start == stop:
            return features.silence(0)
        samples = torch.from_numpy(clip.tensor("audio").astype(np.float32) / 32767)
        half = spec.n_fft // 2
        padded = torch.nn.functional.pad(samples, (half + 1, half))
        first = start * spec.hop_length
        size = (stop - start - 1) * spec.hop_length + spec.n_fft + 1
        return features.from_segment(padded[first : first + size])
