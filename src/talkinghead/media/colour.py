"""How a video's numbers stand for colours, carried from what is read to what is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AVFrame

_UNSPECIFIED = 2
# AVCOL_SPC_SMPTE170M: the same numbers as ITU601 (BT.470 BG), a tag of its own.
_SMPTE170M = 6
_MATRICES = {*map(int, Colorspace), _SMPTE170M}
_HD_LINES = 720


@dataclass(frozen=True)
class ColourTags:
    """Matrix, range, primaries and transfer in FFmpeg's numbers; by default BT.709, limited.

    Pictures are converted by matrix and range alone. Primaries and transfer are only told on, for
    the RGB that is worked on is the video's own.
    """

    matrix: int = Colorspace.ITU709
    range: int = ColorRange.MPEG
    primaries: int = ColorPrimaries.BT709
    transfer: int = ColorTrc.BT709

    @classmethod
    def of(cls, frame: AVFrame) -> ColourTags:
        """The tags of a decoded picture; of one that is RGB, or none that can be written, BT.709.

        An untagged picture has the matrix that players assume.
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
"""What is written where nothing else is known."""


def guess_matrix(frame: AVFrame) -> int:
    """A picture's matrix; where it has no tag, BT.601 below 720 lines and BT.709 from there."""
    if frame.colorspace != _UNSPECIFIED or frame.format.is_rgb:
        return int(frame.colorspace)
    return Colorspace.ITU709 if frame.height >= _HD_LINES else Colorspace.ITU601
