"""Real-time lip-sync: generate frames from chunks of speech, independent of the chunk size."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from math import inf, nan
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from talkinghead.concurrency import ExclusiveUse
from talkinghead.errors import UsageError
from talkinghead.media.audio_samples import to_mono_float32
from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.predict.avatar import Avatar
from talkinghead.predict.source.head.photo_animation import HeadControls
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import UInt8Array

# Maximum number of frames generated together: faster than one by one, without a long delay.
_BATCH_SIZE = 8
# Number of latencies kept: ten minutes at 25 frames/s, which bounds the memory of a long stream.
_MAX_LATENCIES = 15_000


class RealtimeFrame(NamedTuple):
    """An image, uint8 [H, W, 3] RGB, and the time of the speech at which to show the image."""

    image: UInt8Array
    time_s: Fraction


@dataclass(frozen=True)
class RealtimeStats:
    """Statistics of a real-time stream.

    Attributes:
        num_frames: Number of generated frames.
        num_late: Frames generated later than `max_latency_s` after their speech arrived.
        num_skipped: Frames dropped because they were already due.
        queue_depth: Number of frames due when the last speech arrived.
        max_queue_depth: Maximum of `queue_depth`.
        latency_p50_s, latency_p95_s: Median and 95th percentile of the time from the arrival of the
            last speech that a frame needs to the finished image, over the last 15,000 frames; NaN
            before the first.
        frames_per_second: Mean rate since the first speech arrived.
    """

    num_frames: int = 0
    num_late: int = 0
    num_skipped: int = 0
    queue_depth: int = 0
    max_queue_depth: int = 0
    latency_p50_s: float = nan
    latency_p95_s: float = nan
    frames_per_second: float = 0.0


class RealtimeLipSync:
    """A stream that generates an avatar's video frames while the speech is still arriving.

    Frame times are counted in samples of the speech, so they cannot drift. A frame is returned by
    the `push` that completes the speech it needs, `lookahead_s` after the frame's own speech.

    Audio is played by the application. Begin to play `playback_delay_s` after the first chunk was
    pushed, and show each frame when the player reaches the frame's `time_s`. Where the speech
    arrives faster than it is played (text to speech), frames are ready early and wait in a
    `FramePacer`; where it arrives in real time (a call), the delay leaves time to make them.

    No frames are made while no speech is pushed. For a pause of known length push zeros, which
    close the mouth and keep the avatar moving. At the end of a reply call `flush`, and `reset`
    before the next one. `close`, or leaving the `with` block, ends the stream.

    Frames are generated in the caller's thread. One caller at a time: a call during another call
    raises a `UsageError`; only `close` waits for it, and `stats` may be read at any time. Several
    streams may use one avatar.

    Args:
        avatar: The avatar to animate.
        max_latency_s: Time in seconds allowed for generating a frame; slower frames count as late.

    Attributes:
        sample_rate: Sample rate of the speech in Hz.
        controls: Emotion, and pose of the heads in a photo, which may be changed between calls.
        lookahead_s: Maximum duration in seconds of the speech needed after the middle of a frame:
            half the audio window and the model's look-ahead. A frame between two of the
            model's time steps (a video at another frame rate) needs one step more.

    Example:
        Speak two replies with a text-to-speech voice. `Player` is the application's audio output:
        it starts to play `delay_s` after the first `write`, and `position_s()` is the number of
        seconds played so far, negative before the start. `show` displays an image.

        >>> from talkinghead import LipSyncPredictor, RealtimeLipSync
        >>> from talkinghead.live.pacing import FramePacer
        >>> from talkinghead.predict.pipeline import in_thread
        >>> from talkinghead.speech.sentence_speech import stream_timed_sentences
        >>> from talkinghead.speech.tts.piper import Piper
        >>> from talkinghead.speech.voice import Voice
        >>> avatar = LipSyncPredictor.from_checkpoint("default").avatar("photo.jpg")
        >>> voice = Voice(Piper())
        >>> with RealtimeLipSync(avatar) as stream:
        ...     def frames(reply, player):
        ...         rate = stream.sample_rate
        ...         for chunk in stream_timed_sentences(reply, voice, sample_rate=rate):
        ...             player.write(chunk.samples)
        ...             yield from stream.push(chunk)
        ...         yield from stream.flush()
        ...     for reply in (["Hello. ", "How are you?"], ["Good bye."]):
        ...         player = Player(stream.sample_rate, delay_s=stream.playback_delay_s)
        ...         generated = in_thread(frames(reply, player), 25, "lip-sync")
        ...         for image, time_s in FramePacer(player.position_s).release(generated):
        ...             show(image)
        ...         stream.reset()
    """

    def __init__(self, avatar: Avatar, max_latency_s: float = 0.2) -> None:
        if not isinstance(avatar, Avatar):
            raise UsageError(
                f"expected an Avatar, got {type(avatar).__name__}: use predictor.avatar(face)"
            )
        _check_time("max_latency_s", max_latency_s)
        self.avatar = avatar
        self.controls = HeadControls()
        spec = avatar.predictor.spec
        self.sample_rate = spec.sample_rate
        durations_s = {frame.duration_s for frame in chain(*avatar.face_frames)}
        self._mouths = avatar.predictor.mouth_generator()
        self.lookahead_s = float(
            self._mouths.tokens.lookahead_s(on_grid=durations_s == {1 / spec.fps})
        )
        self._max_frame_s = float(max(durations_s))
        self._max_latency_s = max_latency_s
        self._is_closed = False
        self._use = ExclusiveUse("the stream", "make one RealtimeLipSync per caller")
        self.reset()

    @property
    def playback_delay_s(self) -> float:
        """Delay in seconds from the arrival to the playback of speech that keeps frames on time.

        The sum of the look-ahead, half a frame, and `max_latency_s`.
        """
        return self.lookahead_s + self._max_frame_s / 2 + self._max_latency_s

    @property
    def stats(self) -> RealtimeStats:
        """Statistics since the last `reset`; this property may be read from any thread."""
        return self._meter.snapshot()

    def __enter__(self) -> RealtimeLipSync:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self) -> None:
        """Start a new stream at time 0, with the avatar's first image.

        Raises:
            UsageError: The stream is closed.
        """
        with self._use:
            self._require_open()
            self._mouths.tokens.reset()
            self._mouths.phonemes.clear()
            self._mouths.emotions.clear()
            self._num_samples = 0
            self._compositor = self.avatar.predictor.compositor()
            self._frames = self.avatar.source.play()
            self._next = next(self._frames)
            self._meter = _StreamMeter(self._max_latency_s)

    def close(self) -> None:
        """End the stream and release its buffers; the avatar stays usable."""
        with self._use.wait():
            self._is_closed = True
            self._frames.close()
            self._mouths.tokens.reset()

    def push(
        self,
        audio: NDArray[Any] | TimedSpeech,
        *,
        arrived_s: float | None = None,
        skip_before_s: float | Fraction = 0,
    ) -> list[RealtimeFrame]:
        """Add speech and return the frames that can be generated now, in order.

        Args:
            audio: Mono samples [num_samples] at `sample_rate`, of any length: float32 or float64 in
                [-1, 1], or int16; see `to_mono_float32`, which mixes several channels. NaN and
                infinite values count as silence. Or the same with phonemes, as
                `stream_timed_sentences` yields them.
            arrived_s: When the chunk arrived, on the clock of `time.monotonic`; now by default. Set
                it if the chunk was queued, so that the measured latency includes the queue.
            skip_before_s: Frames due before this time of the speech are dropped, for an application
                that is behind its audio.

        Raises:
            MediaError: The audio has another type, shape or range.
            UsageError: The stream was flushed, and needs `reset`; it is closed; or another caller
                uses it.
        """
        _check_time("skip_before_s", skip_before_s)
        with self._use:
            self._require_unfinished()
            arrived_s = time.monotonic() if arrived_s is None else arrived_s
            timed = audio if isinstance(audio, TimedSpeech) else TimedSpeech(audio)
            samples = to_mono_float32(timed.samples)
            time_s = self._num_samples / self.sample_rate
            self._mouths.phonemes.add(timed.phonemes, time_s)
            self._mouths.emotions.add(timed.emotion, time_s)
            self._num_samples += len(samples)
            self._mouths.tokens.push(samples)
            return list(self._generate(arrived_s, skip_before_s))

    def flush(self) -> list[RealtimeFrame]:
        """End the speech and return the remaining frames; afterwards, only call `reset` or `close`.

        Raises:
            UsageError: The stream was flushed before, or is closed.
        """
        with self._use:
            self._require_unfinished()
            self._mouths.tokens.finish()
            return list(self._generate(time.monotonic(), 0))

    def stream(self, chunks: Iterable[NDArray[Any] | TimedSpeech]) -> Iterator[RealtimeFrame]:
        """Yield the frames for a stream of speech: push each chunk as it arrives, then flush."""
        for chunk in chunks:
            yield from self.push(chunk)
        yield from self.flush()

    def _generate(
        self, arrived_s: float, skip_before_s: float | Fraction
    ) -> Iterator[RealtimeFrame]:
        ready = list(self._ready_frames())
        kept = [frame for frame in ready if frame.time_s >= skip_before_s]
        # An image with several faces has one frame per face; the last frame completes the image.
        num_ready, num_kept = (sum(f.is_last for f in frames) for frames in (ready, kept))
        self._meter.record_speech(arrived_s, num_kept, num_ready - num_kept)
        for start in range(0, len(kept), _BATCH_SIZE):
            for frame in self._mouths.generate(kept[start : start + _BATCH_SIZE]):
                frame.cue = frame.cue.controlled(self.controls)
                image, _ = self._compositor.composite(frame)
                if frame.source.is_last:
                    self._meter.record_frame(arrived_s, time.monotonic())
                    yield RealtimeFrame(image, frame.source.time_s)

    def _ready_frames(self) -> Iterator[SourceFrame]:
        """Yield the next frames of the avatar for which enough speech has arrived."""
        tokens = self._mouths.tokens
        while tokens.has(self._next.middle_s):
            if tokens.duration_s is not None and self._next.time_s >= tokens.duration_s:
                return
            yield self._next
            self._next = next(self._frames)

    def _require_open(self) -> None:
        if self._is_closed:
            raise UsageError("the stream is closed: make another RealtimeLipSync")

    def _require_unfinished(self) -> None:
        self._require_open()
        if self._mouths.tokens.duration_s is not None:
            raise UsageError("the stream has ended with flush(): call reset() to begin another")


def _check_time(name: str, value_s: float | Fraction) -> None:
    if not (isinstance(value_s, Real) and 0 <= value_s < inf):
        raise UsageError(f"{name}={value_s!r}: expected a number of seconds of 0 or more")


class _StreamMeter:
    """Frame counts and latencies of one stream."""

    def __init__(self, max_latency_s: float) -> None:
        self._max_latency_s = max_latency_s
        self._latencies_s: deque[float] = deque(maxlen=_MAX_LATENCIES)
        self._started_s: float | None = None
        self._stats = RealtimeStats()

    def record_speech(self, arrived_s: float, num_due: int, num_skipped: int) -> None:
        self._started_s = arrived_s if self._started_s is None else self._started_s
        self._stats = replace(
            self._stats,
            queue_depth=num_due,
            max_queue_depth=max(self._stats.max_queue_depth, num_due),
            num_skipped=self._stats.num_skipped + num_skipped,
        )

    def record_frame(self, arrived_s: float, now_s: float) -> None:
        latency_s, elapsed_s = now_s - arrived_s, now_s - (self._started_s or 0.0)
        self._latencies_s.append(latency_s)
        num_frames = self._stats.num_frames + 1
        self._stats = replace(
            self._stats,
            num_frames=num_frames,
            num_late=self._stats.num_late + (latency_s > self._max_latency_s),
            frames_per_second=num_frames / elapsed_s if elapsed_s > 0 else 0.0,
        )

    def snapshot(self) -> RealtimeStats:
        latencies_s = list(self._latencies_s)
        p50_s, p95_s = np.percentile(latencies_s, (50, 95)) if latencies_s else (nan, nan)
        return replace(self._stats, latency_p50_s=float(p50_s), latency_p95_s=float(p95_s))
