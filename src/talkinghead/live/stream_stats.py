"""How well a stream keeps up."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

# Ten minutes at 25 frames/s: a stream of days must not fill the memory.
_KEPT = 15_000


@dataclass(frozen=True)
class RealtimeStats:
    """Figures of a stream so far.

    Attributes:
        num_frames: made.
        num_late: of these, made later than the stream's `max_latency_s` after their speech came.
        num_skipped: left out, because their moment had passed.
        queue_depth: frames that waited to be made when the last speech came.
        max_queue_depth: the most that ever did.
        latency_p50_s, latency_p95_s: from the arrival of the last speech that a frame needed to the
            finished picture, over the last 15,000 frames; NaN before the first.
        frames_per_second: over all the time since the first speech came.
    """

    num_frames: int
    num_late: int
    num_skipped: int
    queue_depth: int
    max_queue_depth: int
    latency_p50_s: float
    latency_p95_s: float
    frames_per_second: float


class Meter:
    """Counts and times the frames of one stream."""

    def __init__(self, max_latency_s: float) -> None:
        self._max_latency_s = max_latency_s
        self._latencies_s: deque[float] = deque(maxlen=_KEPT)
        self._started_s: float | None = None
        self._last_s = 0.0
        self._num_frames = self._num_late = self._num_skipped = 0
        self._queue_depth = self._max_queue_depth = 0

    def speech(self, arrived_s: float, num_waiting: int, num_skipped: int) -> None:
        """Speech came, and with it so many frames can be made, so many are left out."""
        if self._started_s is None:
            self._started_s = self._last_s = arrived_s
        self._queue_depth = num_waiting
        self._max_queue_depth = max(self._max_queue_depth, num_waiting)
        self._num_skipped += num_skipped

    def frame(self, arrived_s: float, now_s: float) -> None:
        """A frame is finished whose speech came at `arrived_s`."""
        self._last_s = now_s
        self._num_frames += 1
        self._num_late += now_s - arrived_s > self._max_latency_s
        self._latencies_s.append(now_s - arrived_s)

    def read(self) -> RealtimeStats:
        """The figures so far."""
        latencies_s = list(self._latencies_s) or [float("nan")]
        p50_s, p95_s = np.percentile(latencies_s, (50, 95))
        elapsed_s = self._last_s - (self._started_s or 0.0)
        return RealtimeStats(
            self._num_frames,
            self._num_late,
            self._num_skipped,
            self._queue_depth,
            self._max_queue_depth,
            float(p50_s),
            float(p95_s),
            self._num_frames / elapsed_s if elapsed_s > 0 else 0.0,
        )
