"""Decoding of audio of any layout and sample rate to mono float32, aligned with the video."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt

from talkinghead.errors import MediaError
from talkinghead.media.audio_samples import ChannelMixer
from talkinghead.media.container import (
    container_duration_s,
    decode,
    find_audio,
    find_video,
    open_input,
)
from talkinghead.media.decoding.channel_layouts import USUAL_LAYOUTS, read_layout, use_usual_layout
from talkinghead.media.timing import round_half_up
from talkinghead.types import AudioClip, FloatArray

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.layout import AudioLayout
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# Weights of the channels in the mono sum, from ITU-R BS.775; they are normalised to a sum of 1. The
# centre channel has the highest weight because it contains the speech.
_CHANNEL_WEIGHTS = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_OTHER_WEIGHT = 0.5
# A shorter gap between timestamps is jitter; a longer gap is lost audio and is filled with silence.
_GAP_S = Fraction(1, 10)
# Maximum length of a plausible gap if the duration of the file is unknown.
_LONGEST_GAP_S = 60
# Number of channels from which PyAV reads one plane too many of a planar frame.
_MISCOUNTED_CHANNELS = 8


def read_audio(path: Path | str, sample_rate: int) -> AudioClip:
    """Read the default audio stream of a file (see `find_audio`).

    Sample 0 is at the time of the first video frame: audio that starts later is padded with
    silence, audio that starts earlier is cut. A file without video starts with its first sample.

    Returns:
        Mono float32 in [-1, 1], resampled to `sample_rate` Hz.

    Raises:
        MediaError: the file cannot be read, has no audio, no samples or only NaN, or is truncated.
    """
    return AudioClip(np.concatenate(list(stream_audio(path, sample_rate))), sample_rate)


def stream_audio(path: Path | str, sample_rate: int, chunk_s: float = 1.0) -> Iterator[FloatArray]:
    """Read audio in chunks of `chunk_s` seconds, with the same samples as `read_audio`.

    Raises:
        MediaError: as `read_audio`; on calling if the file has no audio, else while iterating.
    """
    container = _open_audio(path)
    return rechunk(_resampled(container, path, sample_rate), max(1, round(chunk_s * sample_rate)))


def probe_channels(path: Path | str) -> tuple[int, str]:
    """Return the sample rate in Hz and the channel layout of the default audio stream.

    Raises:
        MediaError: the file cannot be read or has no audio.
    """
    with _open_audio(path) as container:
        stream = find_audio(container)
        assert stream is not None
        use_usual_layout(stream)
        return stream.sample_rate, layout_name(read_layout(stream.codec_context))


def stream_channels(path: Path | str) -> Iterator[FloatArray]:
    """Read all channels of the default audio stream at its own sample rate, in chunks.

    The samples have the times of those of `read_audio`. Samples that are not finite become 0.

    Returns:
        The chunks: float32 [num_channels, num_samples] in [-1, 1].

    Raises:
        MediaError: as `read_audio`; on calling if the file has no audio, else while iterating.
    """
    rate, layout = probe_channels(path)
    return _channels(_open_audio(path), path, rate, layout)


def layout_name(layout: AudioLayout) -> str:
    """Return the name of a channel layout; an unspecified order gets the usual one."""
    is_unspecified = layout.name.endswith(" channels") or not layout.name
    return USUAL_LAYOUTS.get(layout.nb_channels, layout.name) if is_unspecified else layout.name


def _open_audio(path: Path | str) -> InputContainer:
    container = open_input(path)
    if find_audio(container) is None:
        container.close()
        raise MediaError(
            f"{path}: has no audio, and speech is needed; give a file with an audio track"
        )
    return container


def _channels(
    container: InputContainer, path: Path | str, rate: int, layout: str
) -> Iterator[FloatArray]:
    with container:
        for samples, frame_layout, frame_rate in _aligned(container, path):
            finite = np.nan_to_num(samples, nan=0, posinf=0, neginf=0).clip(-1, 1)
            if (frame_rate, len(samples)) != (rate, av.AudioLayout(layout).nb_channels):
                finite = _converted(finite, frame_layout, frame_rate, layout, rate)
            yield finite


def _converted(
    samples: FloatArray, layout: AudioLayout, rate: int, to_layout: str, to_rate: int
) -> FloatArray:
    """Convert samples whose format changed within a stream, which is rare, one by one."""
    frame = audio_frame(samples, rate, layout.name)
    resampler = av.AudioResampler(format="flt", layout=to_layout, rate=to_rate)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([to_planar(piece) for piece in pieces], axis=1)


def audio_frame(samples: FloatArray, sample_rate: int, layout: str) -> AudioFrame:
    """Return a PyAV frame of float32 samples [channels, num_samples]."""
    packed = np.ascontiguousarray(samples.T, dtype=np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate = sample_rate
    return frame


def rechunk(pieces: Iterable[FloatArray], size: int) -> Iterator[FloatArray]:
    """Yield the samples of all pieces in chunks of `size` samples; the last may be shorter."""
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
    any_sample, any_finite = False, False
    resampler: Resampler | None = None
    mixers: dict[str, ChannelMixer] = {}
    with container:
        for channels, layout, rate in _aligned(container, path):
            any_finite = any_finite or bool(np.isfinite(channels).any())
            mixer = mixers.setdefault(layout.name, _mixer(layout))
            samples = mixer.mix(channels, rate)
            if resampler is None or resampler.source_rate != rate:
                yield from resampler.flush() if resampler else ()
                resampler = Resampler(rate, sample_rate)
            for piece in resampler.push(samples):
                any_sample |= len(piece) > 0
                yield piece
        for piece in resampler.flush() if resampler else ():
            any_sample |= len(piece) > 0
            yield piece
    if not any_sample:
        raise MediaError(f"{path}: the audio has no duration; give a file that contains speech")
    if not any_finite:
        raise MediaError(f"{path}: the audio contains only NaN; create the file again")


class Resampler:
    """Streaming resampler of mono float32 audio; the output does not depend on the chunk size.

    Example:
        >>> resampler = Resampler(48_000, 16_000)
        >>> pieces = [*resampler.push(samples), *resampler.flush()]
    """

    def __init__(self, source_rate: int, sample_rate: int) -> None:
        self.source_rate = source_rate
        self._resampler = None
        if source_rate != sample_rate:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate)

    def push(self, samples: FloatArray) -> Iterator[FloatArray]:
        """Add samples [num_samples], and yield the resampled audio that is ready, in [-1, 1]."""
        if self._resampler is None:
            yield np.clip(samples, -1, 1)
        elif len(samples):
            yield from self._convert(mono_frame(samples, self.source_rate))

    def flush(self) -> Iterator[FloatArray]:
        """Yield the remaining resampled audio at the end of the input."""
        if self._resampler is not None:
            yield from self._convert(None)

    def stream(self, chunks: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Resample all chunks, and yield the resampled audio up to the end."""
        for chunk in chunks:
            yield from self.push(chunk)
        yield from self.flush()

    def _convert(self, frame: AudioFrame | None) -> Iterator[FloatArray]:
        assert self._resampler is not None
        for converted in self._resampler.resample(frame):
            yield np.clip(converted.to_ndarray()[0], -1, 1)


