"""Options of the video encoder."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncodeOptions:
    """Quality and speed of the H.264 encoder.

    Attributes:
        crf: x264 quality from 0 (lossless) to 51; 18 is visually near the source.
        preset: x264 trade-off of speed and size, from "ultrafast" to "veryslow".
    """

    crf: int = 18
    preset: str = "veryfast"
