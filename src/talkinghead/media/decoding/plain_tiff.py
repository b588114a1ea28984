"""TIFF files that Pillow does not read: YCbCr without compression, and unusual kinds of samples."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from talkinghead.types import UInt8Array

_BITS, _OFFSETS, _BYTE_COUNTS, _ROWS = 258, 273, 279, 278
_PLANAR, _SUBSAMPLING, _SAMPLE_FORMAT = 284, 530, 339
_FLOAT = 3


def has_unusual_samples(path: Path | str) -> bool:
    """Return whether a file is TIFF with samples that FFmpeg would read with wrong colours.

    These are floating point with 16 or 64 bits, and whole numbers with 32 bits.
    """
    try:
        with Path(path).open("rb") as file:
            header = file.read(8)
            if header[:2] not in (b"II", b"MM"):
                return False
            tags = ImageFileDirectory_v2(header)
            file.seek(tags.next)
            tags.load(file)
        bits = max(tags.get(_BITS, (1,)))
        is_float = _FLOAT in tags.get(_SAMPLE_FORMAT, (1,))
    except (OSError, ValueError, TypeError, LookupError, SyntaxError, struct.error):
        return False
    return bits in ((16, 64) if is_float else (32, 64))


def ycbcr_to_rgb(image: TiffImageFile) -> UInt8Array:
    """Return the pixels uint8 [height, width, 3] of an opened YCbCr image without compression.

    Raises:
        ValueError: The file is truncated, or is divided into tiles or planes.
    """
    tags, (width, height) = image.tag_v2, image.size
    if _OFFSETS not in tags or tags.get(_PLANAR, 1) != 1 or image.fp is None:
        raise ValueError("YCbCr in tiles or planes")
    data = bytearray()
    for offset, size in zip(tags[_OFFSETS], tags[_BYTE_COUNTS], strict=True):
        image.fp.seek(offset)
        data += image.fp.read(size)
    across, down = tags.get(_SUBSAMPLING, (2, 2))
    if len(data) >= 3 * width * height:  # Some programs do not write that nothing is subsampled.
        across = down = 1
    rows = min(tags.get(_ROWS, height), height)
    planes = _planes(bytes(data), width, height, rows, (across, down))
    rgb = Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes]).convert("RGB")
    rgb.getexif().update(image.getexif())
    return np.array(ImageOps.exif_transpose(rgb))


def _planes(
    data: bytes, width: int, height: int, rows: int, block: tuple[int, int]
) -> list[UInt8Array]:
    """Return the planes of strips, which contain the samples of a block one after the other."""
    across, down = block
    num_columns, size = -(-width // across), across * down + 2
    luma = np.empty((height, width), np.uint8)
    chroma = np.empty((2, height, width), np.uint8)
    start = 0
    for top in range(0, height, rows):
        num_rows = min(rows, height - top)
        num_blocks = -(-num_rows // down)
        length = num_blocks * num_columns * size
        if start + length > len(data):
            raise ValueError("truncated")
        strip = np.frombuffer(data, np.uint8, length, start)
        blocks = strip.reshape(num_blocks, num_columns, size)
        part = slice(top, top + num_rows)
        samples = blocks[..., :-2].reshape(num_blocks, num_columns, down, across)
        whole = samples.swapaxes(1, 2).reshape(num_blocks * down, num_columns * across)
        luma[part] = whole[:num_rows, :width]
        for index in range(2):
            plane = blocks[..., index - 2].repeat(down, 0).repeat(across, 1)
            chroma[index, part] = plane[:num_rows, :width]
        start += length
    return [luma, *chroma]
