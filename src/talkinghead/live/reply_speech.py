"""The speech of one reply of a live avatar: its audio for playback, and its audio tokens."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import numpy as np

from talkinghead.concurrency import lower_thread_priority
from talkinghead.errors import UsageError
from talkinghead.media.audio_decoding import Resampler
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior, LipPriorStream
from talkinghead.predict.audio.phonemes import Phoneme
from talkinghead.predict.avatar import AvatarPredictor
from talkinghead.predict.mouth_generator import GeneratedFrame, MouthGenerator
from talkinghead.predict.source.head.expression.emotions import Emotion
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import FloatArray

# Silence after a reply, in which the mouth closes.
_TAIL_S = 0.2
_FADE_S = 0.02
# Speech is prepared in pieces, so that the first frame does not wait for a long sentence.
_PIECE_S = 0.4
# Prepared speech is analysed at most this far ahead of its frame: a frame must not wait for the
# analysis of minutes of speech, but the audio encoder is faster with a second at once.
_ANALYSED_S = Fraction(1)


class _Mouths(NamedTuple):
    """Mouths of an image, generated for a time of the speech."""

    faces: list[SourceFrame]
    time_s: Fraction
    mouths: list[GeneratedFrame]


class ReplySpeech:
    """The speech of one reply; callers of `push`, `finish` and `interrupt` hold the avatar's lock.

    Attributes:
        number: Number of the reply.
        source_rate: Sample rate of the pushed speech in Hz.
        mouths: Generator of the mouths, whose tokens are those of this reply.
        predicted: Lip motion of the lip prior, None without a lip prior.
        time_s: Duration of the speech that was played.
        missing_s: Time since the speech stopped arriving.
        is_finished: No more speech follows.
        is_interrupted: The rest of the speech is dropped.
    """

    def __init__(
        self,
        number: int,
        source_rate: int,
        sample_rate: int,
        mouths: MouthGenerator,
        predicted: PredictedMotion | None,
        prepare: Callable[[ReplySpeech, FloatArray | None], None],
    ) -> None:
        self.number, self.source_rate = number, source_rate
        self.mouths, self.predicted = mouths, predicted
        self.time_s = self.missing_s = Fraction(0)
        self.is_finished = self.is_interrupted = False
        self._sample_rate = sample_rate
        self._prepare = prepare
        self._prepared: queue.SimpleQueue[tuple[FloatArray, FloatArray, bool]] = queue.SimpleQueue()
        self._num_pushed = self._num_prepared = self._num_samples = 0
        self._audio = np.zeros(0, np.float32)
        self._fade: FloatArray | None = None
        self._ahead: deque[_Mouths] = deque()  # Generated in advance.

    def push(
        self,
        samples: FloatArray,
        phonemes: Sequence[Phoneme] = (),
        emotion: Emotion | None = None,
    ) -> None:
        """Append speech at `source_rate`, phonemes with times from its start, and its emotion."""
        time_s = self._num_samples / self.source_rate
        self.mouths.phonemes.add(phonemes, time_s)
        self.mouths.emotions.add(emotion, time_s)
        self._num_samples += len(samples)
        size = round(_PIECE_S * self.source_rate)
        for start in range(0, len(samples), size):
            self._num_pushed += 1
            self._prepare(self, samples[start : start + size])

    def finish(self) -> None:
        """Mark the speech as complete."""
        if not self.is_finished:
            self.is_finished = True
            self._prepare(self, None)

    def interrupt(self) -> None:
        """Drop the rest of the speech, apart from a short fade of the audio."""
        self.is_finished = self.is_interrupted = True

    def add_prepared(self, audio: FloatArray, speech: FloatArray, is_last: bool) -> None:
        """Add speech in the rates of the playback and of the model; called by the preparer."""
        self._prepared.put((audio, speech, is_last))
        self._num_prepared += not is_last

    def take(self, size: int, duration_s: Fraction) -> FloatArray | None:
        """Return the next audio, or None if it or the tokens of its frame are not available yet."""
        if self.is_interrupted:
            return self._take_fade(size)
        tokens = self.mouths.tokens
        analysed_s = self.time_s + duration_s + _ANALYSED_S
        while not (self._prepared.empty() or (len(self._audio) >= size and tokens.has(analysed_s))):
            audio, speech, is_last = self._prepared.get()
            self._audio = np.concatenate([self._audio, audio])
            tokens.push(speech)
            if is_last:
                tokens.finish()
        is_over = tokens.duration_s is not None
        if len(self._audio) < size and not is_over:
            return None
        if not tokens.has(self.time_s + duration_s / 2):
            return None
        taken, self._audio = self._audio[:size], self._audio[size:]
        return np.pad(taken, (0, size - len(taken)))

    def generate(
        self, images: Sequence[list[SourceFrame]], articulation: float
    ) -> list[GeneratedFrame]:
        """Return the mouths of the next image.

        Those of the following images are generated with them if their speech is available, because
        a batch takes less time for each. They are used by later calls with the same articulation.

        Args:
            images: The faces of the next image, and of those that follow.
            articulation: Scale of the lip motion.
        """
        while self._ahead and self._ahead[0].faces is not images[0]:
            self._ahead.popleft()
        if not self.has_mouths(images[0]) or self.mouths.articulation != articulation:
            self.mouths.articulation = articulation
            self._ahead = deque(self._generate_batch(images))
        return self._ahead.popleft().mouths

    def has_mouths(self, faces: list[SourceFrame]) -> bool:
        """Return whether the mouths of the next image, with these faces, are already generated."""
        ahead = self._ahead[0] if self._ahead else None
        return ahead is not None and ahead.faces is faces and ahead.time_s == self.time_s

    def _generate_batch(self, images: Sequence[list[SourceFrame]]) -> Iterator[_Mouths]:
        times_s = [self.time_s]
        for faces in images[:-1]:
            time_s = times_s[-1] + faces[0].duration_s
            if not self.mouths.tokens.has(time_s + faces[0].duration_s / 2):
                break
            times_s.append(time_s)
        timed = [
            replace(face, time_s=time_s)
            for faces, time_s in zip(images, times_s, strict=False)
            for face in faces
        ]
        generated = self.mouths.generate(timed)
        for faces, time_s in zip(images, times_s, strict=False):
            yield _Mouths(faces, time_s, list(islice(generated, len(faces))))

    @property
    def is_starved(self) -> bool:
        """Whether all pushed speech has been prepared, so that `push` must be called again."""
        return self._num_pushed == self._num_prepared

    @property
    def is_played(self) -> bool:
        """Whether all speech was played."""
        return self.mouths.tokens.duration_s is not None and not len(self._audio)

    def _take_fade(self, size: int) -> FloatArray:
        if self._fade is None:
            length = min(round(_FADE_S * self._sample_rate), len(self._audio))
            self._fade = self._audio[:length] * np.linspace(1, 0, length, dtype=np.float32)
        taken, self._fade = self._fade[:size], self._fade[size:]
        return np.pad(taken, (0, size - len(taken)))


class SpeechPreparer:
    """A thread that resamples the speech of replies and predicts its lip motion.

    A lip prior may take 0.1 s for a block, which must not delay the frames.

    Args:
        predictor: Predictor of the avatar.
        sample_rate: Sample rate of the playback in Hz.
    """

    def __init__(self, predictor: AvatarPredictor, sample_rate: int) -> None:
        self._predictor, self._sample_rate = predictor, sample_rate
        self._work: queue.SimpleQueue[tuple[ReplySpeech, FloatArray | None] | None] = (
            queue.SimpleQueue()
        )
        self._is_closed = False
        self._error: Exception | None = None
        self._streams: tuple[ReplySpeech, _SpeechStreams] | None = None
        self._thread = threading.Thread(target=self._run, name="live-speech", daemon=True)
        self._thread.start()

    def start_reply(self, number: int, source_rate: int) -> ReplySpeech:
        """Return the speech of a new reply."""
        if self._is_closed:
            raise UsageError("the live avatar is closed: make another LiveAvatar")
        own = self._predictor.lip_prior
        predicted = None if own is None else PredictedMotion(own)
        mouths = self._predictor.mouth_generator(lip_prior=predicted)
        return ReplySpeech(
            number,
            source_rate,
            self._sample_rate,
            mouths,
            predicted,
            lambda reply, samples: self._work.put((reply, samples)),
        )

    def raise_error(self) -> None:
        """Raise the exception that has ended the preparation of speech, if there is one."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the thread."""
        self._is_closed = True
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        lower_thread_priority()  # The frames must not wait for the speech of later seconds.
        while (item := self._work.get()) is not None:
            reply, samples = item
            if reply.is_interrupted or self._is_closed:
                continue
            try:
                self._add(reply, samples)
            except Exception as error:  # noqa: BLE001 - raised by `raise_error`
                self._error = error
                return

    def _add(self, reply: ReplySpeech, samples: FloatArray | None) -> None:
        if self._streams is None or self._streams[0] is not reply:
            self._streams = reply, _SpeechStreams(reply, self._sample_rate, self._predictor)
        self._streams[1].add(samples)


