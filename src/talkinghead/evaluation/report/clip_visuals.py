"""Visuals of a scored clip: a strip of frames, a side-by-side video and opening curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.data.clip_file import encode_face
from talkinghead.media.atomic_file import temporary_folder
from talkinghead.media.timing import frame_time_s, seconds_to_samples
from talkinghead.media.writer import VideoWriter
from talkinghead.types import AVSpec, FloatArray, UInt8Array

STRIP_FRAMES = 10
_VIDEO_FRAMES = 150
_STRIP_MARGIN = 16
_CRF = 26


@dataclass(frozen=True)
class ClipVisuals:
    """Visuals of one clip.

    Attributes:
        strip: strip of frames, uint8 [H, W, 3].
        video: content of an MP4 file with audio.
        poster: JPEG of the middle frame of the video.
        curves: mouth opening of each version in eye distances, float32 [T], NaN where unknown.
        speech: frames with speech, bool [T].
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
    """Draw the strip and encode the video of a clip.

    Args:
        rows: canonical faces uint8 [T, face, face, 3] of each version, for the rows of the strip.
        shown: the versions that the video shows side by side.
        curves: see `ClipVisuals`.
        speech: frames with speech, from which the strip's frames are chosen.
        samples: float32 [num_samples], audio of the video; silent if None.
        spec: mouth box, frame rate and sample rate.
    """
    frames = np.flatnonzero(speech) if speech is not None else np.arange(0)
    num_frames = min(_VIDEO_FRAMES, *map(len, shown.values()))
    video = [_side_by_side(shown, frame) for frame in range(num_frames)]
    poster = encode_face(video[num_frames // 2])
    strip = draw_strip(rows, frames, spec)
    return ClipVisuals(strip, _encode_video(video, samples, spec), poster, curves, speech)


def draw_strip(
    rows: Mapping[str, UInt8Array], frames: npt.NDArray[np.intp], spec: AVSpec
) -> UInt8Array:
    """Draw mouths of evenly spaced frames side by side, one labelled row per version.

    The versions are uint8 [T, face, face, 3], of equal T; `frames` are those to choose
    `STRIP_FRAMES` from, all if empty.
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


def _encode_video(images: list[UInt8Array], samples: FloatArray | None, spec: AVSpec) -> bytes:
    """Encode images and audio as MP4 (H.264, AAC)."""
    height, width = images[0].shape[:2]
    rate = None if samples is None else spec.sample_rate
    with temporary_folder() as folder:
        path = Path(folder) / "clip.mp4"
        with VideoWriter(path, width, height, spec.fps, rate, crf=_CRF) as writer:
            for image in images:
                writer.write(image)
            if samples is not None:
                end_s = frame_time_s(len(images), spec.fps)
                writer.write_audio(samples[: seconds_to_samples(end_s, spec.sample_rate)])
        return path.read_bytes()


def _side_by_side(versions: Mapping[str, UInt8Array], frame: int) -> UInt8Array:
    """Return one frame of every version, side by side: uint8 [face, n * face, 3]."""
    return np.concatenate(
        [_with_name(faces[frame], name) for name, faces in versions.items()], axis=1
    )


def _with_name(image: UInt8Array, name: str) -> UInt8Array:
    """Return the image with a white label whose black outline is made of shifted copies.

    The label of a wide image is larger, since the report scales strips down to the page's width.
    """
    named, black, white = image.copy(), (0, 0, 0), (255, 255, 255)
    scale = max(0.5, image.shape[1] / 2000)
    shifts = ((-1, 0, black), (1, 0, black), (0, -1, black), (0, 1, black), (0, 0, white))
    for x, y, colour in shifts:
        place, font = (9 + x, round(40 * scale) + y), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(named, name, place, font, scale, colour, 1, cv2.LINE_AA)
    return named
