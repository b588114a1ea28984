"""Speech in chunks of any size to finished frames, the same as from the whole file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import NamedTuple

import numpy as np

from talkinghead.errors import MediaError, UsageError
from talkinghead.live.stream_stats import Meter, RealtimeStats
from talkinghead.predict.avatar import Avatar
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import FloatArray, UInt8Array

# Frames made at once where many can be: quicker than one by one, and few enough to come soon.
_BATCH = 8
_LIVE_LATENCY_S = 0.2


class RealtimeFrame(NamedTuple):
    """A picture uint8 [H, W, 3] RGB, to be shown from `time_s` of the speech on."""

    image: UInt8Array
    time_s: Fraction


class RealtimeLipSync:
    """Makes an avatar speak while the speech still comes.

    The speech is the clock: a frame's time is counted in samples, so it cannot drift. A frame comes
    out of the `push` that brings the last speech it needs. The work is done in the caller's thread;
    one stream belongs to one thread at a time, while its avatar may serve many.

    Args:
        avatar: who speaks.
        max_latency_s: a frame that is finished later than this after its speech came is counted as
            late.

    Attributes:
        sample_rate: of the speech, in Hz.
        lookahead_s: how far beyond the middle of a frame, the moment that it stands for, speech
            must at the most have been heard: half the audio window and the model's look-ahead. A
            frame off the model's time grid (of a video at another rate) waits for the next on it.
        playback_delay_s: how long after it came speech is to be played, so that a frame that is not
            late is there in its time.
    """

    def __init__(self, avatar: Avatar, max_latency_s: float = _LIVE_LATENCY_S) -> None:
        self.avatar = avatar
        spec = avatar.predictor.spec
        self.sample_rate = spec.sample_rate
        durations_s = {frame.duration_s for frame in chain(*avatar.pictures)}
        self._mouths = avatar.predictor.mouth_generator()
        self.lookahead_s = float(
            self._mouths.tokens.lookahead_s(on_grid=durations_s == {1 / spec.fps})
        )
        self.playback_delay_s = self.lookahead_s + float(max(durations_s)) / 2 + max_latency_s
        self._max_latency_s = max_latency_s
        self.reset()

    def reset(self) -> None:
        """Begins a new stream, at time 0 and with the avatar's first picture."""
        self._mouths.tokens.reset()
        self._compositor = self.avatar.predictor.compositor()
        self._frames = self.avatar.source.play()
        self._next = next(self._frames)
        self._meter = Meter(self._max_latency_s)

    @property
    def stats(self) -> RealtimeStats:
        """Figures of the stream since the last `reset`; may be read from any thread."""
        return self._meter.read()

    def push(
        self,
        audio: FloatArray,
        *,
        arrived_s: float | None = None,
        skip_before_s: float | Fraction = 0,
    ) -> list[RealtimeFrame]:
        """Takes more speech and gives the frames that can be made now, in order.

        Args:
            audio: float32 [num_samples] in [-1, 1], mono, at `sample_rate`; as many as there are.
            arrived_s: when it came, on `time.monotonic`'s clock; by default now. For who hands it
                on later than it came, so that the latency is told as it is.
            skip_before_s: frames that should have been shown before this time of the speech are
                left out: so an application that has fallen behind its sound catches up.

        Raises:
            MediaError: the audio is not float mono.
            UsageError: the stream was flushed; `reset` begins a new one.
        """
        self._refuse_after_end()
        arrived_s = time.monotonic() if arrived_s is None else arrived_s
        self._mouths.tokens.push(_checked(audio))
        return list(self._make(arrived_s, skip_before_s))

    def flush(self) -> list[RealtimeFrame]:
        """Ends the speech and gives the frames that are left; after it only `reset` may follow.

        Raises:
            UsageError: the stream was flushed before.
        """
        self._refuse_after_end()
        self._mouths.tokens.finish()
        return list(self._make(time.monotonic(), 0))

    def stream(self, chunks: Iterable[FloatArray]) -> Iterator[RealtimeFrame]:
        """Pushes all of the chunks, as they come, and flushes."""
        for chunk in chunks:
            yield from self.push(chunk)
        yield from self.flush()

    def _make(self, arrived_s: float, skip_before_s: float | Fraction) -> Iterator[RealtimeFrame]:
        heard = list(self._take())
        waiting = [frame for frame in heard if frame.time_s >= skip_before_s]
        num_pictures, num_waiting = (sum(f.is_last for f in some) for some in (heard, waiting))
        self._meter.speech(arrived_s, num_waiting, num_pictures - num_waiting)
        for start in range(0, len(waiting), _BATCH):
            for frame in self._mouths.generate(waiting[start : start + _BATCH]):
                image, _ = self._compositor.composite(frame)
                if frame.source.is_last:
                    self._meter.frame(arrived_s, time.monotonic())
                    yield RealtimeFrame(image, frame.source.time_s)

    def _take(self) -> Iterator[SourceFrame]:
        """The avatar's next frames whose speech was heard."""
        tokens = self._mouths.tokens
        while tokens.has(self._next.middle_s):
            if tokens.duration_s is not None and self._next.time_s >= tokens.duration_s:
                return
            yield self._next
            self._next = next(self._frames)

    def _refuse_after_end(self) -> None:
        if self._mouths.tokens.duration_s is not None:
            raise UsageError("the stream has ended with flush(): call reset() to begin another")


def _checked(audio: FloatArray) -> FloatArray:
    if audio.ndim != 1 or not np.issubdtype(audio.dtype, np.floating):
        raise MediaError(
            f"the audio is {audio.dtype} {list(audio.shape)}; expected float32 [num_samples], mono "
            "in [-1, 1]: mix its channels, and divide int16 by 32768"
        )
    return np.nan_to_num(audio.astype(np.float32, copy=False))
