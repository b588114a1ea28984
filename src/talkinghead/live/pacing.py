"""Release video frames in synchrony with the audio playback."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from talkinghead.concurrency import ExclusiveUse
from talkinghead.live.streaming import RealtimeFrame


class AudioClock:
    """A wall clock for the playback position in seconds, which is negative before the start.

    The clock starts when the object is constructed. If a sound card plays the speech, use the
    number of samples played instead: sound cards drift from the wall clock.

    Args:
        delay_s: Time in seconds until playback starts: the stream's `playback_delay_s`.
        now: Monotonic clock in seconds.
    """

    def __init__(self, delay_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._playback_start_s = now() + delay_s

    def __call__(self) -> float:
        """Return the playback position in seconds."""
        return self._now() - self._playback_start_s


class FramePacer:
    """A pacer that releases frames at their times on the audio clock, and late frames at once.

    Each wait is relative to the clock, not to the frame before, so timing errors do not accumulate.
    One caller at a time: a second raises a `UsageError`.

    Args:
        clock: Playback position of the speech in seconds, such as an `AudioClock`.
        sleep: Function that waits for a number of seconds.

    Attributes:
        num_released: Number of released frames.
        num_late: Number of frames released after their time.
        last_delay_s: Delay of the last frame relative to its time.
        max_delay_s: Maximum delay of a frame.
    """

    def __init__(
        self, clock: Callable[[], float], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._use = ExclusiveUse("the pacer", "make one FramePacer per stream")
        self.num_released = self.num_late = 0
        self.last_delay_s = self.max_delay_s = 0.0

    def release(self, frames: Iterable[RealtimeFrame]) -> Iterator[RealtimeFrame]:
        """Yield each frame when the clock reaches the time of the frame."""
        for frame in frames:
            self.wait(float(frame.time_s))
            yield frame

    def wait(self, time_s: float) -> None:
        """Wait until the clock reaches a time of the speech, and update the statistics."""
        with self._use:
            delay_s = self._clock() - time_s
            self.num_late += delay_s > 0
            while delay_s < 0:
                self._sleep(-delay_s)
                delay_s = self._clock() - time_s
            self.num_released += 1
            self.last_delay_s = delay_s
            self.max_delay_s = max(self.max_delay_s, delay_s)
