"""Reading of video frames in reverse order, with one seek per group of frames."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av

from talkinghead.media.container import alpha_decoder, find_video, open_input
from talkinghead.media.decoding.video_image import ImageLike
from talkinghead.media.image import ImageConverter

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame as AVFrame
    from av.video.stream import VideoStream

MAX_BYTES = 512 * 2**20
"""Maximum size of the decoded frames in memory: 165 of 1920 x 1080 pixels, 41 of 3840 x 2160."""


class FrameKey(NamedTuple):
    """Position of a frame in its file: its timestamp, and whether decoding can start there."""

    pts: int | None
    is_key: bool


def read_backwards(
    path: Path | str,
    keys: Sequence[FrameKey],
    stop: int,
    shape: tuple[int, ...],
    max_bytes: int = MAX_BYTES,
    keep_hdr: bool = True,
) -> Generator[ImageLike]:
    """Yield the images of a video in reverse order, from frame `stop - 1` down to frame 0.

    Decoders only run forwards, so frames are decoded from a key frame on and kept in their own
    pixel format; several times if those of a key frame need more than `max_bytes`.

    Args:
        path: the video.
        keys: the positions of all frames, in the order of playback.
        stop: number of frames to read.
        shape: shape of the images; it must not change within the video.
        max_bytes: maximum size of the frames in memory.
        keep_hdr: see `VideoImage`.

    Yields:
        Images as `read_frames` yields them. They end early if the file does not permit exact
        seeking, or if frames depend on their neighbours because they are interlaced.

    Raises:
        MediaError: the file cannot be opened.
    """
    times = [key.pts for key in keys[:stop] if key.pts is not None]
    if len(times) < stop or any(a >= b for a, b in pairwise(times)):
        return
    with open_input(path) as container:
        stream = find_video(container, path)
        if stream is None or alpha_decoder(stream) is not None:
            return
        stream.thread_type = "AUTO"
        convert = ImageConverter(float(stream.sample_aspect_ratio or 1), keep_hdr=keep_hdr)
        capacity = max(2, max_bytes // _frame_bytes(stream))
        starts = [index for index, key in enumerate(keys[:stop]) if key.is_key or index == 0]
        while stop > 0:
            first = max(start := _choose_start(starts, stop, capacity), stop - capacity)
            frames = _decode(container, stream, times, start, first, stop)
            if len(frames) < stop - first:
                return
            for frame in reversed(frames):
                image = convert(frame)
                if image.shape != shape:
                    return
                yield image
            stop = first


def _choose_start(starts: Sequence[int], stop: int, capacity: int) -> int:
    """Return the earliest key frame from which all frames fit, or else the last key frame."""
    earlier = [start for start in starts if start < stop]
    fitting = [start for start in earlier if stop - start <= capacity]
    return fitting[0] if fitting else earlier[-1]


def _decode(
    container: InputContainer,
    stream: VideoStream,
    times: Sequence[int],
    start: int,
    first: int,
    stop: int,
) -> list[AVFrame]:
    """Decode from key frame `start` on, and return the frames from `first` to `stop - 1`.

    The result is shorter if other frames are found than those expected.
    """
    found: list[AVFrame] = []
    index = start
    try:
        container.seek(times[start], stream=stream, backward=True)
        for frame in _frames(container, stream):
            if frame.pts is None or frame.interlaced_frame:
                break
            if frame.pts < times[index]:
                # Seeking may go back further, and frames before a key frame may be damaged.
                if index > start:
                    break
                continue
            if frame.pts != times[index]:
                break
            if index >= first:
                found.append(frame)
            index += 1
            if index == stop:
                break
    except av.FFmpegError:
        return []
    return found


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[AVFrame]:
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def _frame_bytes(stream: VideoStream) -> int:
    context = stream.codec_context
    bits = context.format.padded_bits_per_pixel if context.format is not None else 24
    return max(1, context.width * context.height * max(8, bits) // 8)
