"""A visible label: a line of text in a corner of every image."""

from __future__ import annotations

import unicodedata

import cv2
import numpy as np

from talkinghead.errors import UsageError
from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.types import FloatArray, UInt8Array

# Letter height as a fraction of image height, and maximum width as a fraction of image width.
_HEIGHT, _MAX_WIDTH = 0.035, 0.9
_MIN_PIXELS = 8
# Factor that darkens the image behind the letters, so that white text is legible on white.
_DIMMING = 0.35
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Label:
    """A white line of text in the upper left corner, on a darkened background.

    The label cannot cover the mouth, because the eyes of a detected face are above the mouth.

    Args:
        text: one line.
        width: width of the images in pixels.
        height: height of the images in pixels.

    Attributes:
        shape: height and width of the label in pixels.

    Raises:
        UsageError: The text is empty, has several lines, has letters that cannot be drawn, or is
            too long for images of this size.

    Example:
        >>> labelled = Label("AI generated", 640, 360)(image)
    """

    def __init__(self, text: str, width: int, height: int) -> None:
        letters = _draw(text, round(_HEIGHT * height))
        shrink = _MAX_WIDTH * width / letters.shape[1]
        if shrink < 1:
            letters = _draw(text, int(shrink * _HEIGHT * height))
        if not text.strip() or "\n" in text or letters.shape[1] > width:
            raise UsageError(
                f"label={text!r} is empty, has several lines or is too long for {width} x {height} "
                "pixels; give a short line such as 'AI generated', or null for none"
            )
        if unknown := _undrawable(text):
            raise UsageError(
                f"label={text!r} contains {unknown}, which cannot be drawn; use Latin, Greek, "
                "Cyrillic, Chinese, Japanese or Korean letters"
            )
        self.shape = letters.shape
        self._keep = _DIMMING * (1 - letters[..., None])
        self._add = 255 * letters[..., None]

    def __call__(self, image: UInt8Array) -> UInt8Array:
        """Return a copy of the image with the label: uint8 [height, width, 3] RGB."""
        return self.draw(PatchedImage(image)).to_array()

    def draw(self, image: PatchedImage) -> PatchedImage:
        """Return the image with the label as a further patch."""
        height, width = self.shape
        corner = image.crop(slice(0, height), slice(0, width))
        labelled = np.rint(corner * self._keep + self._add).astype(np.uint8)
        return image.with_patch(Patch(0, 0, labelled))


def _draw(text: str, height: int) -> FloatArray:
    """Return the opacity of the letters with a margin: float32 [height, width] in [0, 1]."""
    height = max(_MIN_PIXELS, height)
    scale = cv2.getFontScaleFromHeight(_FONT, height, 1)
    (width, ascent), descent = cv2.getTextSize(text, _FONT, scale, 1)
    margin = height // 2
    letters = np.zeros((ascent + descent + 2 * margin, width + 2 * margin), np.uint8)
    cv2.putText(letters, text, (margin, margin + ascent), _FONT, scale, 255, 1, cv2.LINE_AA)
    return letters.astype(np.float32) / np.float32(255)


def _undrawable(text: str) -> str:
    """Return the letters that are drawn as a question mark, or are written from right to left."""
    unknown = _draw("?", _MIN_PIXELS)
    return "".join(
        letter
        for letter in dict.fromkeys(text.replace("?", ""))
        if unicodedata.bidirectional(letter) in {"R", "AL"}
        or np.array_equal(_draw(letter, _MIN_PIXELS), unknown)
    )
