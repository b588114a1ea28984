"""Latency and throughput of a real-time stream."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

# Ten minutes at 25 frames/s, so that the memory of a long stream stays bounded.
_MAX_LATENCIES = 15_000


@dataclass(frozen=True)
class RealtimeStats:
    """Statistics of a stream.

    Attributes:
        num_frames: Number of generated frames.
        num_late: Frames generated later than the stream's `max_latency_s` after their speech
            arrived.
        num_skipped: Frames dropped because they were already due.
        queue_depth: Number of frames due when the last speech arrived.
        max_queue_depth: Maximum of `queue_depth`.
        latency_p50_s, latency_p95_s: Median and 95th percentile of the time from the arrival of the
            last speech that a frame needs to the finished image, over the last 15,000 frames; NaN
            before the first.
        frames_per_second: Mean rate since the first speech arrived.
    """

    num_frames: int
    num_late: int
    num_skipped: int
    queue_depth: int
    max_queue_depth: int
    latency_p50_s: float
    latency_p95_s: float
    frames_per_second: float


class StreamMeter:
    """Count and time the frames of one stream."""

    def __init__(self, max_latency_s: float) -> None:
        self._max_latency_s = max_latency_s
        self._latencies_s: deque[float] = deque(maxlen=_MAX_LATENCIES)
        self._started_s: float | None = None
        self._last_s = 0.0
        nan = float("nan")
        self._stats = RealtimeStats(0, 0, 0, 0, 0, nan, nan, 0.0)

    def record_speech(self, arrived_s: float, num_due: int, num_skipped: int) -> None:
        """Record speech that arrived, and how many frames it makes due and how many are skipped."""
        if self._started_s is None:
            self._started_s = self._last_s = arrived_s
        stats = self._stats
        self._stats = replace(
            stats,
            queue_depth=num_due,
            max_queue_depth=max(stats.max_queue_depth, num_due),
            num_skipped=stats.num_skipped + num_skipped,
        )

    def record_frame(self, arrived_s: float, now_s: float) -> None:
        """Record a finished frame whose speech arrived at `arrived_s`."""
        self._last_s, latency_s, stats = now_s, now_s - arrived_s, self._stats
        self._latencies_s.append(latency_s)
        num_late = stats.num_late + (latency_s > self._max_latency_s)
        self._stats = replace(stats, num_frames=stats.num_frames + 1, num_late=num_late)

    def snapshot(self) -> RealtimeStats:
        """Return the statistics so far."""
        stats, latencies_s = self._stats, list(self._latencies_s)
        if not latencies_s:
            return stats
        p50_s, p95_s = (float(value) for value in np.percentile(latencies_s, (50, 95)))
        elapsed_s = self._last_s - (self._started_s or 0.0)
        rate = stats.num_frames / elapsed_s if elapsed_s > 0 else 0.0
        return replace(stats, latency_p50_s=p50_s, latency_p95_s=p95_s, frames_per_second=rate)
