"""Emotions with times, from the tags in a text that is spoken."""

from __future__ import annotations

from threading import Lock

from talkinghead.predict.source.head.expression.emotions import Emotion


class EmotionTrack:
    """The emotions of a stream of speech, added by one thread and read by another.

    Example:
        >>> track = EmotionTrack()
        >>> track.add(Emotion("happy"), 2.0)
        >>> track.at(1.0), track.at(2.5)
        (None, Emotion(name='happy', intensity=1.0))
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._changes: list[tuple[float, Emotion]] = []

    def add(self, emotion: Emotion | None, time_s: float) -> None:
        """Add an emotion that begins at `time_s`, not before earlier ones; None has no effect."""
        if emotion is not None:
            with self._lock:
                self._changes.append((time_s, emotion))

    def at(self, time_s: float) -> Emotion | None:
        """Return the emotion at a time; None before the first one."""
        with self._lock:
            begun = [emotion for start_s, emotion in self._changes if start_s <= time_s]
        return begun[-1] if begun else None

    def drop_before(self, time_s: float) -> None:
        """Free the memory of the emotions that end before a time."""
        with self._lock:
            while len(self._changes) > 1 and self._changes[1][0] <= time_s:
                del self._changes[0]

    def clear(self) -> None:
        """Remove all emotions."""
        with self._lock:
            self._changes.clear()
