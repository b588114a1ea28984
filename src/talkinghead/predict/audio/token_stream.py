"""Encode chunked speech as audio tokens; chunking does not change the tokens.

Shape suffixes: W windows (grid frames), C feature rows, M mel frames, D token dimension, N frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional as F

from talkinghead.features.audio_features import AudioFeatures, StreamingAudioFeatures, mel_windows
from talkinghead.media.timing import mel_window_start, num_frames_for
from talkinghead.models.lipsync.decoder import ReferenceFeatures
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior, LipPriorStream
from talkinghead.predict.audio.speaker_style import signed_gap
from talkinghead.predict.audio.visemes import PARTED
from talkinghead.predict.source.head.motion.speech_motion import SpeechMotion
from talkinghead.runtime.generator_backend import GeneratorBackend
from talkinghead.types import AVSpec, FloatArray

# Articulation above 1. The motion that is predicted for a voice that is not in the training data
# varies little around a mean opening: its spread is about a third of that of the real motion, and
# the mouth would never close if it were only scaled. Hence the opening is expanded around a small
# opening in canonical pixels, and is not less than the minimum, at which the lips are closed.
_EXPANSION, _PIVOT_GAP, _MIN_GAP = 1.3, 1.8, -0.5
# Width in pixels of the smooth transition to the minimum.
_SOFTNESS = 0.7
# Rise of the upper lip per pixel of added mouth opening. The speakers of the packaged model's
# training data read with little motion, and their upper lip moves down with the jaw. In clearer
# articulation the upper lip rises and shows teeth.
_UPPER_LIP_RISE = 0.3
# Weight of each ibug68 lip point in the motion of the upper lip.
_UPPER_LIP_WEIGHTS = (0, 0.5, 1, 1, 1, 0.5, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0)


class TokenStream:
    """A stream of audio tokens, encoded as speech arrives.

    Each token depends on `context_frames` of past and `lookahead_frames` of future audio. Each
    chunk is encoded with both, so chunk boundaries do not change the tokens. Older speech is
    dropped.

    Args:
        model: the generator.
        spec: its AVSpec.
        chunk_frames: maximum number of grid frames that are encoded at once.
        lip_prior: second prediction of the lip motion, blended with the generator's.

    Attributes:
        speech_motion: the prosody of the speech, for the motion of the head.
    """

    def __init__(
        self,
        model: GeneratorBackend,
        spec: AVSpec,
        chunk_frames: int = 25,
        lip_prior: LipPrior | None = None,
    ) -> None:
        self._model = model
        self._spec = spec
        self._chunk_frames = chunk_frames
        self.speech_motion = SpeechMotion(spec)
        self._features = AudioFeatures(spec, model.input_features)
        self._streaming = StreamingAudioFeatures(self._features)
        self._lip_prior = lip_prior
        self._lip_motion = None if lip_prior is None else LipPriorStream(lip_prior, spec)
        self._device = model.device
        self._mels_per_frame = spec.mels_per_second / spec.fps
        self.reset()

    def reset(self) -> None:
        """Start a new stream."""
        self.speech_motion.reset()
        self._streaming.reset()
        if self._lip_motion is not None:
            self._lip_motion.reset()
        self._mel_CM = torch.empty(self._features.num_rows, 0)
        self._mel_frame = 0  # Grid frame of the first column of `_mel_CM`.
        self._num_samples = 0
        self._ended = False
        self._reference: ReferenceFeatures | None = None
        self._silence: tuple[ReferenceFeatures, Tensor] | None = None
        self._tokens_WD = torch.empty(0)
        self._token_frame = 0  # Grid frame of the first row of `_tokens_WD`.

    @property
    def duration_s(self) -> Fraction | None:
        """Duration of the speech in seconds; None until the speech has ended."""
        return Fraction(self._num_samples, self._spec.sample_rate) if self._ended else None

    def push(self, samples: FloatArray, features_CM: Tensor | None = None) -> None:
        """Append speech: float32 [num_samples] in [-1, 1] at the spec's sample rate.

        `features_CM` are precomputed audio features, allowed only if the speech is a whole
        recording.
        """
        self._num_samples += len(samples)
        self.speech_motion.push(samples)
        if features_CM is None:
            features_CM = self._streaming.push(torch.from_numpy(samples))
        self._add_mel(features_CM)
        if self._lip_motion is not None:
            self._lip_motion.push(samples)

    def finish(self) -> None:
        """End the speech, and process the last samples as if silence followed."""
        self._add_mel(self._streaming.flush())
        if self._lip_motion is not None:
            self._lip_motion.finish()
        self._ended = True

    def pull_until(self, samples: Iterator[FloatArray], time_s: Fraction) -> None:
        """Push chunks until the token at a time is available or the iterator ends."""
        while not self.has(time_s):
            chunk = next(samples, None)
            if chunk is None:
                self.finish()
            else:
                self.push(chunk)

    def has(self, time_s: Fraction) -> bool:
        """Return whether the token at a time is available."""
        return self._ended or self._num_samples >= self.samples_for(time_s)

    def samples_for(self, time_s: Fraction) -> int:
        """Return the number of samples after which the token at a time is available."""
        spec = self._spec
        frame = math.ceil(self._position(time_s))
        last = frame + self._model.lookahead_frames
        last_mel = mel_window_start(last, spec.fps, spec) + spec.mel_window - 1
        needed = last_mel * spec.hop_length + spec.n_fft // 2
        if self._lip_motion is None:
            return needed
        return max(needed, self._lip_motion.samples_for(frame))

    def lookahead_s(self, on_grid: bool) -> Fraction:
        """Return how many seconds of speech after a time the token at that time needs at most.

        If `on_grid` is true, all times are middles of grid frames; otherwise a time may lie between
        two tokens.
        """
        spec = self._spec
        frames = self._model.lookahead_frames + (0 if on_grid else 1)
        # The window's middle is rounded to a mel frame.
        mels = Fraction(1, 2) + spec.mel_window - spec.mel_window // 2 - 1
        half_window_s = Fraction(spec.n_fft // 2, spec.sample_rate)
        needed_s = frames / spec.fps + mels / spec.mels_per_second + half_window_s
        if self._lip_prior is None:
            return needed_s
        # The first frame of a block needs the whole block. The middle of that frame is half a frame
        # after the start of the block; a time between two frames may be up to one frame earlier.
        middle_s = Fraction(1, 2) / spec.fps - (0 if on_grid else 1 / spec.fps)
        return max(needed_s, self._lip_prior.block_s + self._lip_prior.ahead_s - middle_s)

    def at(self, times_s: Sequence[Fraction], reference: ReferenceFeatures) -> Tensor:
        """Return the tokens at increasing times, interpolated between the tokens of the grid.

        Args:
            times_s: times for which `has` is true, and not before the times of earlier calls.
            reference: features of the face. Tokens are encoded again when the reference changes.

        Returns:
            Tokens, float [len(times_s), D].
        """
        last = self._last_frame
        positions = [min(self._position(time_s), Fraction(last)) for time_s in times_s]
        self._drop_before(math.floor(positions[0]), reference)
        while self._token_frame + len(self._tokens_WD) <= math.ceil(positions[-1]):
            self._encode_chunk(reference)
        lower = torch.tensor([math.floor(position) - self._token_frame for position in positions])
        upper = torch.tensor([math.ceil(position) - self._token_frame for position in positions])
        weight = torch.tensor([float(position % 1) for position in positions]).unsqueeze(1)
        weight = weight.to(self._tokens_WD)
        return torch.lerp(self._tokens_WD[lower], self._tokens_WD[upper], weight)

    def drop_before(self, time_s: Fraction) -> None:
        """Free the memory of speech that no token at or after a time depends on.

        The time must be one for which `has` is true. `at` does the same, but is not called while no
        face is visible.
        """
        frame = min(math.floor(self._position(time_s)), self._last_frame)
        self._drop_speech_before(frame)

    @property
    def _last_frame(self) -> int:
        """Index of the last grid frame whose token is available."""
        spec = self._spec
        if self._ended:
            return num_frames_for(Fraction(self._num_samples, spec.sample_rate), spec.fps) - 1
        num_mels = self._mel_CM.shape[1]
        frame = math.ceil(num_mels / self._mels_per_frame)
        while mel_window_start(frame, spec.fps, spec) + spec.mel_window > num_mels:
            frame -= 1
        last = self._mel_frame + frame - self._model.lookahead_frames
        return last if self._lip_motion is None else min(last, self._lip_motion.num_frames - 1)

    def _position(self, time_s: Fraction) -> Fraction:
        """Convert a time to frames, counted from the middle of the first grid frame."""
        return max(Fraction(0), time_s * self._spec.fps - Fraction(1, 2))

    def _add_mel(self, mel_CM: Tensor) -> None:
        self._mel_CM = torch.cat([self._mel_CM, mel_CM], dim=1)

    def _encode_chunk(self, reference: ReferenceFeatures) -> None:
        start = self._token_frame + len(self._tokens_WD)
        stop = min(start + self._chunk_frames, self._last_frame + 1)
        past = self._model.context_frames
        first, last = start - past, stop + self._model.lookahead_frames
        frames = range(first - self._mel_frame, last - self._mel_frame)
        spec, names = self._spec, self._features.names
        windows = mel_windows(self._mel_CM, frames, spec.fps, spec, names).to(self._device)
        tokens_WD = self._model.encode_audio(windows[None], reference)[0, past:][: stop - start]
        if self._lip_motion is not None and self._lip_prior is not None:
            lips = self._lip_motion.at(start, stop).to(self._device)
            weight = self._lip_prior.blend_weight
            speech_W = self._lip_motion.speech_weights_at(start, stop).to(tokens_WD)
            blended_WD = self._model.set_lip_motion(tokens_WD, lips, weight)
            if weight and speech_W.min() < 1:
                # The generator also moves the lips with music and noise.
                still = self._silent_lips(reference).lerp(lips, weight)
                still_WD = self._model.set_lip_motion(tokens_WD, still, 1.0)
                blended_WD = still_WD.lerp(blended_WD, speech_W[:, None])
            tokens_WD = blended_WD
        if len(self._tokens_WD):
            tokens_WD = torch.cat([self._tokens_WD, tokens_WD])
        self._tokens_WD = tokens_WD

    def _silent_lips(self, reference: ReferenceFeatures) -> Tensor:
        """Return the generator's lip motion [20, 2] in silence."""
        if self._silence is None or self._silence[0] is not reference:
            past, ahead = self._model.context_frames, self._model.lookahead_frames
            window = self._features.silence(self._spec.mel_window).to(self._device)
            audio = window.expand(1, past + 1 + ahead, -1, -1)
            token_D = self._model.encode_audio(audio, reference)[0, past]
            self._silence = reference, self._model.decode_lip_motion(token_D)
        return self._silence[1]

    def _drop_before(self, frame: int, reference: ReferenceFeatures) -> None:
        """Free the memory of grid frames before `frame`, and of tokens of other references."""
        if reference is not self._reference:
            self._reference, self._token_frame, self._tokens_WD = reference, frame, torch.empty(0)
        self._tokens_WD = self._tokens_WD[frame - self._token_frame :]
        self._token_frame = frame
        self._drop_speech_before(frame)

    def _drop_speech_before(self, frame: int) -> None:
        if self._lip_motion is not None:
            self._lip_motion.drop_before(frame)
        # Mel frames are cut only where a mel frame and a grid frame start together. Half a window
        # before the first frame is still needed.
        period = self._mels_per_frame.denominator
        margin = math.ceil(self._spec.mel_window / self._mels_per_frame)
        first = (frame - self._model.context_frames - margin) // period * period
        if first > self._mel_frame:
            self._mel_CM = self._mel_CM[:, int((first - self._mel_frame) * self._mels_per_frame) :]
            self._mel_frame = first


