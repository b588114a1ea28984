"""Avatars: faces that are detected and encoded once, for many predictions and streams."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, repeat
from typing import Any, Protocol

from talkinghead.media.decoding.video_image import to_array
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
from talkinghead.predict.audio.phonemes import PhonemeTrack
from talkinghead.predict.compositing.compositor import Compositor
from talkinghead.predict.mouth_generator import MouthGenerator
from talkinghead.predict.prediction import Prediction, RenderReport
from talkinghead.predict.source.face_source import FaceSource
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.progress_bar import progress_bar
from talkinghead.types import AVSpec

log = logging.getLogger(__name__)

MAX_BYTES = 2**30
"""Maximum size of an avatar's images in memory: 15 s of 1280 x 720 at 25 frames/s."""

FaceFrames = tuple[SourceFrame, ...]
"""The source frames of one image, one for each speaking face."""


class AvatarPredictor(Protocol):
    """Interface of `LipSyncPredictor` for avatars and for code that uses avatars."""

    spec: AVSpec
    lip_prior: LipPrior | None

    def mouth_generator(
        self, lip_prior: LipPrior | None = None, phonemes: PhonemeTrack | None = None
    ) -> MouthGenerator:
        """Return a new mouth generator; `lip_prior` replaces the predictor's own."""

    def compositor(self) -> Compositor:
        """Return a new compositor."""

    def predict(self, *args: Any, **options: Any) -> Prediction:
        """Return the predicted frames."""

    def render(self, *args: Any, **options: Any) -> RenderReport:
        """Write the prediction to a video file."""


@dataclass(frozen=True, eq=False)
class Avatar:
    """A detected, aligned and encoded face, created by `LipSyncPredictor.avatar`.

    Safe for concurrent callers: an avatar is immutable, so several predictions and streams may use
    it at once.

    Attributes:
        predictor: the predictor that made the avatar, adapted to the speaker if the source was
            calibrated; no other predictor can use the features.
        source: a source whose frames have encoded references and contexts.
        face_frames: the frames of one pass over the source.

    Example:
        >>> avatar = LipSyncPredictor.from_checkpoint("default").avatar("photo.jpg")
        >>> avatar.predictor.render(avatar, "speech.wav", "talking.mp4")
    """

    predictor: AvatarPredictor
    source: FaceSource
    face_frames: tuple[FaceFrames, ...]

    def warn_of_missing_hdr(self) -> None:
        """Log a warning that `hdr=keep` has no effect, as the images have 8 bits."""
        log.warning(
            "%s: hdr=keep has no effect on an avatar, whose images have 8 bits; give the video "
            "itself",
            self.source.name,
        )


def encode_avatar(predictor: AvatarPredictor, source: FaceSource) -> Avatar:
    """Play a source once and encode its frames."""
    played: list[FaceFrames] = []
    with progress_bar(f"reading {source.name}", log) as show:
        for frames in _one_pass(source):
            played.append(frames)
            show(float(frames[0].time_s), float(source.duration_s))
    if not any(frame.reference for frame in chain(*played)):
        raise source.missing_face(len(played))
    encoded = iter(predictor.mouth_generator().encode(chain(*played)))
    face_frames: list[FaceFrames] = []
    with progress_bar(f"encoding {source.name}", log) as show:
        for frames in played:
            face_frames.append(tuple(next(encoded) for _ in frames))
            show(len(face_frames), len(played))
    play = partial(_play, tuple(face_frames), source.options.extend)
    # The images are in 8-bit RGB, so the output must not be tagged as HDR.
    source = replace(source, play=play, is_immediate=True, hdr=None)
    return Avatar(predictor, source, tuple(face_frames))


def _one_pass(source: FaceSource) -> Iterator[FaceFrames]:
    """Yield the source frames of each image once, up to `MAX_BYTES` of images."""
    faces: list[SourceFrame] = []
    num_bytes = 0
    with closing(source.play()) as frames:
        for frame in frames:
            if num_bytes and frame.is_extension:
                return
            faces.append(frame)
            if not frame.is_last:
                continue
            # Live sessions show the frames again and again, so they are converted to RGB once.
            pixels = to_array(frame.image)
            yield tuple(replace(face, image=pixels) for face in faces)
            faces = []
            num_bytes += frame.image.nbytes
            if num_bytes + frame.image.nbytes > MAX_BYTES:
                end_s = float(frame.time_s + frame.duration_s)
                log.warning("%s: too long; only the first %.1f s are used", source.name, end_s)
                return


def _play(
    face_frames: tuple[FaceFrames, ...], extend: str, speech_s: Fraction | None = None
) -> Generator[SourceFrame]:
    """Yield the frames, then repeat them according to `extend`, with increasing times."""
    time_s = Fraction(0)
    for number, (index, starts_shot) in enumerate(_order(face_frames, extend)):
        for frame in face_frames[index]:
            yield replace(
                frame,
                time_s=time_s,
                starts_shot=starts_shot,
                is_extension=frame.is_extension or number >= len(face_frames),
            )
        time_s += face_frames[index][0].duration_s


def _order(face_frames: tuple[FaceFrames, ...], extend: str) -> Iterator[tuple[int, bool]]:
    """Yield the index of each image to show, and whether a cut precedes the image."""
    last = len(face_frames) - 1
    cuts = [frames[0].starts_shot for frames in face_frames]
    yield from enumerate(cuts)
    if extend == "hold" or last == 0:
        yield from repeat((last, False))
    while True:
        if extend == "loop":
            yield from enumerate([True, *cuts[1:]])
        else:
            yield from ((index, cuts[index + 1]) for index in reversed(range(last)))
            yield from ((index, cuts[index]) for index in range(1, last + 1))