class _SpeechStreams:
    """Resamplers and lip prior of the reply that is being prepared."""

    def __init__(self, reply: ReplySpeech, sample_rate: int, predictor: AvatarPredictor) -> None:
        spec = predictor.spec
        self._reply = reply
        self._playback = Resampler(reply.source_rate, sample_rate)
        self._model = Resampler(reply.source_rate, spec.sample_rate)
        self._lips = None
        if reply.predicted is not None:
            self._lips = LipPriorStream(reply.predicted.lip_prior, spec)

    def add(self, samples: FloatArray | None) -> None:
        is_last = samples is None
        if samples is None:
            samples = np.zeros(round(_TAIL_S * self._reply.source_rate), np.float32)
        playback, speech = (
            _join([*stream.push(samples), *(stream.flush() if is_last else ())])
            for stream in (self._playback, self._model)
        )
        if self._lips is not None and self._reply.predicted is not None:
            self._lips.push(speech)
            if is_last:
                self._lips.finish()
            self._reply.predicted.add(self._lips)
        self._reply.add_prepared(playback, speech, is_last)


class PredictedMotion(LipPrior):
    """A lip prior that returns the motion predicted with another lip prior in another thread."""

    def __init__(self, lip_prior: LipPrior) -> None:
        self.lip_prior = lip_prior
        self.past_s, self.block_s = lip_prior.past_s, lip_prior.block_s
        self.ahead_s, self.blend_weight = lip_prior.ahead_s, lip_prior.blend_weight
        self.sample_rate, self.fps = lip_prior.sample_rate, lip_prior.fps
        self._blocks: dict[int, FloatArray] = {}
        self._weights: deque[FloatArray] = deque()
        self._num_frames = 0

    def add(self, lips: LipPriorStream) -> None:
        """Add the motion predicted so far."""
        block = int(self.block_s * self.fps)
        motion = lips.at(self._num_frames, lips.num_frames).numpy()
        weights = lips.speech_weights_at(self._num_frames, lips.num_frames).numpy()
        for frame in range(0, len(motion), block):
            self._weights.append(weights[frame : frame + block])
            self._blocks[self._num_frames + frame] = motion[frame : frame + block]
        self._num_frames = lips.num_frames
        lips.drop_before(lips.num_frames)

    def predict_motion(self, windows: FloatArray, first_frame: int) -> FloatArray:
        """Return the motion of blocks that was predicted before (see `LipPrior`)."""
        block = int(self.block_s * self.fps)
        return np.stack([self._blocks.pop(first_frame + i * block) for i in range(len(windows))])

    def speech_weights(self, windows: FloatArray) -> FloatArray:
        """Return the weights of speech of the next blocks (see `LipPrior`)."""
        return np.stack([self._weights.popleft() for _ in windows])


def _join(chunks: list[FloatArray]) -> FloatArray:
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
