"""Showing frames when their sound is heard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from talkinghead.live.streaming import RealtimeFrame


class AudioClock:
    """How much of the speech a lip_prior has heard, in seconds; negative before it begins.

    It runs with the wall's clock from the moment that it is made. Where a sound card plays the
    speech, count the samples that it has played instead: that is the clock that matters.

    Args:
        delay_s: how long after it came speech is played: a stream's `playback_delay_s`.
        now: seconds, which never run back.
    """

    def __init__(self, delay_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._begins_s = now() + delay_s

    def __call__(self) -> float:
        """Seconds of the speech."""
        return self._now() - self._begins_s


class FramePacer:
    """Gives out each frame when the clock reaches its time, and at once where that has passed.

    The wait is always for the clock and never for a period after the frame before, so errors do not
    add up.

    Args:
        clock: seconds of the speech that were heard, such as an `AudioClock`.
        sleep: waits so many seconds.

    Attributes:
        num_released: frames given out.
        num_late: of these, those that came after their time.
        last_delay_s: how long after its time the last frame was given out.
        max_delay_s: the longest such delay.
    """

    def __init__(
        self, clock: Callable[[], float], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self.num_released = self.num_late = 0
        self.last_delay_s = self.max_delay_s = 0.0

    def release(self, frames: Iterable[RealtimeFrame]) -> Iterator[RealtimeFrame]:
        """The same frames, each in its time."""
        for frame in frames:
            self.wait(float(frame.time_s))
            yield frame

    def wait(self, time_s: float) -> None:
        """Waits until the clock reaches this time of the speech, and counts."""
        delay_s = self._clock() - time_s
        self.num_late += delay_s > 0
        while delay_s < 0:
            self._sleep(-delay_s)
            delay_s = self._clock() - time_s
        self.num_released += 1
        self.last_delay_s = delay_s
        self.max_delay_s = max(self.max_delay_s, delay_s)
