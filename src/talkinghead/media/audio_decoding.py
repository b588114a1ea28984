"""Reading sound: any layout and rate to mono float32, in step with the video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt

from talkinghead.errors import MediaError
from talkinghead.media.container import container_duration_s, decode, find_video, open_input
from talkinghead.media.timing import round_half_up
from talkinghead.types import AudioClip, FloatArray

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.layout import AudioChannel
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# ITU-R BS.775 shares of the channels in a mono sum (brought to a sum of one): speech is in the
# centre, no LFE.
_SHARES = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_OTHER_SHARE = 0.5
# Timestamps jitter by less than this; a longer gap is lost sound and becomes silence.
_GAP_S = Fraction(1, 10)
# The longest believable gap in a file that does not state its length.
# The longest believable gap in a file that does not state its length.
_LONGEST_GAP_S = 60


def read_audio(path: Path | str, sample_rate: int) -> AudioClip:
    """The first sound of a file, whole.

    Sample 0 is the moment of the first picture: sound that starts later is padded with silence,
    sound that starts earlier is cut. A file without pictures begins with its first sample.

    Args:
        path: a video or sound file.
        sample_rate: Hz wanted.

    Returns:
        Mono float32 in [-1, 1].

    Raises:
        MediaError: the file cannot be read, has no sound, has no samples or nothing but NaN, or is
            truncated.
    """
    chunks = list(stream_audio(path, sample_rate))
    return AudioClip(np.concatenate(chunks), sample_rate)


def stream_audio(path: Path | str, sample_rate: int, chunk_s: float = 1.0) -> Iterator[FloatArray]:
    """The samples of `read_audio`, bit for bit, in chunks of `chunk_s` s (the last is shorter).

    Args:
        path: a video or sound file.
        sample_rate: Hz wanted.
        chunk_s: seconds of a chunk.

    Raises:
        MediaError: as `read_audio`; at once when the file has no sound, else when the reading comes
            to the fault.
    """
    container = open_input(path)
    if not container.streams.audio:
        container.close()
        raise MediaError(
            f"{path}: has no sound, and speech is needed; give a file with an audio track"
        )
    return _rechunk(_resampled(container, path, sample_rate), max(1, round(chunk_s * sample_rate)))


def _rechunk(pieces: Iterator[FloatArray], size: int) -> Iterator[FloatArray]:
    held: list[FloatArray] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) < size:
            continue
        joined = np.concatenate(held)
        whole = len(joined) - len(joined) % size
        yield from joined[:whole].reshape(-1, size)
        held = [joined[whole:]]
    rest = np.concatenate(held) if held else np.zeros(0, np.float32)
    if len(rest):
        yield rest


def _resampled(
    container: InputContainer, path: Path | str, sample_rate: int
) -> Iterator[FloatArray]:
    num_samples, any_finite = 0, False
    resampler: Resampler | None = None
    with container:
        for samples, rate in _aligned(container, path):
            if resampler is None or resampler.source_rate != rate:
                yield from resampler.flush() if resampler else ()
                resampler = Resampler(rate, sample_rate)
            num_samples += len(samples)
            finite = np.isfinite(samples)
            any_finite = any_finite or bool(finite.any())
            yield from resampler.push(np.where(finite, samples, np.float32(0)))
        yield from resampler.flush() if resampler else ()
    if not num_samples:
        raise MediaError(f"{path}: its sound has a length of zero; give a file with speech in it")
    if not any_finite:
        raise MediaError(f"{path}: its sound is nothing but NaN; write the file again")


class Resampler:
    """Mono float32 from one rate to another, with state: chunks give what the whole gives.

    Args:
        source_rate: of what is pushed, in Hz.
        sample_rate: of what comes out, in Hz.
    """

    def __init__(self, source_rate: int, sample_rate: int) -> None:
        self.source_rate = source_rate
        self._resampler = None
        if source_rate != sample_rate:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate)

    def push(self, samples: FloatArray) -> Iterator[FloatArray]:
        """Samples [num_samples], of any number, to pieces in [-1, 1]."""
        if self._resampler is None:
            yield np.clip(samples, -1, 1)
        elif len(samples):
            yield from self._convert(mono_frame(samples, self.source_rate))

    def flush(self) -> Iterator[FloatArray]:
        """What is left when all has been pushed."""
        if self._resampler is not None:
            yield from self._convert(None)

    def _convert(self, frame: AudioFrame | None) -> Iterator[FloatArray]:
        assert self._resampler is not None
        for converted in self._resampler.resample(frame):
            yield np.clip(converted.to_ndarray()[0], -1, 1)


def mono_frame(samples: FloatArray, sample_rate: int) -> AudioFrame:
    """PyAV's frame of mono float32 samples."""
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples, dtype=np.float32)[None], format="flt", layout="mono"
    )
    frame.sample_rate = sample_rate
    return frame


