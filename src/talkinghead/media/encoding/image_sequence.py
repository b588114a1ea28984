"""Writing of image sequences: one PNG or JPEG file per frame."""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

from talkinghead.errors import MediaError
from talkinghead.media.encoding.output_formats import numbered_path
from talkinghead.media.encoding.patched_image import PatchedImage
from talkinghead.types import FloatArray, UInt8Array

log = logging.getLogger(__name__)


class ImageSequenceWriter:
    """Context manager that writes frames as images, numbered from 1.

    The images are put in place when all are written; on any exception none is left. A sequence has
    no audio and no frame times.

    Args:
        path: name of the images with a number, such as `frames/%05d.png`.
        width: width of the images in pixels.
        height: height of the images in pixels.
        write_image: function that writes an image file.
    """

    def __init__(
        self,
        path: Path | str,
        width: int,
        height: int,
        write_image: Callable[[Path, UInt8Array], None],
    ) -> None:
        self.path, self.width, self.height = Path(path), int(width), int(height)
        self._write_image = write_image
        self._num_images = 0

    def __enter__(self) -> Self:
        folder = self.path.resolve().parent
        self._folder = folder / f".{secrets.token_hex(8)}.tmp"
        try:
            self._folder.mkdir(parents=True)
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
                for number in range(1, self._num_images + 1):
                    name = numbered_path(self.path, number).name
                    (self._folder / name).replace(self._folder.parent / name)
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
        self._write_image(self._folder / numbered_path(self.path, self._num_images).name, array)

    def write_audio(self, samples: FloatArray) -> None:
        """Ignore audio, which a sequence cannot store."""
