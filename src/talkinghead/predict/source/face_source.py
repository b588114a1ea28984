"""Open a photo or a video as a source of face images."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from talkinghead.errors import FaceNotFoundError, MediaError, UsageError
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.media.decoding.tone_mapping import HDRFormat
from talkinghead.media.image import BT709, ColourTags
from talkinghead.media.reader import is_image, probe, read_image
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source.active_speaker import PredictLips
from talkinghead.predict.source.frame_sources import PhotoFrames, video_expression, video_frames
from talkinghead.predict.source.playback import played_rate
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.types import AVSpec, UInt8Array

log = logging.getLogger(__name__)

# Maximum side of an image in pixels: `cv2.remap` stores coordinates in 16 bits.
_MAX_SIDE = 32_766


@dataclass(frozen=True)
class FaceSource:
    """A photo or a video with a face to be animated.

    Attributes:
        play: function that returns an endless generator of source frames from the start; it may
            get the estimated duration of the speech in seconds (see `playback.play`).
        name: name of the source in messages.
        is_immediate: the frames need no decoding and no detection.
        width: width of the images in pixels.
        height: height of the images in pixels.
        fps: nominal frame rate.
        options: selection of the face, and playback.
        duration_s: approximate duration before frames are repeated; 0 for a photo, and for a video
            of unknown duration.
        is_photo: the source is a photo.
        colour: colour conversion and tags of the file.
        hdr: HDR format of a video, None without HDR.
    """

    play: Callable[..., Generator[SourceFrame]]
    name: str
    is_immediate: bool
    width: int
    height: int
    fps: Fraction
    options: SourceOptions
    duration_s: Fraction = Fraction(0)
    is_photo: bool = False
    colour: ColourTags = BT709
    hdr: HDRFormat | None = None

    def missing_face(self, num_frames: int) -> FaceNotFoundError:
        """Return the error for a source in which no frame contains the selected face."""
        return FaceNotFoundError(
            f"{self.name}: no face{self.options.wanted} was found in any of {num_frames} frames; "
            "expected one that looks towards the camera: use another video, or crop it closer to "
            "the face"
        )

    def missing_choices(self, slots: Sequence[int], num_frames: int) -> UsageError:
        """Return the error for a video in which chosen faces are in no frame."""
        faces = ", ".join(str(self.options.chosen_faces[slot]) for slot in slots)
        return UsageError(
            f"{self.name}: face_select asks for the face {faces}, which was not found in any of "
            f"{num_frames} frames: choose another face; audio=[...] needs a face for each file"
        )


def open_face(
    face: str | Path | UInt8Array,
    detector: FaceDetector,
    spec: AVSpec,
    options: SourceOptions,
    *,
    keep_hdr: bool = True,
    predict_lips: PredictLips | None = None,
) -> FaceSource:
    """Open a photo or a video as a face source.

    Args:
        face: a file, or an image uint8 [H, W, 3] RGB.
        detector: finds the face.
        spec: the model's AVSpec; a photo is played at its frame rate.
        options: selection of the face, and playback.
        keep_hdr: keep the levels of HDR videos for HDR output, which needs more memory.
        predict_lips: predicts the lip motion from the audio of a video; face_select=speaking needs
            it.

    Raises:
        MediaError: A file cannot be read, or the image is too large.
        UsageError: The pose or the expression cannot be read, or an argument has a wrong type.
    """
    _check_types(face, options)
    is_photo = isinstance(face, np.ndarray) or is_image(face)
    image = face if isinstance(face, np.ndarray) else read_image(face)
    full_width = image.shape[1]
    if is_photo and options.max_side is not None:
        image = _scale_down(image, options.max_side)
    height, width = image.shape[:2]
    name = "the image" if isinstance(face, np.ndarray) else str(face)
    if max(height, width) > _MAX_SIDE:
        raise MediaError(
            f"{name}: {width} x {height} pixels; each side may have at most {_MAX_SIDE:,}: "
            "crop it closer to the face"
        )
    if is_photo:
        photo = PhotoFrames(image, name, detector, spec, options, width / full_width)
        return FaceSource(photo, name, True, width, height, spec.fps, options, is_photo=True)
    _check_video_options(options, name)
    expression = video_expression(options)
    info = probe(name)
    fps = info.fps or spec.fps
    place = Path(name), fps, detector, spec, options, expression
    play = partial(video_frames, *place, keep_hdr=keep_hdr, predict_lips=predict_lips)
    fps = played_rate(fps, options.min_fps, name)
    duration_s, colours = info.duration_s, (info.colour, info.hdr)
    return FaceSource(play, name, False, width, height, fps, options, duration_s, False, *colours)


def _check_types(face: object, options: object) -> None:
    if not isinstance(face, str | os.PathLike | np.ndarray):
        raise UsageError(
            f"the face is of the type {type(face).__name__}; expected the path of a photo or a "
            "video, or an image uint8 [H, W, 3] RGB"
        )
    if not isinstance(options, SourceOptions):
        raise UsageError(f"expected SourceOptions for the face, got {type(options).__name__}")


def _check_video_options(options: SourceOptions, name: str) -> None:
    """Log a warning of options without effect on a video.

    Raises:
        MediaError: The driving video cannot be read.
    """
    if options.driving_video is not None:
        probe(options.driving_video)
    default = SourceOptions()
    is_given = {
        "pose": options.pose is not None,
        "motion": options.motion not in ("none", default.motion),
        "seed": options.seed != default.seed,
    }
    for field in (field for field, given in is_given.items() if given):
        log.warning("%s: %s has no effect on a video; it moves the head in a photo", name, field)


def _scale_down(image: UInt8Array, max_side: int) -> UInt8Array:
    """Return an image whose longer side is at most `max_side`; scaled images have even sizes."""
    height, width = image.shape[:2]
    scale = Fraction(max_side, max(height, width))
    if scale >= 1:
        return image
    size = (2 * max(1, round(width * scale / 2)), 2 * max(1, round(height * scale / 2)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
