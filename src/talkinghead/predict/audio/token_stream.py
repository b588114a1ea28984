"""Speech to audio tokens on the model's time grid, chunk by chunk, the same as from the whole file.

Shape suffixes: W windows (grid frames), C feature rows, M mel frames, D token dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from talkinghead.features.audio_features import AudioFeatures, StreamingAudioFeatures, mel_windows
from talkinghead.media.timing import mel_window_start, num_frames_for
from talkinghead.models.lipsync.decoder import ReferenceFeatures
from talkinghead.predict.audio.lip_prior import LipPrior, LipPriorStream
from talkinghead.runtime.generator_backend import GeneratorBackend
from talkinghead.types import AVSpec, FloatArray


class TokenStream:
    """Samples go in as they come; a grid frame's token can be had once its future is heard.

    Each token depends on `context_frames` of past and `lookahead_frames` of future, and chunks are
    encoded with both, so that it makes no difference where they begin. Only that much speech is
    kept.
    """

    def __init__(
        self,
        model: GeneratorBackend,
        spec: AVSpec,
        chunk_frames: int = 25,
        lip_prior: LipPrior | None = None,
    ) -> None:
        """Encodes up to `chunk_frames` grid frames at a time.

        `lip_prior`: who else tells how lips move.
        """
        self._model = model
        self._spec = spec
        self._chunk_frames = chunk_frames
        self._features = AudioFeatures(spec, model.input_features)
        self._streaming = StreamingAudioFeatures(self._features)
        self._listener = lip_prior
        self._lips = None if lip_prior is None else LipPriorStream(lip_prior, spec)
        self._device = model.device
        self._mels_per_frame = spec.mels_per_second / spec.fps
        self.reset()

    def reset(self) -> None:
        """Begins a new stream."""
        self._streaming.reset()
        if self._lips is not None:
            self._lips.reset()
        self._mel_CM = torch.empty(self._features.num_rows, 0)
        self._mel_frame = 0  # The grid frame that the first of `_mel_CM` belongs to.
        self._num_samples = 0
        self._ended = False
        self._reference: ReferenceFeatures | None = None
        self._tokens_WD = torch.empty(0)
        self._token_frame = 0  # The grid frame of the first of `_tokens_WD`.

    @property
    def duration_s(self) -> Fraction | None:
        """How long the speech is: known when it has ended."""
        return Fraction(self._num_samples, self._spec.sample_rate) if self._ended else None

    def push(self, samples: FloatArray, features_CM: Tensor | None = None) -> None:
        """Append speech.

        Args:
            samples: float32 [n] in [-1, 1] at the spec's sample rate.
            features_CM: the features of a whole recording, if they were computed before.
        """
        self._num_samples += len(samples)
        if features_CM is None:
            features_CM = self._streaming.push(torch.from_numpy(samples))
        self._add_mel(features_CM)
        if self._lips is not None:
            self._lips.push(samples)

    def finish(self) -> None:
        """Says that the speech has ended; silence is heard after it."""
        self._add_mel(self._streaming.flush())
        if self._lips is not None:
            self._lips.finish()
        self._ended = True

    def listen(self, samples: Iterator[FloatArray], time_s: Fraction) -> None:
        """Takes as much speech from an iterator as the token at a moment needs, or all there is."""
        while not self.has(time_s):
            chunk = next(samples, None)
            if chunk is None:
                self.finish()
            else:
                self.push(chunk)

    def has(self, time_s: Fraction) -> bool:
        """Whether the token at a moment can be had yet."""
        return self._ended or self._num_samples >= self.samples_for(time_s)

    def samples_for(self, time_s: Fraction) -> int:
        """How much speech must be heard before the token at a moment can be had."""
        spec = self._spec
        frame = math.ceil(self._position(time_s))
        last = frame + self._model.lookahead_frames
        last_mel = mel_window_start(last, spec.fps, spec) + spec.mel_window - 1
        needed = last_mel * spec.hop_length + spec.n_fft // 2
        return needed if self._lips is None else max(needed, self._lips.samples_for(frame))

    def lookahead_s(self, on_grid: bool) -> Fraction:
        """How far beyond a moment speech must be heard, at the most, before its token can be had.

        `on_grid`: only for the middles of the grid's frames. Others lie between two tokens.
        """
        spec = self._spec
        frames = self._model.lookahead_frames + (0 if on_grid else 1)
        # The window's middle is rounded to a mel frame.
        mels = Fraction(1, 2) + spec.mel_window - spec.mel_window // 2 - 1
        half_window_s = Fraction(spec.n_fft // 2, spec.sample_rate)
        needed_s = frames / spec.fps + mels / spec.mels_per_second + half_window_s
        if self._listener is None:
            return needed_s
        # The first frame of a block waits for all of it. Its middle is half a frame after the
        # block's beginning; a moment that lies between two frames may be up to one before that.
        middle_s = Fraction(1, 2) / spec.fps - (0 if on_grid else 1 / spec.fps)
        return max(needed_s, self._listener.block_s + self._listener.ahead_s - middle_s)

    def at(self, times_s: Sequence[Fraction], reference: ReferenceFeatures) -> Tensor:
        """Tokens at rising moments, interpolated between the grid's; forgets what lies before them.

        Args:
            times_s: moments for each of which `has` is true, none before those asked for earlier.
            reference: who speaks; another than before has other tokens.

        Returns:
            float [len(times_s), D].
        """
        last = self._last_frame
        positions = [min(self._position(time_s), Fraction(last)) for time_s in times_s]
        self._forget(math.floor(positions[0]), reference)
        while self._token_frame + len(self._tokens_WD) <= math.ceil(positions[-1]):
            self._encode_chunk(reference)
        lower = torch.tensor([math.floor(position) - self._token_frame for position in positions])
        upper = torch.tensor([math.ceil(position) - self._token_frame for position in positions])
        share = torch.tensor([float(position % 1) for position in positions]).unsqueeze(1)
        return torch.lerp(self._tokens_WD[lower], self._tokens_WD[upper], share.to(self._tokens_WD))

    @property
    def _last_frame(self) -> int:
        """The last grid frame whose token can be had."""
        spec = self._spec
        if self._ended:
            return num_frames_for(Fraction(self._num_samples, spec.sample_rate), spec.fps) - 1
        heard = self._mel_CM.shape[1]
        frame = math.ceil(heard / self._mels_per_frame)
        while mel_window_start(frame, spec.fps, spec) + spec.mel_window > heard:
            frame -= 1
        last = self._mel_frame + frame - self._model.lookahead_frames
        return last if self._lips is None else min(last, self._lips.num_frames - 1)

    def _position(self, time_s: Fraction) -> Fraction:
        """Where a moment lies between the middles of the grid's frames, counted in frames."""
        return max(Fraction(0), time_s * self._spec.fps - Fraction(1, 2))

    def _add_mel(self, mel_CM: Tensor) -> None:
        self._mel_CM = torch.cat([self._mel_CM, mel_CM], dim=1)

    def _encode_chunk(self, reference: ReferenceFeatures) -> None:
        start = self._token_frame + len(self._tokens_WD)
        stop = min(start + self._chunk_frames, self._last_frame + 1)
        past = self._model.context_frames
        first, last = start - past, stop + self._model.lookahead_frames
        frames = range(first - self._mel_frame, last - self._mel_frame)
        windows = mel_windows(
            self._mel_CM, frames, self._spec.fps, self._spec, self._features.names
        ).to(self._device)
        tokens_WD = self._model.encode_audio(windows[None], reference)[
            0, past : past + stop - start
        ]
        if self._lips is not None and self._listener is not None:
            lips = self._lips.at(start, stop).to(self._device)
            tokens_WD = self._model.set_lip_motion(tokens_WD, lips, self._listener.share)
        self._tokens_WD = (
            torch.cat([self._tokens_WD, tokens_WD]) if len(self._tokens_WD) else tokens_WD
        )

    def _forget(self, frame: int, reference: ReferenceFeatures) -> None:
        """Drops what no frame from `frame` on needs, and the tokens of another reference."""
        if reference is not self._reference:
            self._reference, self._token_frame, self._tokens_WD = reference, frame, torch.empty(0)
        self._tokens_WD = self._tokens_WD[frame - self._token_frame :]
        self._token_frame = frame
        if self._lips is not None:
            self._lips.forget(frame)
        # Mel may only be cut off where its grid and the frames' meet; half a window more is needed
        # before the first frame.
        period = self._mels_per_frame.denominator
        margin = math.ceil(self._spec.mel_window / self._mels_per_frame)
        first = (frame - self._model.context_frames - margin) // period * period
        if first > self._mel_frame:
            self._mel_CM = self._mel_CM[:, int((first - self._mel_frame) * self._mels_per_frame) :]
            self._mel_frame = first
