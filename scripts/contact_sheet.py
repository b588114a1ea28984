"""Frames of videos, a row each: python scripts/contact_sheet.py sheet.png a.mp4 b.mp4."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from talkinghead.media.reader import read_video
from talkinghead.media.writer import write_image
from talkinghead.types import UInt8Array


def row_of(path: Path, count: int, box: list[int] | None, height: int) -> UInt8Array:
    """So many frames of a video, evenly spaced, cut to a box and scaled to a height."""
    frames = [frame.image for frame in read_video(path)]
    chosen = np.linspace(0, len(frames) - 1, count + 2)[1:-1].round().astype(int)
    x0, y0, x1, y1 = box or (0, 0, frames[0].shape[1], frames[0].shape[0])
    cut = [frames[i][y0:y1, x0:x1] for i in chosen]
    width = round((x1 - x0) * height / (y1 - y0))
    return np.hstack([cv2.resize(c, (width, height), interpolation=cv2.INTER_AREA) for c in cut])


def main() -> None:
    """Writes the sheet."""
    parser = argparse.ArgumentParser(description="Frames of videos side by side.")
    parser.add_argument("sheet", type=Path)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=8, help="frames of each video")
    parser.add_argument("--box", type=int, nargs=4, help="x0 y0 x1 y1, pixels of the video")
    parser.add_argument("--height", type=int, default=160, help="of a row, in pixels")
    options = parser.parse_args()
    rows = [row_of(v, options.count, options.box, options.height) for v in options.videos]
    width = min(row.shape[1] for row in rows)
    write_image(options.sheet, np.ascontiguousarray(np.vstack([row[:, :width] for row in rows])))


if __name__ == "__main__":
    main()
