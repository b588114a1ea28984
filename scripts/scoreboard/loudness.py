"""Write a video in which the mouth of a still face opens with the loudness of the speech.

usage: python scripts/scoreboard/loudness.py FACE AUDIO OUTPUT

A baseline without learning: the first frame is warped below the line between the lips, and the gap
is filled with a dark colour.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from copy_still import SAMPLE_RATE, read_first_frame

from talkinghead.features.faces.alignment import LIP_POINTS
from talkinghead.features.faces.detector import build_detector
from talkinghead.media.reader import read_audio
from talkinghead.media.writer import VideoWriter
from talkinghead.types import FloatArray, UInt8Array

# Largest opening, and reach of the warp below the lips, relative to the width of the mouth.
_MAX_OPENING, _REACH = 0.3, 1.5
# The mouth is closed this far below the loud frames (95th percentile).
_RANGE_DB = 30.0
_MOUTH_RGB = (45, 15, 15)
# Corners of the inner lips, and the points between them.
_INNER_LIPS = slice(12, 20)


def main() -> None:
    """Write the video."""
    face, audio, output = (Path(argument) for argument in sys.argv[1:4])
    image, fps = read_first_frame(face)
    detector = build_detector()
    found = detector.detect(image)
    if not found:
        sys.exit(f"{face}: no face was found in the first frame")
    lips = found[0].points[list(LIP_POINTS[detector.topology])]
    speech = read_audio(audio, SAMPLE_RATE)
    levels = loudness(speech.samples, round(speech.duration_s * fps))
    height, width = image.shape[:2]
    with VideoWriter(output, width, height, fps, SAMPLE_RATE) as writer:
        for level in levels:
            writer.write(open_mouth(image, lips, float(level)))
        writer.write_audio(speech.samples)


def loudness(samples: FloatArray, num_frames: int) -> FloatArray:
    """Return the loudness of each frame [num_frames], from 0 (quiet) to 1 (loud), smoothed."""
    parts = np.array_split(samples, num_frames)
    level_db = 10 * np.log10([np.square(part).mean() + 1e-10 for part in parts])
    level = np.clip((level_db - np.percentile(level_db, 95)) / _RANGE_DB + 1, 0, 1)
    padded = np.pad(level, 1, mode="edge")
    return np.asarray((padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4, np.float32)


def open_mouth(image: UInt8Array, lips: FloatArray, level: float) -> UInt8Array:
    """Return an image [H, W, 3] with the lower lip and the chin moved down.

    Args:
        image: uint8 [H, W, 3].
        lips: lip landmarks in pixels, [20, 2].
        level: opening, from 0 to 1.
    """
    left, right = lips[12], lips[16]
    axis = right - left
    width = float(np.linalg.norm(axis))
    along = axis / max(width, 1e-6)
    down = np.array([-along[1], along[0]])
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    center = lips[_INNER_LIPS].mean(0)
    u = (x - center[0]) * along[0] + (y - center[1]) * along[1]
    v = (x - center[0]) * down[0] + (y - center[1]) * down[1]
    opening = level * _MAX_OPENING * width * np.clip(1 - (2 * u / width) ** 2, 0, None)
    reach = np.clip(v / (_REACH * width), 0, 1)
    shift = np.where(v > 0, opening * (1 + np.cos(np.pi * reach)) / 2, 0)
    source_x, source_y = x - shift * down[0], y - shift * down[1]
    moved = cv2.remap(
        image, source_x.astype(np.float32), source_y.astype(np.float32), cv2.INTER_LINEAR
    )
    gap = (v > 0) & (v < shift)
    moved[gap] = _MOUTH_RGB
    return np.asarray(moved, np.uint8)


if __name__ == "__main__":
    main()
