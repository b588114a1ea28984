"""A lip prior with a small network that was trained on the motion predicted by Whisper's.

Shape suffixes: N windows, S samples, F inputs of the map, T video frames.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from talkinghead.errors import CheckpointError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.models.checkpoint import LIP_MOTION, load_lip_motion_network, resolve_checkpoint
from talkinghead.models.lip_motion_network import LipMotionNetwork
from talkinghead.predict.audio.lip_priors.mapped_prior import MappedLipPrior
from talkinghead.types import FloatArray
from talkinghead.value_rules import UnitFloat


class DistilledLipPrior(MappedLipPrior):
    """A lip prior that predicts blocks of 0.2 s from 1.6 s of past and 0.22 s of look-ahead.

    It needs no further package, takes less than half the time of Whisper's and follows unseen
    voices somewhat less well (docs/benchmarks.md).

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

    past_s, block_s, ahead_s = Fraction(8, 5), Fraction(1, 5), Fraction(11, 50)

    def __init__(
        self,
        weights: str | Path = "default",
        blend_weight: UnitFloat = 0.75,
        speech_only: bool = True,
    ) -> None:
        path = resolve_checkpoint(weights, LIP_MOTION)
        loaded = load_lip_motion_network(path)
        spec = loaded.spec
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
        # The first complete mel frame is centred half an analysis frame after the first sample of a
        # window, which is used by the pre-emphasis only.
        first_s = Fraction(spec.n_fft // 2 + 1, spec.sample_rate)
        first = int(self.past_s * self.fps) - self._network.past_frames
        frames = range(first, int((self.past_s + self.block_s) * self.fps))
        middles_s = [(n + Fraction(1, 2)) / self.fps - first_s for n in frames]
        self._places = torch.tensor([float(s * spec.mels_per_second) for s in middles_s])
        self._hash = hashlib.sha256(Path(path).read_bytes()).hexdigest()

    @property
    def source(self) -> str:
        """Text that differs for other networks."""
        return f"distilled {self._hash}"

    @torch.inference_mode()
    def inputs(self, windows: FloatArray) -> Tensor:
        """Return the last hidden layer of the network for the blocks of windows: [N, T, F]."""
        mel = self._features.from_segment(torch.from_numpy(np.array(windows, np.float32)))
        return self._network.hidden(mel, self._places)
