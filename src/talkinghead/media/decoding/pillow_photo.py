"""Reading of photos with Pillow that FFmpeg does not read, or reads with wrong colours.

These are TIFF files, icons with images of several sizes, bitmaps without a file header, and JPEG
files in CMYK.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.IcoImagePlugin import IcoImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from talkinghead.errors import MediaError
from talkinghead.media.container import MAX_PIXELS
from talkinghead.media.decoding.colour_profile import srgb_conversion
from talkinghead.media.decoding.plain_tiff import has_unusual_samples, ycbcr_to_rgb
from talkinghead.media.image import over_white
from talkinghead.types import FloatArray, UInt8Array

log = logging.getLogger(__name__)

_FORMATS = ["TIFF", "ICO", "DIB", "JPEG"]
_STARTS = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+", b"\0\0\1\0", b"\x28\0\0\0", b"\xff\xd8")
# Raw photos of cameras, of which Pillow reads only a preview.
_DNG_VERSION = 50706
_COMPRESSION, _PHOTOMETRIC, _YCBCR = 259, 262, 6
# Errors of Pillow for damaged files, several of which it does not turn into an OSError.
_FAILURES = (
    *(OSError, ValueError, EOFError, SyntaxError, TypeError, LookupError, ArithmeticError),
    *(struct.error, Image.DecompressionBombError),
)


def is_pillow_photo(path: Path | str) -> bool:
    """Return whether a file is a photo that this module reads."""
    try:
        if not Path(path).is_file():  # Opening a pipe would wait for a writer.
            return False
        with Path(path).open("rb") as file:
            if not file.read(4).startswith(_STARTS):
                return False
        with _opened(path) as image:
            if isinstance(image, TiffImageFile):
                return _DNG_VERSION not in image.tag_v2
            return not isinstance(image, JpegImageFile) or image.mode == "CMYK"
    except _FAILURES:
        return has_unusual_samples(path)


def read_pillow_photo(path: Path | str) -> UInt8Array:
    """Return a photo uint8 [height, width, 3] in sRGB, upright and composited over white.

    Of several images in a file, the largest is read.

    Raises:
        MediaError: the file is damaged, too large, or has an unknown kind of pixels.
    """
    try:
        with _opened(path) as image:
            _choose_largest(image)
            if image.width * image.height > MAX_PIXELS:
                raise MediaError(
                    f"{path}: {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are "
                    "read, scale it down"
                )
            if isinstance(image, TiffImageFile) and _is_plain_ycbcr(image):
                return ycbcr_to_rgb(image)
            image.load()  # Pillow turns TIFF files upright while it loads them.
            return _to_rgb(ImageOps.exif_transpose(image), path)
    except (*_FAILURES, ImageCms.PyCMSError) as error:
        raise MediaError(
            f"{path}: its image cannot be read ({error}); save it as PNG or JPEG, or give an "
            "intact file"
        ) from error


@contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=_FORMATS) as image:
            yield image


def _choose_largest(image: Image.Image) -> None:
    """Select the largest image of a file, the first of equal ones."""
    if isinstance(image, IcoImageFile):
        image.size = max(image.info["sizes"], key=lambda size: np.prod(size))
    elif isinstance(image, TiffImageFile):
        areas = []
        for index in range(image.n_frames):
            image.seek(index)
            areas.append(image.width * image.height)
        image.seek(areas.index(max(areas)))


def _is_plain_ycbcr(image: TiffImageFile) -> bool:
    """Return whether an image is in YCbCr without compression, which Pillow does not load."""
    return (image.tag_v2.get(_PHOTOMETRIC), image.tag_v2.get(_COMPRESSION, 1)) == (_YCBCR, 1)


def _to_rgb(image: Image.Image, path: Path | str) -> UInt8Array:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        levels = _to_8_bits(np.asarray(image, np.float32))
        return np.repeat(levels[..., None], 3, axis=-1)
    if image.mode in ("LAB", "CMYK"):
        return _convert_colours(image, path)
    if image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if "A" in image.getbands() or "transparency" in image.info:
        pixels = over_white(np.asarray(image.convert("RGBA")))
    else:
        pixels = np.array(image.convert("RGB"))
    to_srgb = srgb_conversion(path)
    return pixels if to_srgb is None else to_srgb(pixels)


def _to_8_bits(levels: FloatArray) -> UInt8Array:
    """Return grey levels of 16 or 32 bits, or of floating point, in 8 bits.

    White is the smallest usual level (1, 255 or 65,535) that no level exceeds, or else the maximum.
    Levels of 1 occur in integer images only if they are black.
    """
    levels = np.nan_to_num(levels, posinf=0.0, neginf=0.0)
    maximum = float(levels.max(initial=0.0))
    white = next((white for white in (1.0, 255.0, 65_535.0) if maximum <= white), maximum)
    return np.rint(np.clip(levels, 0, None) * (255 / white)).astype(np.uint8)


def _convert_colours(image: Image.Image, path: Path | str) -> UInt8Array:
    """Return an image in CIELAB or CMYK in sRGB, by its colour profile if it has one."""
    profile, target = image.info.get("icc_profile"), ImageCms.createProfile("sRGB")
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        return np.array(ImageCms.profileToProfile(image, lab, target, outputMode="RGB"))
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            return np.array(converted)
        except (ImageCms.PyCMSError, OSError) as error:
            log.warning("%s: its colour profile cannot be read (%s); it is ignored", path, error)
    return np.array(image.convert("RGB"))