def mono_frame(samples: FloatArray, sample_rate: int) -> AudioFrame:
    """Return a PyAV frame of mono float32 samples."""
    return audio_frame(samples[None], sample_rate, "mono")


def _aligned(
    container: InputContainer, path: Path | str
) -> Iterator[tuple[FloatArray, AudioLayout, int]]:
    """Yield samples [channels, n], layout and sample rate, with silence in gaps between times."""
    video = find_video(container, path)
    position_s: Fraction | None = None
    if video is not None and video.start_time is not None and video.time_base:
        position_s = video.start_time * video.time_base
    longest_gap_s = container_duration_s(container) or _LONGEST_GAP_S
    stream = find_audio(container)
    assert stream is not None
    order = use_usual_layout(stream)
    end_s = _exact_end_s(container, stream)
    started = False
    for frame in decode(container, stream, path):
        samples, rate = to_planar(frame), frame.sample_rate
        samples = samples if order is None else samples[order]
        start_s = position_s if frame.pts is None else frame.pts * frame.time_base
        position_s = start_s if position_s is None else position_s
        gap_s = (start_s or 0) - (position_s or 0)
        if not started and gap_s < 0:
            samples, gap_s = samples[:, round_half_up(-gap_s * rate) :], Fraction(0)
            if not samples.size:
                continue
        if (_GAP_S if started else 0) < gap_s <= longest_gap_s:
            samples = np.pad(samples, ((0, 0), (round_half_up(gap_s * rate), 0)))
        elif abs(gap_s) > _GAP_S:
            # The timestamps wrapped around or were reset: continue from the new time.
            position_s = start_s
        num_samples = samples.shape[1]
        position_s = (position_s or 0) + Fraction(num_samples, rate)
        started = True
        if end_s is not None and 0 < position_s - end_s < _GAP_S:
            excess = round_half_up((position_s - end_s) * rate)
            samples = samples[:, : max(0, num_samples - excess)]
        yield samples, frame.layout, rate


def _exact_end_s(container: InputContainer, stream: AudioStream) -> Fraction | None:
    """Return the end time of the audio from an MP4 header; None for other formats.

    This time excludes the padding of the last encoded frame.
    """
    is_mp4 = container.format.name.startswith("mov")
    if stream.duration is None or stream.time_base is None or not is_mp4:
        return None
    return (stream.duration + (stream.start_time or 0)) * stream.time_base


def to_planar(frame: AudioFrame) -> FloatArray:
    """Return the samples of a frame: float32 [channels, num_samples], nominally in [-1, 1]."""
    is_miscounted = frame.format.is_planar and frame.layout.nb_channels >= _MISCOUNTED_CHANNELS
    # PyAV does not convert samples of 64 bits either.
    if frame.format.name.startswith("s64") or is_miscounted:
        (frame,) = av.AudioResampler(format="flt").resample(frame)
    raw: npt.NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(-1, frame.layout.nb_channels).T
    scaled: FloatArray = raw.astype(np.float32)
    if raw.dtype == np.uint8:
        scaled = (scaled - 128) / np.float32(128)
    elif raw.dtype.kind == "i":
        scaled /= 2.0 ** (8 * raw.itemsize - 1)
    return scaled


def _mixer(layout: AudioLayout) -> ChannelMixer:
    """Return a new mixer of the channels of a layout."""
    weights = [_CHANNEL_WEIGHTS.get(channel.name, _OTHER_WEIGHT) for channel in layout.channels]
    return ChannelMixer(len(weights), weights)
