"""Write a video that shows the first frame of a face for the duration of speech.

usage: python scripts/scoreboard/copy_still.py FACE AUDIO OUTPUT
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av

from talkinghead.media.reader import is_image, read_audio, read_image, read_video
from talkinghead.media.writer import VideoWriter
from talkinghead.types import UInt8Array

SAMPLE_RATE = 48_000


def main() -> None:
    """Write the video."""
    face, audio, output = (Path(argument) for argument in sys.argv[1:4])
    image, fps = read_first_frame(face)
    speech = read_audio(audio, SAMPLE_RATE)
    height, width = image.shape[:2]
    with VideoWriter(output, width, height, fps, SAMPLE_RATE) as writer:
        for _ in range(round(speech.duration_s * fps)):
            writer.write(image)
        writer.write_audio(speech.samples)


def read_first_frame(face: Path) -> tuple[UInt8Array, Fraction]:
    """Return the first frame uint8 [H, W, 3] and the frame rate of a photo or video."""
    if is_image(face):
        return read_image(face), Fraction(25)
    with av.open(str(face)) as container:
        fps = container.streams.video[0].average_rate or Fraction(25)
    return next(iter(read_video(face))).image, fps


if __name__ == "__main__":
    main()
