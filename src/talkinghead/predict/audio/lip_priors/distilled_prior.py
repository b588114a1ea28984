"""A lip prior with a small network that was trained on the motion predicted by Whisper's.

Shape suffixes: N windows, S samples, F inputs of the map, T video frames.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from talkinghead.errors import CheckpointError
from talkinghead.features.audio_features import AudioFeatures, StreamingAudioFeatures
from talkinghead.models.checkpoint import LIP_MOTION, load_lip_motion_network, resolve_checkpoint
from talkinghead.models.lip_motion_network import LipMotionNetwork, StreamingLipMotion
from talkinghead.predict.audio.lip_priors.lip_prior import MotionStream
from talkinghead.predict.audio.lip_priors.mapped_prior import MappedLipPrior
from talkinghead.predict.audio.lip_priors.speech_weights import SpeechWeightStream
from talkinghead.types import FloatArray
from talkinghead.value_rules import UnitFloat

# Number of samples that are processed at once, so that the memory for a long recording is bounded.
_MAX_SAMPLES = 160_000


class DistilledLipPrior(MappedLipPrior):
    """A lip prior that predicts each frame from 3.3 s of past and 0.23 s after its middle.

    It needs no further package. It keeps the state of the network, so that in chunks of 0.4 s it
    takes a seventh of the time of Whisper's. It follows unseen voices somewhat less well
    (docs/benchmarks.md).

    Args:
        weights: A file written by `scripts/distil_lip_prior.py`; "default" is the packaged network.
        blend_weight: Weight of the predicted lip motion, 0 to 1; the rest is the weight of the
            generator's own motion.
        speech_only: Predict the motion of silence where there is loud sound without speech, such as
            music and noise; needs the package of `talkinghead[offline]`.

    Raises:
        CheckpointError: The weights are missing, broken or made for other audio settings.
        UsageError: `blend_weight` is out of range.
    """

    # The past must be a whole number of frames.
    past_s, block_s, ahead_s = Fraction(17, 5), Fraction(1, 25), Fraction(11, 50)

    def __init__(
        self,
        weights: str | Path = "default",
        blend_weight: UnitFloat = 0.75,
        speech_only: bool = True,
    ) -> None:
        path = resolve_checkpoint(weights, LIP_MOTION)
        loaded = load_lip_motion_network(path)
        self.spec = spec = loaded.spec
        self._network = cast(LipMotionNetwork, loaded.model)
        ahead_s = (self._network.ahead_mels + 0.5) / spec.mels_per_second
        ahead_s += Fraction(spec.n_fft // 2, spec.sample_rate) - Fraction(1, 2) / self.fps
        if (spec.sample_rate, spec.fps) != (self.sample_rate, self.fps) or ahead_s > self.ahead_s:
            raise CheckpointError(
                f"lip_prior.weights={path}: made for {spec.sample_rate} Hz, {spec.fps} frames/s "
                f"and {float(ahead_s):.2f} s of look-ahead; expected {self.sample_rate} Hz, "
                f"{self.fps} frames/s and at most {float(self.ahead_s)} s"
            )
        super().__init__(
            self._network.lips.weight.T, self._network.lips.bias, blend_weight, speech_only
        )
        self._features = AudioFeatures(spec)
        with torch.inference_mode():
            self._silent = StreamingLipMotion(
                self._network,
                spec.mels_per_second / spec.fps,
                self._features.silence(1)[:, 0],
            )
        # Least time from the middle of a frame to the end of the samples that it needs. It varies
        # because the last mel frame is rounded, and repeats after a number of frames.
        self._known_s = min(
            Fraction(self.samples_for(frame), spec.sample_rate)
            - (frame + Fraction(1, 2)) / spec.fps
            for frame in range((spec.mels_per_second / spec.fps).denominator)
        )
        self._hash = hashlib.sha256(Path(path).read_bytes()).hexdigest()

    @property
    def source(self) -> str:
        """Text that differs for other networks, and from that of versions without a state."""
        return f"distilled stream {self._hash}"

    def start_stream(self) -> MotionStream:
        """Return the prediction for a new stream."""
        weights = self._speech_weights
        return _DistilledStream(self, weights.start_stream(self._known_s) if weights else None)

    def samples_for(self, frame: int) -> int:
        """Return the number of samples of a stream after which the motion of a frame is known."""
        return self._silent.last_mel(frame) * self.spec.hop_length + self.spec.n_fft // 2

    def inputs(self, windows: FloatArray) -> Tensor:
        """Return the last hidden layer of the network for the blocks of windows: [N, T, F]."""
        start, stop = (int(s * self.fps) for s in (self.past_s, self.past_s + self.block_s))
        return torch.stack([self._hidden(window.copy())[start:stop] for window in windows])

    def recording_inputs(self, samples: FloatArray, num_frames: int) -> FloatArray:
        """Return the map's inputs for a recording, float16 [T, F]."""
        length = math.ceil((num_frames / self.fps + self.ahead_s) * self.sample_rate)
        padded = np.zeros(length, np.float32)
        padded[: len(samples)] = samples[:length]
        return np.asarray(self._hidden(padded)[:num_frames].half())

    def _hidden(self, samples: FloatArray) -> Tensor:
        stream = self.start_inputs()
        return torch.cat([stream.push(piece) for piece in _pieces(samples)])

    def start_inputs(self) -> _InputStream:
        """Return the map's inputs for a new stream."""
        return _InputStream(StreamingAudioFeatures(self._features), self._silent.copy())


class _InputStream:
    """Inputs of the map for the frames of a stream."""

    def __init__(self, features: StreamingAudioFeatures, network: StreamingLipMotion) -> None:
        self._features, self._network = features, network

    @torch.inference_mode()
    def push(self, samples: FloatArray) -> Tensor:
        """Append speech [S], and return the inputs [T, F] of the frames that are known now."""
        return self._network.push(self._features.push(torch.from_numpy(samples)))


class _DistilledStream:
    """The prediction of a distilled lip prior for one stream."""

    def __init__(self, prior: DistilledLipPrior, weights: SpeechWeightStream | None) -> None:
        self._prior, self._inputs, self._weights = prior, prior.start_inputs(), weights
        self._num_frames = 0

    def push(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Append speech (see `MotionStream.push`)."""
        motions, weights = zip(*map(self._push, _pieces(samples)), strict=True)
        return np.concatenate(motions), np.concatenate(weights)

    def samples_for(self, frame: int) -> int:
        """Return the number of samples after which the motion of a frame is known."""
        return self._prior.samples_for(frame)

    def _push(self, samples: FloatArray) -> tuple[FloatArray, FloatArray]:
        inputs = self._inputs.push(samples)
        first, self._num_frames = self._num_frames, self._num_frames + len(inputs)
        weights = np.ones(len(inputs), np.float32)
        if self._weights is not None:
            self._weights.push(samples)
            if len(inputs):
                weights = self._weights.take(first, self._num_frames)
        return self._prior.with_rest(self._prior.lips_of(inputs), weights), weights


def _pieces(samples: FloatArray) -> Iterator[FloatArray]:
    """Yield samples [S] in at least one piece."""
    for start in range(0, max(1, len(samples)), _MAX_SAMPLES):
        yield samples[start : start + _MAX_SAMPLES]
