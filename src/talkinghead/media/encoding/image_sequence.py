"""Writing of images as PNG or JPEG, and of image sequences: one image per frame."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from fractions import Fraction
from itertools import count, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from talkinghead.errors import MediaError
from talkinghead.media.atomic_file import (
    atomic_path,
    remove_stale_files,
    temporary_name,
    unwritable,
)
from talkinghead.media.encoding.output_formats import IMAGE_SUFFIXES, numbered_path, output_format
from talkinghead.media.encoding.patched_image import PatchedImage
from talkinghead.types import FloatArray, UInt8Array

log = logging.getLogger(__name__)

# Pillow's default level 6 takes more than three times as long for 12 % less.
_PNG_OPTIONS: dict[str, Any] = {"compress_level": 1}
_JPEG_OPTIONS: dict[str, Any] = {"quality": 95, "subsampling": 0}
# Maximum length of a JPEG comment in bytes; Pillow has a buffer of 65,536 bytes up to its end.
_MAX_COMMENT = 65_000


class ImageSequenceWriter:
    """Context manager that writes frames as images, numbered from 1.

    The images are put in place when all are written, where they replace an earlier sequence of the
    same name; on any exception none is left. The first image is put in place last, so that it marks
    a complete sequence. A sequence has no audio and no frame times. `path` contains a number, such
    as `frames/%05d.png`; the metadata are written into the comment of each image.
    """

    def __init__(
        self,
        path: Path | str,
        width: int,
        height: int,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.path, self.width, self.height = Path(path), int(width), int(height)
        self._comment = output_format(path).supported_tags(metadata or {}).get("comment", "")
        self._num_images = 0

    def __enter__(self) -> Self:
        target = self.path.resolve().parent
        self._folder = target / temporary_name()
        try:
            target.mkdir(parents=True, exist_ok=True)
            remove_stale_files(target)
            self._folder.mkdir()
        except OSError as error:
            raise MediaError(
                f"{self.path}: its folder cannot be created ({error.strerror}); choose another one"
            ) from error
        log.info("%s: an image sequence has no audio", self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and not self._num_images:
                raise MediaError(f"{self.path}: no frame was written; give at least one")
            if error is None:
                self._put_in_place()
        except OSError as failure:
            raise unwritable(self.path, failure) from failure
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, image: UInt8Array | PatchedImage, time_s: Fraction | None = None) -> None:
        """Write the next image; its time is ignored."""
        array = image.to_array() if isinstance(image, PatchedImage) else image
        if array.shape != (self.height, self.width, 3):
            raise MediaError(
                f"{self.path}: got an image of shape {array.shape}, needs uint8 "
                f"({self.height}, {self.width}, 3)"
            )
        self._num_images += 1
        name = numbered_path(self.path, self._num_images).name
        try:
            write_image(self._folder / name, array, self._comment)
        except MediaError as error:  # It names the temporary folder.
            raise unwritable(self.path, error.__cause__ or error) from error

    def write_audio(self, samples: FloatArray) -> None:
        """Ignore audio, which a sequence cannot store."""

    def _put_in_place(self) -> None:
        paths = (numbered_path(self.path, number) for number in count(self._num_images + 1))
        earlier = list(takewhile(Path.is_file, paths))
        for path in earlier:
            path.unlink()
        if earlier:
            text = "%s: removed %d images of an earlier sequence, from %s on"
            log.info(text, self.path, len(earlier), earlier[0].name)
        for number in range(self._num_images, 0, -1):
            name = numbered_path(self.path, number).name
            (self._folder / name).replace(self._folder.parent / name)


def write_image(path: Path | str, image: UInt8Array, comment: str = "") -> None:
    """Write a PNG or a high-quality JPEG file.

    Args:
        path: ends in .png, .jpg or .jpeg, which selects the format.
        image: uint8 [height, width, 3] RGB.
        comment: text of the file's comment; empty for none. A JPEG keeps its last 65,000 bytes.

    Raises:
        MediaError: another suffix, shape or type, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise MediaError(f"{path}: images are written as .png or .jpg; change the file name")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise MediaError(
            f"{path}: got an image of {image.dtype} {image.shape}, needs uint8 (height, width, 3)"
        )
    if suffix == ".png":
        information = PngInfo()
        if comment:
            information.add_text("Comment", comment)
        options = {**_PNG_OPTIONS, "pnginfo": information}
    else:
        options = {**_JPEG_OPTIONS, "comment": comment.encode()[-_MAX_COMMENT:]}
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, **options)
