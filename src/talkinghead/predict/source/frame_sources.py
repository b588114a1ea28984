"""Endless frames of a photo or a video, each with a transform and a reference."""

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
    FaceSelector,
    FaceTracker,
    MultiTracker,
    SelectFaceFromLeft,
    select_largest_face,
)
from talkinghead.media.reader import probe
from talkinghead.models.checkpoint import load_expert
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source.active_speaker import ActiveSpeakerSelector
from talkinghead.predict.source.face_tracks import (
    MAX_FACES,
    align_faces,
    fade_faces,
    interleave_tracks,
    track_face,
    track_faces,
)
from talkinghead.predict.source.idle_motion import IdleMotion
from talkinghead.predict.source.playback import play
from talkinghead.predict.source.reference_policy import add_references
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.types import AVSpec, Face, UInt8Array

log = logging.getLogger(__name__)


def photo_frames(
    image: UInt8Array, name: str, detector: FaceDetector, spec: AVSpec, options: SourceOptions
) -> Generator[SourceFrame]:
    """Return an endless generator of a photo's frames at the frame rate of the AVSpec.

    Raises:
        FaceNotFoundError: the photo contains no face, or not the selected one.
    """
    faces = _select_photo_faces(detector.detect(image), name, options)
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
    moved, transforms = image, [reference.transform for reference in references]
    still = [
        SourceFrame(image, Fraction(0), 1 / spec.fps, reference.transform, reference)
        for reference in references
    ]
    for index in count():
        time_s = index / spec.fps
        if motion is not None:
            moved, moves = motion.at(float(time_s))
            transforms = [
                chain_transforms(invert(move), reference.transform)
                for move, reference in zip(moves, references, strict=True)
            ]
        for slot, reference in enumerate(references):
            yield SourceFrame(
                moved,
                time_s,
                1 / spec.fps,
                transforms[slot],
                reference,
                is_extension=True,
                slot=slot,
                is_last=slot == len(references) - 1,
                context_frame=None if motion is None else still[slot],
            )


def _face_selector(options: SourceOptions) -> FaceSelector:
    is_index = options.face_select == "index"
    return SelectFaceFromLeft(options.face_index) if is_index else select_largest_face


def _select_photo_faces(faces: list[Face], name: str, options: SourceOptions) -> list[Face]:
    """Return the selected faces, in order of decreasing size."""
    if not faces:
        raise FaceNotFoundError(
            f"{name}: no face was found in this photo; expected a face that looks towards the "
            "camera and is at least 60 pixels wide: use another photo, or crop the photo"
        )
    if options.face_select == "all":
        return faces[:MAX_FACES]
    if options.face_select == "speaking":
        log.warning("%s: a photo has no audio to select a speaker by; using the largest face", name)
    face = _face_selector(options)(faces, Fraction(0))
    if face is None:
        found = "1 face was" if len(faces) == 1 else f"{len(faces)} faces were"
        raise FaceNotFoundError(
            f"{name}: face_index={options.face_index}, but only {found} found; "
            "faces are counted from the left, starting at 0: choose a smaller number"
        )
    return [face]


def video_frames(
    path: Path, fps: Fraction, detector: FaceDetector, spec: AVSpec, options: SourceOptions
) -> Generator[SourceFrame]:
    """Yield a video's frames endlessly, with smoothed transforms and references.

    Raises:
        MediaError: the video cannot be read (possibly only during iteration).
    """
    with closing(play(path, fps, options.extend)) as frames:
        if options.face_select == "all":
            tracks = track_faces(frames, MultiTracker(detector, MAX_FACES))
        else:
            choose = _video_face_selector(path, fps, detector, options)
            tracks = [track_face(frames, FaceTracker(detector, select=choose))]
        yield from interleave_tracks(
            add_references(fade_faces(align_faces(track, spec, fps), fps), spec, fps)
            for track in tracks
        )


def _video_face_selector(
    path: Path, fps: Fraction, detector: FaceDetector, options: SourceOptions
) -> FaceSelector:
    if options.face_select == "speaking":
        if probe(path).has_audio:
            loaded = load_expert("default")
            expert = cast(SyncDiscriminator, loaded.model)
            return ActiveSpeakerSelector(path, fps, detector, expert, loaded.spec)
        log.warning("%s: it has no audio to select a speaker by; using the largest face", path)
    return _face_selector(options)
