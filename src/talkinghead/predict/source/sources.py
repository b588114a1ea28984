"""The picture's side of a prediction: frames without end, with a transform and a reference."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import closing
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import cast

from talkinghead.errors import FaceNotFoundError
from talkinghead.features.faces.alignment import (
    chain_transforms,
    estimate_transform,
    invert,
    lip_points,
)
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import (
    Choice,
    FaceTracker,
    FromTheLeft,
    MultiTracker,
    largest,
)
from talkinghead.media.reader import probe
from talkinghead.models.checkpoint import load_expert
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.predict.source.active_speaker import Speakers
from talkinghead.predict.source.head_motion import IdleMotion
from talkinghead.predict.source.playback import play
from talkinghead.predict.source.references import with_references
from talkinghead.predict.source.source_frame import Reference, SourceFrame, SourceOptions
from talkinghead.predict.source.tracks import (
    MAX_FACES,
    aligned,
    faded,
    layered,
    many_tracks,
    one_track,
)
from talkinghead.types import AVSpec, Face, UInt8Array

__all__ = ["Reference", "SourceFrame", "SourceOptions", "photo_frames", "video_frames"]

log = logging.getLogger(__name__)


def photo_frames(
    image: UInt8Array,
    name: str,
    detector: FaceDetector,
    spec: AVSpec,
    options: SourceOptions | None = None,
) -> Generator[SourceFrame]:
    """The same photo for ever, still or alive, on the spec's own time grid.

    Raises:
        FaceNotFoundError: the photo shows no face, or not the one asked for.
    """
    options = options or SourceOptions()
    faces = _faces_of_photo(detector.detect(image), name, options)
    references = [
        Reference(
            image,
            estimate_transform(face.points, face.topology, spec),
            lip_points(face.points, face.topology),
        )
        for face in faces
    ]
    motion = IdleMotion(image, faces, options.seed) if options.motion == "idle" else None
    return _photo_frames(image, references, motion, spec)


def _photo_frames(
    image: UInt8Array, references: list[Reference], motion: IdleMotion | None, spec: AVSpec
) -> Generator[SourceFrame]:
    picture, transforms = image, [reference.transform for reference in references]
    for index in count():
        time_s = index / spec.fps
        if motion is not None:
            picture, moves = motion.at(float(time_s))
            transforms = [
                chain_transforms(invert(move), reference.transform)
                for move, reference in zip(moves, references, strict=True)
            ]
        for slot, reference in enumerate(references):
            yield SourceFrame(
                picture,
                time_s,
                1 / spec.fps,
                transforms[slot],
                reference,
                is_extension=True,
                slot=slot,
                is_last=slot == len(references) - 1,
            )


def _faces_of_photo(faces: list[Face], name: str, options: SourceOptions) -> list[Face]:
    """Those that are to speak, the largest first."""
    if not faces:
        raise FaceNotFoundError(
            f"{name}: no face was found in this photo; expected one that looks towards the camera, "
            "at least some 60 pixels wide: use another photo, or crop it closer to the face"
        )
    if options.face_select == "all":
        return faces[:MAX_FACES]
    if options.face_select == "speaking":
        log.warning("%s: a photo has no sound to tell who speaks; the largest face is taken", name)
    choose = FromTheLeft(options.face_index) if options.face_select == "index" else largest
    face = choose(faces, Fraction(0))
    if face is None:
        raise FaceNotFoundError(
            f"{name}: face_index={options.face_index}, but {len(faces)} faces were found, counted "
            "from the left from 0: choose a smaller number"
        )
    return [face]


def video_frames(
    path: Path,
    fps: Fraction,
    detector: FaceDetector,
    spec: AVSpec,
    options: SourceOptions | None = None,
) -> Generator[SourceFrame]:
    """A video's frames for ever, with smoothed transforms and a reference for each shot.

    Raises:
        MediaError: the video cannot be read (some faults show only on the way).
    """
    options = options or SourceOptions()
    with closing(play(path, fps, options.extend)) as frames:
        if options.face_select == "all":
            sightings = many_tracks(frames, MultiTracker(detector, MAX_FACES))
        else:
            choose = _choice(path, fps, detector, options)
            sightings = [one_track(frames, FaceTracker(detector, choose=choose))]
        yield from layered(
            with_references(faded(aligned(seen, spec, fps), fps), spec, fps) for seen in sightings
        )


def _choice(path: Path, fps: Fraction, detector: FaceDetector, options: SourceOptions) -> Choice:
    if options.face_select == "index":
        return FromTheLeft(options.face_index)
    if options.face_select == "speaking":
        if probe(path).has_audio:
            loaded = load_expert("default")
            expert = cast(SyncDiscriminator, loaded.model)
            return Speakers(path, fps, detector, expert, loaded.spec)
        log.warning("%s: has no sound to tell who speaks; the largest face is taken", path)
    return largest
