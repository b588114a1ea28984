"""Conversion of RGB images to the pixel format of an encoder, only where the images change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.media.image import ColourTags
from talkinghead.types import UInt8Array

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AVFrame

# Without ACCURATE_RND, swscale rounds down, which darkens images by up to one level.
UNBIASED = Interpolation.BILINEAR | Interpolation.ACCURATE_RND

_Undo = tuple[slice, slice, list[UInt8Array]]


class FrameConverter:
    """A converter of RGB images to frames of a planar YUV format.

    Of consecutive `PatchedImage`s with the same base, only the patches are converted. The returned
    frame is then the same object, so encode it before the next call.

    Args:
        width: width of the images in pixels.
        height: height of the images in pixels.
        pix_fmt: "yuv420p" or "yuv444p".
        colour: matrix and range of the conversion.

    Attributes:
        width: width of the frames: with subsampled chroma even, by repetition of the last column.
        height: height of the frames: with subsampled chroma even, by repetition of the last row.
        pix_fmt: pixel format of the frames.
    """

    def __init__(self, width: int, height: int, pix_fmt: str, colour: ColourTags) -> None:
        self.pix_fmt = pix_fmt
        self._step = 1 if pix_fmt == "yuv444p" else 2
        self.width = -(-width // self._step) * self._step
        self.height = -(-height // self._step) * self._step
        self._padding = self.height - height, self.width - width
        self._colour = colour
        self._whole, self._part = VideoReformatter(), VideoReformatter()
        self._base: UInt8Array | None = None
        self._frame: AVFrame | None = None
        self._undo: list[_Undo] = []

    def __call__(self, image: UInt8Array | PatchedImage) -> AVFrame:
        """Return the frame of an image."""
        if not isinstance(image, PatchedImage):
            self._base = self._frame = None
            return self._convert(self._whole, image)
        if image.base is not self._base:
            # The images of a video differ everywhere, so a base is only kept when it is repeated.
            self._base, self._frame = image.base, None
            return self._convert(self._whole, image.to_array())
        if self._frame is None:
            self._frame, self._undo = self._convert(self._whole, image.base), []
        # Copies the frame if the encoder still has a reference to it.
        self._frame.make_writable()
        self._update(self._frame, image)
        return self._frame

    def _update(self, frame: AVFrame, image: PatchedImage) -> None:
        """Restore the base under the previous patches, and write the new ones."""
        planes = [_plane_array(frame, index) for index in range(3)]
        for rows, columns, saved in reversed(self._undo):
            for index, (plane, pixels) in enumerate(zip(planes, saved, strict=True)):
                plane[self._scaled(rows, index), self._scaled(columns, index)] = pixels
        self._undo = []
        for patch in image.patches:
            # A pixel contributes to the chroma of its neighbours, so these change too, and they
            # depend on their own neighbours.
            rows, columns = self._around(patch, 1)
            context = self._around(patch, 2)
            targets = [
                plane[self._scaled(rows, index), self._scaled(columns, index)]
                for index, plane in enumerate(planes)
            ]
            self._undo.append((rows, columns, [target.copy() for target in targets]))
            converted = self._convert(self._part, image.crop(*context), context)
            rows, columns = (
                slice(inner.start - outer.start, inner.stop - outer.start)
                for inner, outer in zip((rows, columns), context, strict=True)
            )
            for index, target in enumerate(targets):
                part = _plane_array(converted, index)
                target[:] = part[self._scaled(rows, index), self._scaled(columns, index)]

    def _around(self, patch: Patch, num_samples: int) -> tuple[slice, slice]:
        """Return the rows and columns of a patch and of this many chroma samples around it."""
        step = self._step
        return tuple(  # type: ignore[return-value]
            slice(
                max(0, (part.start // step - num_samples) * step),
                min(length, (-(-part.stop // step) + num_samples) * step),
            )
            for part, length in ((patch.rows, self.height), (patch.columns, self.width))
        )

    def _scaled(self, part: slice, index: int) -> slice:
        step = self._step if index else 1
        return slice(part.start // step, part.stop // step)

    def _convert(
        self,
        reformatter: VideoReformatter,
        image: UInt8Array,
        part: tuple[slice, slice] | None = None,
    ) -> AVFrame:
        bottom, right = self._padding
        if part is not None:
            bottom = part[0].stop - part[0].start - image.shape[0]
            right = part[1].stop - part[1].start - image.shape[1]
        if bottom or right:
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
        return reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgb24"),
            format=self.pix_fmt,
            dst_colorspace=self._colour.matrix,
            dst_color_range=self._colour.range,
            interpolation=UNBIASED,
            threads=1,
        )


def _plane_array(frame: AVFrame, index: int) -> UInt8Array:
    """Return a plane of a frame as an array, uint8 [height, width], that shares its memory."""
    plane = frame.planes[index]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
