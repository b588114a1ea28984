"""Play a live avatar in real time, and pass each frame to listeners."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from talkinghead.live.live_avatar import LiveAvatar, LiveFrame

log = logging.getLogger(__name__)

Listener = Callable[[LiveFrame], None]

# Statistics cover the last ten seconds at 25 frames/s.
_NUM_MEASURED = 250
_POLL_S = 0.02
# Frames generated before the previous one is shown. Without them, each delay of the generation
# delays the audio as well, and the receiver needs seconds to align audio and video again.
_NUM_AHEAD = 2


class _Generated(NamedTuple):
    """A generated frame, or one without a new image, and the time of its generation."""

    frame: LiveFrame
    is_skipped: bool
    started_s: float
    done_s: float


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
    """Two threads that generate the frames of a live avatar and play them in real time.

    Two frames are generated in advance (80 ms at 25 frames/s). If the playback is behind by more
    than a frame, images are dropped, but no audio is: the clock of the avatar is the wall clock.
    While there are no listeners and nothing is spoken, the avatar pauses.

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
        # The generating and the playing thread hold a frame each besides the queue.
        self._queue: queue.Queue[_Generated | None] = queue.Queue(_NUM_AHEAD - 1)
        self._is_behind = False
        self._threads = [
            threading.Thread(target=self._run, args=(target,), name=name, daemon=True)
            for target, name in ((self._generate, "avatar-generator"), (self._play, "avatar-loop"))
        ]
        self._num_frames = self._num_dropped = 0
        # Time of each image, duration of its generation, and lag, in seconds.
        self._measured: deque[tuple[float, float, float]] = deque(maxlen=_NUM_MEASURED)

    def add_listener(self, listener: Listener) -> None:
        """Call a function with each frame, in the playing thread; it must return quickly."""
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
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads and close the avatar."""
        self._stopped.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
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

    def _run(self, target: Callable[[], None]) -> None:
        try:
            target()
        except Exception as error:
            log.exception("the avatar stopped")
            self.error = error
            self._stopped.set()

    def _generate(self) -> None:
        """Generate frames, as many in advance as the queue takes."""
        is_paused = True
        while not self._stopped.is_set():
            if not self._listeners and not self.avatar.is_speaking:
                if not is_paused:
                    self._put(None)
                is_paused = True
                self._stopped.wait(_POLL_S)
                continue
            is_paused = False
            # An image whose mouth is already generated takes less time than a frame lasts.
            is_skipped = self._is_behind and not self.avatar.has_next_mouth
            started_s = time.monotonic()
            frame = self.avatar.skip_image() if is_skipped else self.avatar.next_frame()
            self._put(_Generated(frame, is_skipped, started_s, time.monotonic()))

    def _put(self, generated: _Generated | None) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._queue.put(generated, timeout=_POLL_S)
                return

    def _play(self) -> None:
        """Pass each frame to the listeners at its time."""
        # Wall-clock time at which the avatar's clock was at 0; None after a pause.
        zero_s: float | None = None
        while not self._stopped.is_set():
            try:
                generated = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if generated is None:
                zero_s, self._is_behind = None, False
                continue
            frame = generated.frame
            time_s, duration_s = float(frame.time_s), float(frame.duration_s)
            if zero_s is None:
                zero_s = generated.started_s + _NUM_AHEAD * duration_s - time_s
            wait_s = zero_s + time_s + duration_s - time.monotonic()
            lag_s = max(0.0, -wait_s)
            self._is_behind = lag_s > duration_s
            self._count(generated, lag_s)
            if wait_s > 0 and self._stopped.wait(wait_s):
                return
            for listener in (*self._listeners, *self._observers):
                listener(frame)

    def _count(self, generated: _Generated, lag_s: float) -> None:
        self._num_frames += 1
        self._num_dropped += generated.is_skipped
        if not generated.is_skipped:
            generate_s = generated.done_s - generated.started_s
            self._measured.append((generated.done_s, generate_s, lag_s))
