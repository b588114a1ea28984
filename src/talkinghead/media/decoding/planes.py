"""Planes of YUV frames as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer

if TYPE_CHECKING:
    from av.buffer import Buffer
    from av.video.frame import VideoFrame as AVFrame

PlaneArray: TypeAlias = npt.NDArray[Any]
Planes: TypeAlias = tuple[PlaneArray, PlaneArray, PlaneArray]
"""Y, U and V, uint8 or uint16; of 4:2:0 images, U and V have half the size."""


def plane_array(frame: AVFrame, index: int) -> PlaneArray:
    """Return a plane of a frame as an array [height, width] that shares its memory."""
    plane = frame.planes[index]
    dtype = np.uint16 if frame.format.components[index].bits > 8 else np.uint8
    values = np.frombuffer(memoryview(plane), dtype)
    rows = values.reshape(plane.height, plane.line_size // values.itemsize)
    return rows[:, : plane.width]


def side_data(frame: AVFrame, name: str) -> bytes:
    """Return side data of a frame by FFmpeg's name; empty if there is none.

    `frame.side_data` would refer to the frame and be kept by it, so that the memory of the frame
    would be held until the next garbage collection.
    """
    container = SideDataContainer(frame)  # type: ignore[call-arg]
    data = cast("Buffer | None", container.get(name))
    return b"" if data is None else bytes(data)


def frame_of_planes(planes: Planes, pix_fmt: str) -> AVFrame:
    """Return a frame with copies of planes."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    for index, plane in enumerate(planes):
        plane_array(frame, index)[:] = plane
    return frame


@dataclass(frozen=True)
class Orientation:
    """A transposition, followed by flips, that makes the stored pixels of a frame upright."""

    transposed: bool = False
    flips_rows: bool = False
    flips_columns: bool = False

    @classmethod
    def of(cls, matrix: npt.NDArray[np.float64]) -> Orientation:
        """Return the orientation of a display matrix (see `display_matrix`)."""
        (a, b), (c, d) = matrix
        if abs(b) > abs(a):
            return cls(True, bool(b < 0), bool(c < 0))
        return cls(False, bool(d < 0), bool(a < 0))

    def stored(self, rows: slice, columns: slice, height: int, width: int) -> tuple[slice, slice]:
        """Return the stored rows and columns of a part of an upright image of this size."""
        if self.flips_rows:
            rows = slice(height - rows.stop, height - rows.start)
        if self.flips_columns:
            columns = slice(width - columns.stop, width - columns.start)
        return (columns, rows) if self.transposed else (rows, columns)

    def apply(self, pixels: PlaneArray) -> PlaneArray:
        """Return stored pixels [h, w] or [h, w, C] upright."""
        if self.transposed:
            pixels = cv2.transpose(pixels)
        if self.flips_rows or self.flips_columns:
            pixels = cv2.flip(pixels, 1 - self.flips_rows * (1 + self.flips_columns))
        return pixels
