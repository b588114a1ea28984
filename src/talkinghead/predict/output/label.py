"""A visible label: a line of text in the corner of every picture."""

from __future__ import annotations

import cv2
import numpy as np

from talkinghead.errors import UsageError
from talkinghead.types import FloatArray, UInt8Array

# Of the picture's height and width.
_HEIGHT, _WIDTH = 0.035, 0.9
_MIN_PIXELS = 8
# What is left of the picture behind the letters: white can be read on it even where all is white.
_BEHIND = 0.35
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Label:
    """A line of text in the upper left corner: white, the picture behind it darkened.

    Never on the mouth: above a mouth there are eyes, or no face would have been found.

    Args:
        text: a line.
        width: pixels of the pictures.
        height: likewise.

    Raises:
        UsageError: the text is empty, has several lines, or is too long for a picture of this size.
    """

    def __init__(self, text: str, width: int, height: int) -> None:
        letters = _draw(text, round(_HEIGHT * height))
        shrink = _WIDTH * width / letters.shape[1]
        if shrink < 1:
            letters = _draw(text, int(shrink * _HEIGHT * height))
        if not text.strip() or "\n" in text or letters.shape[1] > width:
            raise UsageError(
                f"label={text!r} is empty, has several lines or is too long for {width} x {height} "
                "pixels; give a short line such as 'AI generated', or null for none"
            )
        self._keep = _BEHIND * (1 - letters[..., None])
        self._add = 255 * letters[..., None]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels of the corner that it takes."""
        height, width, _ = self._add.shape
        return height, width

    def __call__(self, image: UInt8Array) -> UInt8Array:
        """A copy with the label: uint8 [height, width, 3] RGB."""
        height, width = self.shape
        labelled = image.copy()
        corner = labelled[:height, :width]
        corner[:] = np.rint(corner * self._keep + self._add)
        return labelled


def _draw(text: str, height: int) -> FloatArray:
    """How much of each pixel is letter, in [0, 1], with a margin: float32 [height, width]."""
    height = max(_MIN_PIXELS, height)
    scale = cv2.getFontScaleFromHeight(_FONT, height, 1)
    (width, ascent), descent = cv2.getTextSize(text, _FONT, scale, 1)
    margin = height // 2
    letters = np.zeros((ascent + descent + 2 * margin, width + 2 * margin), np.uint8)
    cv2.putText(letters, text, (margin, margin + ascent), _FONT, scale, 255, 1, cv2.LINE_AA)
    return letters.astype(np.float32) / np.float32(255)
