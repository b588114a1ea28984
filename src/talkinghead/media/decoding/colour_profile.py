"""Conversion of photos with a colour profile, such as Display P3, to sRGB."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from talkinghead.types import UInt8Array

log = logging.getLogger(__name__)


def srgb_conversion(path: Path | str) -> Callable[[UInt8Array], UInt8Array] | None:
    """Return the conversion of a photo's images uint8 [H, W, 3] to sRGB by its ICC profile.

    The result is None without a profile, with that of sRGB, and with one that is not for RGB or
    cannot be read, as other programs ignore it too.
    """
    data = _read_profile(path)
    if data is None:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if profile.profile.xcolor_space.strip() != "RGB" or _is_srgb(profile):
            return None
        transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.warning("%s: its colour profile cannot be read (%s); it is ignored", path, error)
        return None

    def convert(image: UInt8Array) -> UInt8Array:
        converted = ImageCms.applyTransform(Image.fromarray(image), transform)
        return image if converted is None else np.array(converted, dtype=np.uint8)

    return convert


def _is_srgb(profile: ImageCms.ImageCmsProfile) -> bool:
    return "srgb" in (profile.profile.profile_description or "").lower()


def _read_profile(path: Path | str) -> bytes | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                profile = image.info.get("icc_profile")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return profile if isinstance(profile, bytes) and profile else None
