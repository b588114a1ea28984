"""Endless frames of a photo or a video, each with a transform and a reference."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from threading import Lock

from talkinghead.errors import FaceNotFoundError, UsageError
from talkinghead.features.faces.alignment import estimate_transform, lip_points
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.tracker import (
    FaceSelector,
    FaceTracker,
    FoundFaces,
    MultiTracker,
    SelectFaceFromLeft,
    select_largest_face,
)
from talkinghead.media.reader import probe
from talkinghead.predict.compositing.mouth_region import box_to_image
from talkinghead.predict.compositing.overlays import remove_overlay
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.source.active_speaker import ActiveSpeakerSelector, PredictLips
from talkinghead.predict.source.face_tracks import (
    MAX_FACES,
    align_faces,
    fade_faces,
    interleave_tracks,
    track_face,
    track_faces,
)
from talkinghead.predict.source.head.expression.emotions import read_emotion
from talkinghead.predict.source.head.expression.expression_track import read_expression
from talkinghead.predict.source.head.expression.video_expression import (
    FrameExpression,
    VideoExpression,
)
from talkinghead.predict.source.head.motion.driving_video import read_driving_video
from talkinghead.predict.source.head.motion.pose_track import read_pose_track
from talkinghead.predict.source.head.photo_animation import HeadMotion, PhotoAnimation
from talkinghead.predict.source.inner_lips import refine_inner_lips
from talkinghead.predict.source.mouth_covering import measure_visibility
from talkinghead.predict.source.playback import play, played_rate
from talkinghead.predict.source.reference_policy import add_references
from talkinghead.predict.source.selection.face_choice import FaceChooser
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.types import AVSpec, Face, UInt8Array

log = logging.getLogger(__name__)


class PhotoFrames:
    """Endless frames of a photo at the frame rate of the AVSpec; each call starts again.

    The faces are detected at the first call. Safe for concurrent callers.

    Args:
        image: uint8 [H, W, 3] RGB.
        name: name of the photo in messages.
        detector: finds the faces.
        spec: the model's AVSpec.
        options: selection of the faces, and their motion.
        scale: factor by which the image was scaled, for the pixels of the options.
    """

    def __init__(
        self,
        image: UInt8Array,
        name: str,
        detector: FaceDetector,
        spec: AVSpec,
        options: SourceOptions,
        scale: float = 1.0,
    ) -> None:
        self._image, self._name, self._spec, self._options = image, name, spec, options
        self._detector = detector
        self._chosen = FaceChooser(options.chosen_faces, detector, scale)
        self._excluded = FaceChooser(options.excluded_faces, detector, scale)
        self._motion = _head_motion(options, detector)
        self._lock = Lock()
        self._frames: list[SourceFrame] = []

    def __call__(self, speech_s: Fraction | None = None) -> Generator[SourceFrame]:
        """Return a generator of the frames from the start; `speech_s` has no effect.

        Raises:
            FaceNotFoundError: the photo contains no face, or not the selected one.
        """
        with self._lock:
            if not self._frames:
                self._frames = self._first_frames()
        return self._repeat(self._frames)

    def _first_frames(self) -> list[SourceFrame]:
        """Return the first frame of each face."""
        image, spec = self._image, self._spec
        faces, idle, still = self._select_faces()
        animations = self._animations(faces, idle, still)
        frames = []
        for slot, face in enumerate(faces):
            transform = estimate_transform(face.points, face.topology, spec)
            lips = lip_points(face.points, face.topology)
            is_covered = measure_visibility(image, transform, lips, spec).is_covered
            if is_covered:
                log.warning("%s: the mouth is covered, so it is not changed", self._name)
            # A caption is not part of the face; the same image without a caption.
            texture = remove_overlay(image, box_to_image(transform, spec))
            frame = SourceFrame(
                image,
                Fraction(0),
                1 / spec.fps,
                transform,
                Reference(texture, transform, refine_inner_lips(texture, lips)),
                is_covered=is_covered,
                is_extension=True,
                slot=slot,
                is_last=slot == len(faces) - 1,
                animation=animations[slot],
            )
            frames.append(frame)
        return frames

    def _select_faces(self) -> tuple[list[Face], list[Face], list[Face]]:
        """Return the selected faces, those that only sway and blink, and those that stay still.

        The faces of a list have its order, others are sorted by decreasing size. Excluded faces
        stay still, and so do the smallest faces if there are more than `MAX_FACES`.
        """
        found = FoundFaces(self._detector.detect(self._image), self._image)
        if not found.faces:
            raise FaceNotFoundError(
                f"{self._name}: no face was found in this photo; expected a face that looks "
                "towards the camera and is at least 60 pixels wide: use another photo, or crop "
                "the photo"
            )
        excluded = self._excluded.find_all(found, self._name, "exclude_face")
        if self._chosen.choices:
            faces = self._chosen.find_all(found, self._name, "face_select")
        else:
            faces = _select_photo_faces(found, self._name, self._options, excluded)
        if any(face is other for face in faces for other in excluded):
            raise UsageError(
                f"{self._name}: the selected face is also excluded by exclude_face="
                f"{','.join(map(str, self._excluded.choices))}: exclude another face"
            )
        known = [*faces, *excluded]
        others = [face for face in found.faces if not any(face is one for one in known)]
        num_idle = max(0, MAX_FACES - len(faces))
        return faces, others[:num_idle], [*others[num_idle:], *excluded]

    def _animations(
        self, faces: list[Face], idle: list[Face], still: list[Face]
    ) -> list[PhotoAnimation]:
        """Return the animation of each face: one for all, or, if they are listed, one for each.

        Each listed face may have its own speech, which moves its head. The first animation also
        moves the idle faces. The heads are turned without any change of the still faces.
        """
        moving = range(len(faces) + len(idle))
        groups = [[*moving]]
        if len(self._chosen.choices) > 1:
            groups = [[index] for index in range(len(faces))]
            groups[0] += moving[len(faces) :]
        others = [*idle, *still]
        animations = [
            PhotoAnimation(self._image, faces, self._motion, others, group, self._detector)
            for group in groups
        ]
        if self._options.is_animated:
            for animation in animations:
                animation.prepare()
        return animations if len(animations) > 1 else animations * len(faces)

    def _repeat(self, frames: list[SourceFrame]) -> Generator[SourceFrame]:
        for index in count():
            for frame in frames:
                yield replace(frame, time_s=index / self._spec.fps)


def _head_motion(options: SourceOptions, detector: FaceDetector) -> HeadMotion:
    """Read the files that describe the motion of the heads in a photo."""
    path = options.driving_video
    return HeadMotion(
        "none" if path is not None else options.motion,
        options.seed,
        None if options.pose is None else read_pose_track(options.pose),
        None if options.expression is None else read_expression(options.expression),
        read_emotion(options.emotion),
        None if path is None else read_driving_video(path, detector),
    )


def _face_selector(options: SourceOptions) -> FaceSelector:
    is_index = options.face_select == "index"
    return SelectFaceFromLeft(options.face_index) if is_index else select_largest_face


def _select_photo_faces(
    found: FoundFaces, name: str, options: SourceOptions, excluded: list[Face]
) -> list[Face]:
    """Return the faces that a word selects, in order of decreasing size."""
    kept = [face for face in found.faces if not any(face is other for other in excluded)]
    if not kept:
        raise FaceNotFoundError(
            f"{name}: exclude_face excludes every face of the photo: exclude fewer faces"
        )
    if options.face_select == "all":
        return kept[:MAX_FACES]
    if options.face_select == "speaking":
        log.warning("%s: a photo has no audio to select a speaker by; using the largest face", name)
    face = _face_selector(options)(found) if options.face_select == "index" else kept[0]
    if face is None:
        count = len(found.faces)
        counted = "1 face was" if count == 1 else f"{count} faces were"
        raise FaceNotFoundError(
            f"{name}: face_index={options.face_index}, but only {counted} found; "
            "faces are counted from the left, starting at 0: choose a smaller number"
        )
    return [face]


def video_expression(options: SourceOptions) -> VideoExpression:
    """Return the expression of the faces in a video.

    Raises:
        UsageError: The file of the expression cannot be read.
    """
    expression = None if options.expression is None else read_expression(options.expression)
    return VideoExpression(expression, read_emotion(options.emotion))


def video_frames(
    path: Path,
    fps: Fraction,
    detector: FaceDetector,
    spec: AVSpec,
    options: SourceOptions,
    expression: VideoExpression | None = None,
    speech_s: Fraction | None = None,
    *,
    keep_hdr: bool = True,
    predict_lips: PredictLips | None = None,
) -> Generator[SourceFrame]:
    """Yield a video's frames endlessly, with smoothed transforms, references and expressions.

    `expression` replaces that of the options; `speech_s` is that of `play`, `keep_hdr` that of
    `VideoImage`; `predict_lips`, which face_select=speaking needs, predicts the lip motion from the
    audio.

    Raises:
        MediaError: the video cannot be read (possibly only during iteration).
    """
    rates = options.extend, options.min_fps
    played = play(path, fps, *rates, keep_hdr=keep_hdr, speech_s=speech_s)
    rate = played_rate(fps, options.min_fps)
    excluded = FaceChooser(options.excluded_faces, detector).selectors
    chosen = FaceChooser(options.chosen_faces, detector).selectors
    selecting = _video_face_selector(path, fps, detector, spec, options, predict_lips)
    with closing(played) as frames, selecting as select:
        if options.face_select == "all" and not excluded:
            tracks = track_faces(frames, MultiTracker(detector, MAX_FACES))
        elif chosen or excluded:
            if options.face_select == "all":
                chosen = [select_largest_face] * MAX_FACES
            tracker = MultiTracker(detector, selectors=[*excluded, *(chosen or [select])])
            tracks = track_faces(frames, tracker, first=len(excluded))
        else:
            tracks = [track_face(frames, FaceTracker(detector, select=select))]
        merged = interleave_tracks(
            add_references(fade_faces(align_faces(track, spec, rate, str(path)), rate), spec, rate)
            for track in tracks
        )
        yield from _add_expression(merged, expression or video_expression(options))


def _add_expression(
    frames: Iterable[SourceFrame], expression: VideoExpression
) -> Iterator[SourceFrame]:
    """Add the expression of its face to each frame; each face may have its own speech."""
    for frame in frames:
        faces = [] if frame.face is None else [(frame.face, frame.strength)]
        yield replace(frame, animation=FrameExpression(expression, faces))


@contextmanager
def _video_face_selector(
    path: Path,
    fps: Fraction,
    detector: FaceDetector,
    spec: AVSpec,
    options: SourceOptions,
    predict_lips: PredictLips | None,
) -> Iterator[FaceSelector]:
    """Yield the face selector for a video; it keeps a file open until the context exits."""
    if options.face_select != "speaking":
        yield _face_selector(options)
    elif not probe(path).has_audio:
        log.warning("%s: it has no audio to select a speaker by; using the largest face", path)
        yield select_largest_face
    elif predict_lips is None:
        raise UsageError(
            f"{path}: face_select=speaking needs a model that predicts lip motion from audio, and "
            "none was given: open the video with `LipSyncPredictor`, or choose another face_select"
        )
    else:
        selector = ActiveSpeakerSelector(path, fps, detector, predict_lips, spec)
        with closing(selector):
            yield selector
