"""Results of predictions: the stream of frames, and the report of a written file."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from talkinghead.concurrency import ExclusiveUse
from talkinghead.media.encoding.patched_image import PatchedImage
from talkinghead.predict.source.face_source import FaceSource
from talkinghead.types import UInt8Array


@dataclass(frozen=True)
class RenderReport:
    """Summary of a written file.

    Attributes:
        path: the file.
        num_frames: number of video frames.
        num_frames_without_face: number of frames that show no face and are unchanged.
        duration_s: duration of the audio in seconds.
        fps: nominal frame rate.
    """

    path: Path
    num_frames: int
    num_frames_without_face: int
    duration_s: Fraction
    fps: Fraction


class Prediction(Iterator[tuple[UInt8Array, Fraction]], AbstractContextManager["Prediction"]):
    """Iterator over the frames of a prediction: (image uint8 [height, width, 3] RGB, time_s).

    The caller may change the images.
    Use it as a context manager, or call `close`, to stop before the end. One caller at a time: a
    second raises a `UsageError`.

    Attributes:
        width: width of every frame in pixels.
        height: height of every frame in pixels.
        fps: nominal frame rate of the source.
        colour: colour conversion and tags of the source.
        hdr: HDR format of the source, None without HDR.
        video_s: approximate minimum duration of the video in seconds; None if it ends with the
            speech.
        num_frames: number of frames so far.
        num_frames_without_face: number of those frames that show no face and are unchanged.
    """

    def __init__(
        self, frames: Generator[tuple[PatchedImage, Fraction, bool]], source: FaceSource
    ) -> None:
        self._frames = frames
        self._use = ExclusiveUse("the prediction", "make one prediction per caller")
        self.width, self.height, self.fps = source.width, source.height, source.fps
        self.colour, self.hdr = source.colour, source.hdr
        self.video_s = None if source.options.trim else source.duration_s
        self.num_frames = self.num_frames_without_face = 0

    def __next__(self) -> tuple[UInt8Array, Fraction]:
        image, time_s = self._next_patched()
        pixels = image.to_array()
        # Without patches these are the pixels of the source, which other frames share.
        return pixels if image.patches else pixels.copy(), time_s

    def patched(self) -> Iterator[tuple[PatchedImage, Fraction]]:
        """Yield the remaining frames as patched images; those of a photo share their base."""
        while True:
            try:
                yield self._next_patched()
            except StopIteration:
                return

    def _next_patched(self) -> tuple[PatchedImage, Fraction]:
        with self._use:
            image, time_s, has_face = next(self._frames)
            self.num_frames += 1
            self.num_frames_without_face += not has_face
            return image, time_s

    def close(self) -> None:
        """Stop all stages."""
        with self._use:
            self._frames.close()

    def __exit__(self, *_: object) -> None:
        self.close()
