"""Is anybody speaking? Silero's detector on a stream, and the stream cut into utterances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np

from talkinghead.errors import DependencyError
from talkinghead.media.audio_decoding import Resampler
from talkinghead.types import FloatArray

SAMPLE_RATE = 16_000
WINDOW_SIZE = 512
"""Samples that are judged together: 32 ms."""
_CONTEXT_SIZE = 64
_STATE_SHAPE = (1, 1, 128)
_DETECTOR = "assets/silero_vad_v6.onnx"
# Speech begins where it is likely, and goes on until it is unlikely.
_BEGINS, _GOES_ON = 0.5, 0.35


class Utterance(NamedTuple):
    """What is said between two silences: float32 [num_samples] at 16 kHz, and where it begins."""

    samples: FloatArray
    start_s: float


def voice_activity(chunks: Iterable[FloatArray]) -> Iterator[tuple[FloatArray, float]]:
    """Each window of 32 ms of a stream, and how likely it is that somebody speaks in it.

    By Silero VAD (MIT), as faster-whisper brings it.

    Args:
        chunks: float32 [num_samples] in [-1, 1] at 16 kHz, of any length.

    Yields:
        float32 [512], the last one padded with silence, and a number in [0, 1].

    Raises:
        DependencyError: faster-whisper is not installed, or brings another detector.
    """
    session = _detector()
    state = [np.zeros(_STATE_SHAPE, np.float32)] * 2
    # A window is judged with the end of the one before it.
    held = np.zeros(_CONTEXT_SIZE, np.float32)

    def judge(samples: FloatArray) -> Iterator[tuple[FloatArray, float]]:
        nonlocal held
        samples = np.concatenate([held, samples])
        size = _CONTEXT_SIZE + WINDOW_SIZE
        if len(samples) < size:
            held = samples
            return
        windows = np.lib.stride_tricks.sliding_window_view(samples, size)[::WINDOW_SIZE]
        held = samples[len(windows) * WINDOW_SIZE :]
        likely, *state[:] = session.run(
            None, {"input": np.ascontiguousarray(windows), "h": state[0], "c": state[1]}
        )
        yield from zip(windows[:, _CONTEXT_SIZE:], likely.tolist(), strict=True)

    for chunk in chunks:
        yield from judge(chunk)
    if rest := len(held) - _CONTEXT_SIZE:
        yield from judge(np.zeros(WINDOW_SIZE - rest, np.float32))


def utterances(
    chunks: Iterable[FloatArray],
    min_silence_s: float = 0.5,
    max_s: float = 28.0,
    padding_s: float = 0.2,
    min_speech_s: float = 0.1,
) -> Iterator[Utterance]:
    """A stream cut at its silences, each utterance as soon as it has ended, in bounded memory.

    Args:
        chunks: as of `voice_activity`.
        min_silence_s: an utterance ends with so long a silence.
        max_s: a longer one is cut in its second half, where speech is least likely.
        padding_s: what is kept of the silence on both sides.
        min_speech_s: what is shorter is a noise.

    Raises:
        DependencyError: as `voice_activity`.
    """
    min_silence, longest, padding, min_speech = (
        max(1, round(seconds * SAMPLE_RATE / WINDOW_SIZE))
        for seconds in (min_silence_s, max_s, padding_s, min_speech_s)
    )
    held: list[FloatArray] = []
    likely: list[float] = []
    first, num_silent, speaking = 0, 0, False

    def take(count: int) -> Iterator[Utterance]:
        """Lets go of the first windows: an utterance, if anybody speaks in them."""
        nonlocal first
        if sum(p >= _BEGINS for p in likely[:count]) >= min_speech:
            yield Utterance(np.concatenate(held[:count]), first * WINDOW_SIZE / SAMPLE_RATE)
        del held[:count], likely[:count]
        first += count

    for window, p in voice_activity(chunks):
        held.append(window)
        likely.append(p)
        num_silent = 0 if p >= (_GOES_ON if speaking else _BEGINS) else num_silent + 1
        speaking = speaking or num_silent == 0
        if not speaking:
            yield from take(max(0, len(held) - padding))
        elif num_silent >= min_silence:
            yield from take(len(held) - max(0, num_silent - padding))
            speaking = False
        elif len(held) >= longest:
            half = len(held) // 2
            yield from take(half + int(np.argmin(likely[half:])))
    if speaking:
        yield from take(len(held) - max(0, num_silent - padding))


def listen(
    chunks: Iterable[FloatArray],
    sample_rate: int,
    min_silence_s: float = 0.5,
    max_s: float = 28.0,
    cancel: Event | None = None,
) -> Iterator[Utterance]:
    """The utterances of a stream at any rate, until it is cancelled.

    Args:
        chunks: float32 [num_samples] in [-1, 1], mono, of any length; NaN is silence.
        sample_rate: theirs, in Hz.
        min_silence_s: see `utterances`.
        max_s: see `utterances`.
        cancel: ends it early.

    Raises:
        DependencyError: as `voice_activity`.
    """

    def resampled() -> Iterator[FloatArray]:
        resampler = Resampler(sample_rate, SAMPLE_RATE)
        for chunk in chunks:
            if cancel is not None and cancel.is_set():
                return
            yield from resampler.push(np.nan_to_num(chunk).astype(np.float32, copy=False))
        yield from resampler.flush()

    for utterance in utterances(resampled(), min_silence_s, max_s):
        if cancel is not None and cancel.is_set():
            return
        yield utterance


def _detector() -> Any:
    spec = find_spec("faster_whisper")
    path = Path(spec.origin).parent / _DETECTOR if spec and spec.origin else None
    if path is None or not path.is_file():
        raise DependencyError(
            "to hear whether somebody speaks needs faster-whisper 1.2 or later: "
            "pip install 'talkinghead[offline]'"
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
