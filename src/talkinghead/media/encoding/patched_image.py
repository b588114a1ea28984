"""Images of which only some rectangles differ from a base image that many frames share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from talkinghead.media.decoding.video_image import ImageLike, crop_image, to_array
from talkinghead.types import UInt8Array


class Patch(NamedTuple):
    """A changed rectangle: its first row, its first column, and its pixels uint8 [h, w, 3]."""

    y: int
    x: int
    pixels: UInt8Array

    @property
    def rows(self) -> slice:
        """Rows of the rectangle."""
        return slice(self.y, self.y + self.pixels.shape[0])

    @property
    def columns(self) -> slice:
        """Columns of the rectangle."""
        return slice(self.x, self.x + self.pixels.shape[1])

    def overlaps(self, rows: slice, columns: slice) -> bool:
        """Return whether the rectangle has pixels in common with another one."""
        return (
            self.rows.start < rows.stop
            and rows.start < self.rows.stop
            and self.columns.start < columns.stop
            and columns.start < self.columns.stop
        )


@dataclass(frozen=True, eq=False)
class PatchedImage:
    """An image that consists of a base and patches; later patches cover earlier ones.

    The frames of a photo share their base, so that only the patches need to be stored, converted
    and blended for each frame.

    Attributes:
        base: uint8 [height, width, 3] RGB, or an image of a video; must not be modified.
        patches: the changed rectangles.

    Example:
        >>> image = PatchedImage(photo).with_patch(Patch(300, 200, mouth)).to_array()
    """

    base: ImageLike
    patches: tuple[Patch, ...] = ()

    def with_patch(self, patch: Patch) -> PatchedImage:
        """Return the image with a further patch, which replaces earlier patches that it covers."""
        kept = tuple(
            old
            for old in self.patches
            if not (
                patch.rows.start <= old.rows.start
                and old.rows.stop <= patch.rows.stop
                and patch.columns.start <= old.columns.start
                and old.columns.stop <= patch.columns.stop
            )
        )
        return PatchedImage(self.base, (*kept, patch))

    def crop(self, rows: slice, columns: slice) -> UInt8Array:
        """Return a rectangle, uint8 [h, w, 3]: a part of the base if no patch overlaps it."""
        crop = crop_image(self.base, rows, columns)
        overlapping = [patch for patch in self.patches if patch.overlaps(rows, columns)]
        if overlapping:
            crop = crop.copy()
        for patch in overlapping:
            y, x = max(rows.start, patch.y), max(columns.start, patch.x)
            height = min(rows.stop, patch.rows.stop) - y
            width = min(columns.stop, patch.columns.stop) - x
            pixels = patch.pixels[y - patch.y :, x - patch.x :][:height, :width]
            crop[y - rows.start :, x - columns.start :][:height, :width] = pixels
        return crop

    def to_array(self) -> UInt8Array:
        """Return the whole image, uint8 [height, width, 3]; an array itself without patches."""
        height, width = self.base.shape[:2]
        if not self.patches:
            return to_array(self.base)
        base = PatchedImage(to_array(self.base), self.patches)
        return base.crop(slice(0, height), slice(0, width))
