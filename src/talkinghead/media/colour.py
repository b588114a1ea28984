"""Colour tags of video: matrix, range, primaries and transfer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AVFrame

_UNSPECIFIED = 2
# AVCOL_SPC_SMPTE170M: the same matrix as ITU601 (BT.470 BG) under another tag.
_SMPTE170M = 6
_MATRICES = {*map(int, Colorspace), _SMPTE170M}
_HD_LINES = 720


@dataclass(frozen=True)
class ColourTags:
    """Matrix, range, primaries and transfer as FFmpeg's numbers; limited BT.709 by default.

    Images are converted by matrix and range only. Primaries and transfer are copied to the output,
    as processing stays in the video's own RGB space.
    """

    matrix: int = Colorspace.ITU709
    range: int = ColorRange.MPEG
    primaries: int = ColorPrimaries.BT709
    transfer: int = ColorTrc.BT709

    @classmethod
    def of(cls, frame: AVFrame) -> ColourTags:
        """Return the tags of a decoded frame.

        Frames that are RGB or have a matrix that cannot be written get BT.709.
        """
        matrix = guess_matrix(frame)
        if frame.format.is_rgb or frame.format.has_palette or matrix not in _MATRICES:
            return cls()
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        return cls(
            matrix,
            ColorRange.JPEG if full else ColorRange.MPEG,
            int(frame.color_primaries),
            int(frame.color_trc),
        )


BT709 = ColourTags()
"""The tags of output without a video source."""


def guess_matrix(frame: AVFrame) -> int:
    """Return a frame's matrix; without a tag, BT.601 below 720 lines and BT.709 from 720 on."""
    if frame.colorspace != _UNSPECIFIED or frame.format.is_rgb:
        return int(frame.colorspace)
    return Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
