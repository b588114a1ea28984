"""Conversion of RGB images to the pixel format of an encoder, only where the images change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from talkinghead.media.decoding.planes import PlaneArray, Planes, frame_of_planes, plane_array
from talkinghead.media.decoding.tone_mapping import HDR_PIX_FMT, HDRFormat
from talkinghead.media.decoding.video_image import SDR_PIX_FMT, VideoImage
from talkinghead.media.encoding.patched_image import Patch, PatchedImage
from talkinghead.media.image import ColourTags
from talkinghead.types import UInt8Array

if TYPE_CHECKING:
    from av.video.frame import VideoFrame as AVFrame

# Without ACCURATE_RND, swscale rounds down, which darkens images by up to one level.
_UNBIASED = Interpolation.BILINEAR | Interpolation.ACCURATE_RND

_Undo = tuple[slice, slice, list[PlaneArray]]
_Part = tuple[slice, slice]


class FrameConverter:
    """A converter of RGB images to frames of a planar YUV format.

    Of `PatchedImage`s only the patches are converted, if the base is an image of a video or that of
    the image before. Images of a video keep their levels where they do not change: the change by a
    patch is converted and added. The returned frame may be that of the call before, so encode it
    before the next call. The pixel format is "yuv420p" or "yuv444p". With subsampled chroma,
    `width` and `height` of the frames are even, by repetition of the last column or row.
    """

    def __init__(self, width: int, height: int, pix_fmt: str, colour: ColourTags) -> None:
        self.pix_fmt = pix_fmt
        self._step = 1 if pix_fmt == "yuv444p" else 2
        self.width = -(-width // self._step) * self._step
        self.height = -(-height // self._step) * self._step
        self._padding = self.height - height, self.width - width
        self.colour = colour
        self._whole, self._part = VideoReformatter(), VideoReformatter()
        self._base: UInt8Array | VideoImage | None = None
        self._frame: AVFrame | None = None
        self._undo: list[_Undo] = []
        # Planes of the base, if it is an image of a video that needs no conversion.
        self._original: Planes | None = None

    def __call__(self, image: UInt8Array | PatchedImage) -> AVFrame:
        """Return the frame of an image."""
        if not isinstance(image, PatchedImage):
            self._base = self._frame = self._original = None
            return self._convert(self._whole, image)
        if image.base is not self._base:
            self._base, self._undo, self._original = image.base, [], None
            self._frame = self._frame_of(image.base)
            if self._frame is None:
                # Arrays mostly differ everywhere, so a base is only kept when it is repeated.
                return self._convert(self._whole, image.to_array())
        if self._frame is None:
            assert not isinstance(image.base, VideoImage)
            self._frame = self._convert(self._whole, image.base)
        # Copies the frame if the encoder still has a reference to it.
        self._frame.make_writable()
        self._update(self._frame, image)
        return self._frame

    def _frame_of(self, base: UInt8Array | VideoImage) -> AVFrame | None:
        """Return a new frame of a base whose planes need no conversion, None for another base."""
        colours = self.colour.matrix, self.colour.range
        if not isinstance(base, VideoImage):
            return None
        if self.pix_fmt != SDR_PIX_FMT or base.colours != colours:
            return self._convert(self._whole, base.to_array())
        return self._copy(base.upright_planes())

    def _copy(self, planes: Planes) -> AVFrame:
        """Return a new frame with the levels of planes, to which changes are added."""
        self._original = planes
        frame = frame_of_planes(planes, self.pix_fmt)
        frame.colorspace, frame.color_range = self.colour.matrix, self.colour.range
        return frame

    def _update(self, frame: AVFrame, image: PatchedImage) -> None:
        """Restore the base under the previous patches, and write the new ones."""
        planes = [plane_array(frame, index) for index in range(3)]
        for rows, columns, saved in reversed(self._undo):
            for index, (plane, pixels) in enumerate(zip(planes, saved, strict=True)):
                plane[self._scaled(rows, index), self._scaled(columns, index)] = pixels
        self._undo = []
        for patch in image.patches:
            # A pixel contributes to the chroma of its neighbours, so these change too, and they
            # depend on their own neighbours.
            part, context = self._around(patch, 1), self._around(patch, 2)
            targets = [
                plane[self._scaled(part[0], index), self._scaled(part[1], index)]
                for index, plane in enumerate(planes)
            ]
            self._undo.append((*part, [target.copy() for target in targets]))
            self._write(targets, image, part, context)

    def _write(
        self, targets: Sequence[PlaneArray], image: PatchedImage, part: _Part, context: _Part
    ) -> None:
        """Write a part of an image to parts of planes; it depends on the larger part `context`."""
        after = self._convert(self._part, image.crop(*context), context)
        before = None
        if self._original is not None:
            base = PatchedImage(image.base).crop(*context)
            before = self._convert(self._part, base, context)
        rows, columns = (
            slice(inner.start - outer.start, inner.stop - outer.start)
            for inner, outer in zip(part, context, strict=True)
        )
        for index, target in enumerate(targets):
            inner = self._scaled(rows, index), self._scaled(columns, index)
            levels = plane_array(after, index)[inner]
            if before is None:
                target[:] = levels
            else:
                change = cv2.subtract(levels, plane_array(before, index)[inner], dtype=cv2.CV_16S)
                self._add(target, change, part, index)

    def _add(self, target: PlaneArray, change: PlaneArray, part: _Part, index: int) -> None:
        """Set a part of a plane to the levels of the base, changed by int16 or float32."""
        assert self._original is not None
        where = self._scaled(part[0], index), self._scaled(part[1], index)
        kind = cv2.CV_8U if target.dtype == np.uint8 else cv2.CV_16U
        target[:] = cv2.add(self._original[index][where], change, dtype=kind)

    def _around(self, patch: Patch, num_samples: int) -> _Part:
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
        part: _Part | None = None,
    ) -> AVFrame:
        return reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(self._padded(image, part), format="rgb24"),
            format=self.pix_fmt,
            dst_colorspace=self.colour.matrix,
            dst_color_range=self.colour.range,
            interpolation=_UNBIASED,
            threads=1,
        )

    def _padded(self, image: UInt8Array, part: _Part | None) -> UInt8Array:
        """Return an image or a part of it with the size of the frames or of the part."""
        bottom, right = self._padding
        if part is not None:
            bottom = part[0].stop - part[0].start - image.shape[0]
            right = part[1].stop - part[1].start - image.shape[1]
        if bottom or right:
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)  # type: ignore[assignment]
        return np.ascontiguousarray(image)


class HDRFrameConverter(FrameConverter):
    """A converter to 10-bit frames of an HDR format.

    Images of an HDR video keep their levels. Where a patch changes an image, its change in standard
    dynamic range is converted and added, so the patch has no seam.
    """

    def __init__(self, width: int, height: int, hdr: HDRFormat) -> None:
        tags = ColourTags(hdr.matrix, hdr.range, hdr.primaries, hdr.transfer)
        super().__init__(width, height, HDR_PIX_FMT, tags)
        self._mapper = hdr.tone_mapper

    def _frame_of(self, base: UInt8Array | VideoImage) -> AVFrame | None:
        if not isinstance(base, VideoImage):
            return None
        planes = base.upright_hdr_planes()
        if planes is None or base.tone_mapper is not self._mapper:
            return self._convert(self._whole, base.to_array())
        return self._copy(planes)

    def _write(
        self, targets: Sequence[PlaneArray], image: PatchedImage, part: _Part, context: _Part
    ) -> None:
        change = self._mapper.unmap(self._padded(image.crop(*part), part))
        if self._original is not None:
            change -= self._mapper.unmap(PatchedImage(image.base).crop(*part))
        for index, target in enumerate(targets):
            levels = np.ascontiguousarray(change[..., index])
            if target.shape != levels.shape:
                size = target.shape[1], target.shape[0]
                levels = np.asarray(cv2.resize(levels, size, interpolation=cv2.INTER_AREA))
            if self._original is None:
                target[:] = np.rint(levels).clip(0, 1023)
            else:
                self._add(target, levels, part, index)
                np.minimum(target, 1023, out=target)

    def _convert(
        self,
        reformatter: VideoReformatter,
        image: UInt8Array,
        part: _Part | None = None,
    ) -> AVFrame:
        y, u, v = cv2.split(self._mapper.unmap(self._padded(image, part)))
        size = self.width // 2, self.height // 2
        chroma = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in (u, v))
        planes = (np.rint(plane).clip(0, 1023).astype(np.uint16) for plane in (y, *chroma))
        frame = frame_of_planes((*planes,), HDR_PIX_FMT)
        frame.colorspace, frame.color_range = self.colour.matrix, self.colour.range
        return frame