def _aligned(container: InputContainer, path: Path | str) -> Iterator[tuple[FloatArray, int]]:
    """Mono samples at the stored rate, with silence where timestamps say that sound is missing."""
    video = find_video(container, path)
    position_s: Fraction | None = None
    if video is not None and video.start_time is not None and video.time_base:
        position_s = video.start_time * video.time_base
    longest_gap_s = container_duration_s(container) or _LONGEST_GAP_S
    stream = container.streams.audio[0]
    end_s = _exact_end_s(container, stream)
    started = False
    for frame in decode(container, stream, path):
        samples, rate = _to_mono(frame), frame.sample_rate
        start_s = position_s if frame.pts is None else frame.pts * frame.time_base
        position_s = start_s if position_s is None else position_s
        gap_s = (start_s or 0) - (position_s or 0)
        if not started and gap_s < 0:
            samples, gap_s = samples[round_half_up(-gap_s * rate) :], Fraction(0)
            if not len(samples):
                continue
        if (_GAP_S if started else 0) < gap_s <= longest_gap_s:
            silence = np.zeros(round_half_up(gap_s * rate), np.float32)
            samples = np.concatenate([silence, samples])
        elif abs(gap_s) > _GAP_S:
            # The clock jumped (a stream's wrapped or reset): go on from where it is now.
            position_s = start_s
        position_s = (position_s or 0) + Fraction(len(samples), rate)
        started = True
        if end_s is not None and 0 < position_s - end_s < _GAP_S:
            samples = samples[: max(0, len(samples) - round_half_up((position_s - end_s) * rate))]
        yield samples, rate


def _exact_end_s(container: InputContainer, stream: AudioStream) -> Fraction | None:
    """Where sound ends by its header: a codec's last frame is padded, and MP4 says by how much."""
    if (
        stream.duration is None
        or stream.time_base is None
        or not container.format.name.startswith("mov")
    ):
        return None
    return (stream.duration + (stream.start_time or 0)) * stream.time_base


def _to_mono(frame: AudioFrame) -> FloatArray:
    """One frame's channels brought to float32 and summed: float32 [num_samples]."""
    raw: npt.NDArray[Any] = frame.to_ndarray()
    channels = frame.layout.channels
    if not frame.format.is_planar:
        raw = raw.reshape(-1, len(channels)).T
    scaled: FloatArray = raw.astype(np.float32)
    if raw.dtype == np.uint8:
        scaled = (scaled - 128) / np.float32(128)
    elif raw.dtype.kind == "i":
        scaled /= 2.0 ** (8 * raw.itemsize - 1)
    return _shares(channels) @ scaled


def _shares(channels: tuple[AudioChannel, ...]) -> npt.NDArray[np.float32]:
    shares = np.array([_SHARES.get(c.name, _OTHER_SHARE) for c in channels], np.float32)
    if not shares.any():
        shares[:] = 1
    return shares / shares.sum()
