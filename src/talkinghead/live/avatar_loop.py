"""Play a live avatar in real time, and pass each frame to listeners."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from talkinghead.live.live_avatar import LiveAvatar, LiveFrame

log = logging.getLogger(__name__)

Listener = Callable[[LiveFrame], None]

# Statistics cover the last ten seconds at 25 frames/s.
_NUM_MEASURED = 250
_POLL_S = 0.02


@dataclass(frozen=True)
class LoopStats:
    """Statistics of an `AvatarLoop`.

    Attributes:
        num_frames: Number of frames, with dropped ones.
        num_dropped: Frames whose image was not generated because the loop was behind.
        frames_per_second: Rate of generated images over the last ten seconds.
        generate_ms_p50, generate_ms_p95: Time to generate an image, over the last ten seconds.
        max_lag_ms: Maximum delay of a frame relative to its time, over the last ten seconds.
    """

    num_frames: int = 0
    num_dropped: int = 0
    frames_per_second: float = 0.0
    generate_ms_p50: float = 0.0
    generate_ms_p95: float = 0.0
    max_lag_ms: float = 0.0


class AvatarLoop:
    """A thread that plays a live avatar in real time.

    Each frame is generated while the one before is shown. If the thread is behind by more than a
    frame, images are dropped, but no audio is: the clock of the avatar is the wall clock. While
    there are no listeners and nothing is spoken, the avatar pauses.

    Args:
        avatar: The live avatar; it is closed with the loop.

    Example:
        >>> loop = AvatarLoop(live_avatar)
        >>> loop.add_listener(lambda frame: show(frame.image))
        >>> loop.start()
    """

    def __init__(self, avatar: LiveAvatar) -> None:
        self.avatar = avatar
        self.error: Exception | None = None
        self._listeners: tuple[Listener, ...] = ()
        self._observers: tuple[Listener, ...] = ()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="avatar-loop", daemon=True)
        self._num_frames = self._num_dropped = 0
        # Time of each image, duration of its generation, and lag, in seconds.
        self._measured: deque[tuple[float, float, float]] = deque(maxlen=_NUM_MEASURED)

    def add_listener(self, listener: Listener) -> None:
        """Call a function with each frame, in the loop's thread; it must return quickly."""
        with self._lock:
            self._listeners += (listener,)

    def add_observer(self, observer: Listener) -> None:
        """Add a listener that is called last and does not prevent the avatar from pausing."""
        with self._lock:
            self._observers += (observer,)

    def remove_listener(self, listener: Listener) -> None:
        """Undo `add_listener`."""
        with self._lock:
            self._listeners = tuple(one for one in self._listeners if one != listener)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the avatar."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self.avatar.close()

    @property
    def stats(self) -> LoopStats:
        """Current statistics; this property may be read from any thread."""
        measured = list(self._measured)
        if len(measured) < 2:
            return LoopStats(self._num_frames, self._num_dropped)
        at_s, generate_s, lag_s = np.array(measured).T
        p50, p95 = np.percentile(1000 * generate_s, (50, 95))
        rate = (len(measured) - 1) / max(at_s[-1] - at_s[0], 1e-6)
        return LoopStats(
            self._num_frames,
            self._num_dropped,
            round(float(rate), 2),
            round(float(p50), 1),
            round(float(p95), 1),
            round(float(1000 * lag_s.max()), 1),
        )

    def _run(self) -> None:
        try:
            self._play()
        except Exception as error:
            log.exception("the avatar stopped")
            self.error = error

    def _play(self) -> None:
        # Wall-clock time at which the avatar's clock was at 0; None after a pause.
        zero_s: float | None = None
        lag_s = 0.0
        while not self._stopped.is_set():
            if not self._listeners and not self.avatar.is_speaking:
                zero_s, lag_s = None, 0.0
                self._stopped.wait(_POLL_S)
                continue
            started_s = time.monotonic()
            is_late = lag_s > float(1 / self.avatar.fps)
            frame = self.avatar.skip_image() if is_late else self.avatar.next_frame()
            done_s = time.monotonic()
            zero_s = started_s - float(frame.time_s) if zero_s is None else zero_s
            wait_s = zero_s + float(frame.time_s + frame.duration_s) - done_s
            lag_s = max(0.0, -wait_s)
            self._count(is_late, done_s, done_s - started_s, lag_s)
            if wait_s > 0 and self._stopped.wait(wait_s):
                return
            for listener in (*self._listeners, *self._observers):
                listener(frame)

    def _count(self, is_dropped: bool, at_s: float, generate_s: float, lag_s: float) -> None:
        self._num_frames += 1
        self._num_dropped += is_dropped
        if not is_dropped:
            self._measured.append((at_s, generate_s, lag_s))