def articulate(
    model: GeneratorBackend, tokens_ND: Tensor, silence_D: Tensor, articulation: float
) -> Tensor:
    """Scale the lip motion of tokens, relative to silence, by `articulation` (0 or more).

    Up to 1 the tokens are interpolated with the token of silence. Above 1 only the lip motion is
    changed, since the tokens also control shading, which would become too dark: the opening is
    expanded around a small opening, so that closures remain closures, the width is scaled, and the
    upper lip additionally rises with the opening.
    """
    tokens_ND = silence_D.lerp(tokens_ND, min(1.0, articulation))
    if articulation <= 1:
        return tokens_ND
    silent = model.decode_lip_motion(silence_D)
    change = model.decode_lip_motion(tokens_ND) - silent
    expansion = 1 + _EXPANSION * (articulation - 1)
    change = change * change.new_tensor([articulation, expansion])
    before = signed_gap(change)
    gap = before - (articulation - 1) * _PIVOT_GAP
    gap = _MIN_GAP + _SOFTNESS * F.softplus((gap - _MIN_GAP) / _SOFTNESS)
    rise = _UPPER_LIP_RISE * (1 - 1 / expansion) * gap.clamp_min(0)
    parted, upper_lip = (change.new_tensor(w) for w in (PARTED, _UPPER_LIP_WEIGHTS))
    change[..., 1] += (gap - before)[:, None] * parted - rise[:, None] * upper_lip
    return model.set_lip_motion(tokens_ND, silent + change)
