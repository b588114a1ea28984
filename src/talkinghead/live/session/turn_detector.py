"""Detect the turns of a speaker in microphone audio."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np

from talkinghead.media.audio_decoding import Resampler
from talkinghead.media.audio_samples import to_mono_float32
from talkinghead.speech.voice_activity import SAMPLE_RATE, WINDOW_SIZE, speech_probabilities
from talkinghead.types import FloatArray

# Hysteresis: speech starts above the first probability and ends below the second.
_START_THRESHOLD, _END_THRESHOLD = 0.6, 0.35
# Speech of this duration starts a turn; shorter sounds, such as a click, do not interrupt.
_START_S = 0.096
# Audio kept before the start of a turn, so that its first phoneme is complete.
_PADDING_S = 0.3
# Audio waiting for voice activity detection: 20 s in chunks of 20 ms.
_MAX_CHUNKS = 1000


class TurnEvent(NamedTuple):
    """A change in the turn of the speaker.

    Attributes:
        kind: "start" of a turn; "pause", which may be its end; "resume" after a pause; "end".
        samples: For "pause" and "end", the turn so far, float32 [num_samples] at 16 kHz.
        silence_s: For "pause" and "end", time since the last speech.
    """

    kind: Literal["start", "pause", "resume", "end"]
    samples: FloatArray
    silence_s: float = 0.0


def detect_turns(
    chunks: Iterable[FloatArray],
    sample_rate: int,
    pause_s: float = 0.2,
    end_s: float = 0.6,
    max_s: float = 28.0,
) -> Iterator[TurnEvent]:
    """Yield the events of the turns in a stream of audio; memory is bounded.

    Args:
        chunks: float32 [num_samples] in [-1, 1], mono, of any length; NaN counts as silence.
        sample_rate: Sample rate of the chunks in Hz.
        pause_s: Silence in seconds after which the turn has probably ended, so that transcription
            may begin.
        end_s: Silence in seconds that ends the turn.
        max_s: Maximum length of a turn in seconds; a longer one is ended.

    Raises:
        DependencyError: See `speech_probabilities`.
    """
    window_s = WINDOW_SIZE / SAMPLE_RATE
    start, padding, pause, end = (
        round(seconds / window_s) for seconds in (_START_S, _PADDING_S, pause_s, end_s)
    )
    windows: list[FloatArray] = []
    num_speech = num_silent = 0
    is_turn = False
    mono = map(to_mono_float32, chunks)
    for window, p in speech_probabilities(Resampler(sample_rate, SAMPLE_RATE).stream(mono)):
        windows.append(window)
        is_speech = p >= (_END_THRESHOLD if is_turn else _START_THRESHOLD)
        if not is_turn:
            num_speech = num_speech + 1 if is_speech else 0
            del windows[: -(padding + num_speech) or None]
            if num_speech >= start:
                is_turn, num_silent = True, 0
                yield TurnEvent("start", windows[0][:0])
            continue
        if is_speech and num_silent >= pause:
            yield TurnEvent("resume", windows[0][:0])
        num_silent = 0 if is_speech else num_silent + 1
        if num_silent == pause:
            yield TurnEvent("pause", np.concatenate(windows), num_silent * window_s)
        if num_silent >= end or len(windows) * window_s >= max_s:
            yield TurnEvent("end", np.concatenate(windows), num_silent * window_s)
            windows, num_speech, is_turn = [], 0, False


class TurnListener:
    """A thread that detects the turns in a stream of audio.

    Args:
        on_event: Function of each event, called in the thread.
        on_error: Function of an exception that has ended the thread.
        end_s: See `detect_turns`.
    """

    def __init__(
        self,
        on_event: Callable[[TurnEvent], None],
        on_error: Callable[[Exception], None],
        end_s: float,
    ) -> None:
        self._on_event, self._on_error, self._end_s = on_event, on_error, end_s
        self._chunks: queue.Queue[tuple[FloatArray, int] | None] = queue.Queue(_MAX_CHUNKS)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def push(self, samples: FloatArray, sample_rate: int) -> None:
        """Add audio as it arrives; it is dropped while detection is 20 s behind."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="listen", daemon=True)
                self._thread.start()
        with suppress(queue.Full):
            self._chunks.put_nowait((samples, sample_rate))

    def close(self) -> None:
        """End the thread."""
        if self._thread is None:
            return
        while self._chunks.full():  # The thread may have ended.
            with suppress(queue.Empty):
                self._chunks.get_nowait()
        self._chunks.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            if (first := self._chunks.get()) is None:
                return
            items = chain([first], iter(self._chunks.get, None))
            chunks = (item[0] for item in items if item is not None)
            for event in detect_turns(chunks, first[1], end_s=self._end_s):
                self._on_event(event)
        except Exception as error:  # noqa: BLE001 - passed on
            self._on_error(error)
