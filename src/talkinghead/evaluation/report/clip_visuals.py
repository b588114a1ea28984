"""What a person looks at: frames in a row, two faces side by side with sound, the mouth's curve."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.data.clip_file import encode_face
from talkinghead.media.timing import frame_time_s, seconds_to_samples
from talkinghead.media.writer import VideoWriter
from talkinghead.types import AVSpec, FloatArray, UInt8Array

STRIP_FRAMES = 10
VIDEO_FRAMES = 150
_STRIP_MARGIN = 16
_CRF = 26


@dataclass(frozen=True)
class ClipVisuals:
    """One clip to look at.

    `strip` uint8 [H, W, 3]; `video` an MP4 with sound, and `poster` a JPEG of its middle;
    `curves` the mouth's opening in eye distances by take, float32 [T] each, NaN where unknown;
    `speech` bool [T].
    """

    strip: UInt8Array
    video: bytes
    poster: bytes
    curves: dict[str, FloatArray]
    speech: npt.NDArray[np.bool_] | None


def make_clip_visuals(
    rows: Mapping[str, UInt8Array],
    shown: Mapping[str, UInt8Array],
    curves: dict[str, FloatArray],
    speech: npt.NDArray[np.bool_] | None,
    samples: FloatArray | None,
    spec: AVSpec,
) -> ClipVisuals:
    """Draws the strip and encodes the video.

    Args:
        rows: canonical faces uint8 [T, face, face, 3] by take: the strip's rows.
        shown: likewise, what the video shows side by side.
        curves: see `ClipVisuals`.
        speech: the frames with speech; the strip's are chosen from them.
        samples: float32 [num_samples], the video's sound; silent if None.
        spec: for the mouth's box, the frame and the sample rate.
    """
    frames = np.flatnonzero(speech) if speech is not None else np.arange(0)
    middle = side_by_side(shown, min(VIDEO_FRAMES, *map(len, shown.values())) // 2)
    return ClipVisuals(
        draw_strip(rows, frames, spec),
        encode_video(shown, samples, spec),
        encode_face(middle),
        curves,
        speech,
    )


def draw_strip(
    rows: Mapping[str, UInt8Array], frames: npt.NDArray[np.intp], spec: AVSpec
) -> UInt8Array:
    """Frames side by side, a row for each take, its name in the corner.

    Args:
        rows: takes by name, uint8 [T, face, face, 3], all of the same T.
        frames: the frames to choose from (all, if empty); `STRIP_FRAMES` are drawn, evenly spaced.
        spec: for the mouth's box.

    Returns:
        uint8 [H, W, 3].
    """
    if len(frames) == 0:
        frames = np.arange(len(next(iter(rows.values()))))
    chosen = frames[np.linspace(0, len(frames) - 1, STRIP_FRAMES).round().astype(int)]
    x0, y0, x1, y1 = (int(v) for v in spec.mouth_box)
    top, left = max(0, y0 - _STRIP_MARGIN), max(0, x0 - _STRIP_MARGIN)
    drawn = []
    for name, faces in rows.items():
        crops = faces[chosen, top : y1 + _STRIP_MARGIN, left : x1 + _STRIP_MARGIN]
        drawn.append(_with_name(np.concatenate(list(crops), axis=1), name))
    return np.concatenate(drawn)


def encode_video(
    takes: Mapping[str, UInt8Array], samples: FloatArray | None, spec: AVSpec
) -> bytes:
    """Takes side by side as an MP4 (H.264, and AAC where there is sound), at most 6 s at 25 Hz.

    Args:
        takes: uint8 [T, face, face, 3] by name, all of the same T.
        samples: float32 [num_samples] at the spec's rate, or None.
        spec: for the rates.
    """
    num_frames = min(VIDEO_FRAMES, *(len(faces) for faces in takes.values()))
    width = len(takes) * spec.face_size
    rate = None if samples is None else spec.sample_rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with VideoWriter(path, width, spec.face_size, spec.fps, rate, crf=_CRF) as writer:
            for frame in range(num_frames):
                writer.write(side_by_side(takes, frame))
            if samples is not None:
                end_s = frame_time_s(num_frames, spec.fps)
                writer.write_audio(samples[: seconds_to_samples(end_s, spec.sample_rate)])
        return path.read_bytes()


def side_by_side(takes: Mapping[str, UInt8Array], frame: int) -> UInt8Array:
    """One frame of every take, uint8 [T, face, face, 3] by name: uint8 [face, n * face, 3]."""
    return np.concatenate([_with_name(faces[frame], name) for name, faces in takes.items()], axis=1)


def _with_name(image: UInt8Array, name: str) -> UInt8Array:
    """White in a black outline, which is the text itself, shifted: thicker letters are wider."""
    named, black, white = image.copy(), (0, 0, 0), (255, 255, 255)
    shifts = ((-1, 0, black), (1, 0, black), (0, -1, black), (0, 1, black), (0, 0, white))
    for x, y, colour in shifts:
        place, font = (9 + x, 20 + y), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(named, name, place, font, 0.5, colour, 1, cv2.LINE_AA)
    return named
