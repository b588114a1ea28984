"""Head motion, blinks and gaze of the person in a video, for the face in a photo.

Shape suffixes: T frames.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from talkinghead.errors import FaceNotFoundError
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.head_pose import fit_face_frame, head_pose
from talkinghead.features.faces.tracker import FaceTracker
from talkinghead.media.reader import read_video
from talkinghead.predict.source.head.expression.blendshapes import LIDS
from talkinghead.predict.source.head.expression.eyes import look
from talkinghead.predict.source.head.expression.irises import find_iris
from talkinghead.predict.source.head.head_geometry import Floats, smooth_step
from talkinghead.types import Face, FloatArray, UInt8Array

log = logging.getLogger(__name__)

_MAX_S = 60.0
# Width of the filter of poses and gazes in seconds.
_SMOOTH_S = 0.06
# Contrast along the eye, relative to the open eye, at which a blink begins and is complete.
_OPEN, _CLOSED = 0.65, 0.35
_MAX_GAZE_DEG = 12.0
# Size of the rectified eye, and its rows that are compared.
_EYE_SIZE, _EYE_ROWS = (48, 12), slice(3, 9)
# Minimum fraction of the frames with a detected face.
_MIN_FOUND = 0.5


@dataclass(frozen=True, eq=False)
class DrivingVideo:
    """Motion of the person in a video, which is played backwards and forwards after its end.

    Attributes:
        times_s: times of the frames from 0, [T].
        poses_deg: yaw, pitch and roll relative to the median, [T, 3].
        closures: closure of the eyes, 0 to 1, [T].
        gazes_deg: gaze to the right of the image relative to the median, [T].
    """

    times_s: Floats
    poses_deg: Floats
    closures: Floats
    gazes_deg: Floats

    def pose_at(self, time_s: float) -> FloatArray:
        """Return the yaw, pitch and roll in degrees, float32 [3]."""
        columns = (np.interp(self._file_time_s(time_s), self.times_s, c) for c in self.poses_deg.T)
        return np.array(list(columns), np.float32)

    def closure_at(self, time_s: float) -> float:
        """Return the closure of the eyes, 0 to 1."""
        return float(np.interp(self._file_time_s(time_s), self.times_s, self.closures))

    def gaze_at(self, time_s: float) -> FloatArray:
        """Return the weights of the blendshapes of the gaze."""
        return look(float(np.interp(self._file_time_s(time_s), self.times_s, self.gazes_deg)), 0.0)

    def _file_time_s(self, time_s: float) -> float:
        """Return the time in the video, which plays backwards at its end, then forwards again."""
        duration_s = max(float(self.times_s[-1]), 1e-6)
        passed_s = time_s % (2 * duration_s)
        return min(passed_s, 2 * duration_s - passed_s)


def read_driving_video(path: Path, detector: FaceDetector) -> DrivingVideo:
    """Track the largest face of a video, of which at most a minute is used.

    Raises:
        MediaError: The video cannot be read.
        FaceNotFoundError: No face is visible for most of the video.
    """
    tracker = FaceTracker(detector)
    times_s: list[float] = []
    rows: list[list[float]] = []
    for frame in read_video(path):
        if times_s and float(frame.time_s) - times_s[0] > _MAX_S:
            log.warning("motion=video:%s: only the first %.0f s are used", path, _MAX_S)
            break
        face = tracker.update(frame.image, frame.time_s)
        times_s.append(float(frame.time_s))
        rows.append(_measure(frame.image, face))
    table = np.array(rows)
    found = np.isfinite(table[:, :3]).all(1) if rows else np.zeros(0, bool)
    if found.sum() < max(1.0, _MIN_FOUND * len(rows)):
        raise FaceNotFoundError(
            f"motion=video:{path}: a face was found in {found.sum()} of {len(rows)} frames; "
            "expected a video of one person who looks towards the camera: use another video"
        )
    times = np.array(times_s) - times_s[0]
    columns = [_filled(column) for column in table.T[:4]]
    step_s = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    poses = np.stack([_smooth(c - np.median(c), step_s) for c in columns[:3]], 1)
    contrast = columns[3] / max(float(np.percentile(columns[3], 75)), 1e-6)
    closures = smooth_step((_OPEN - contrast) / (_OPEN - _CLOSED))
    gazes = _filled(np.where(closures > 0, np.nan, table[:, 4]))
    gazes = _smooth(gazes - np.median(gazes), step_s).clip(-_MAX_GAZE_DEG, _MAX_GAZE_DEG)
    return DrivingVideo(times, poses, closures, gazes)


def _measure(image: UInt8Array, face: Face | None) -> list[float]:
    """Return yaw, pitch and roll, contrast along the eyes, and gaze in degrees; NaN if unknown."""
    if face is None:
        return [np.nan] * 5
    frame = fit_face_frame(face)
    pose = head_pose(face.points, face.topology).tolist()
    if frame is None or face.topology != "mesh468":
        return [*pose, np.nan, np.nan]
    gazes = []
    for side in LIDS:
        iris = find_iris(image, face.points, side, frame.scale)
        if iris is not None:
            sine = (iris.centre[0] - iris.width / 2) / iris.pixels_per_sine
            gazes.append(float(np.degrees(np.arcsin(np.clip(sine, -1, 1)))))
    contrast = np.mean([_contrast_along(image, face.points, side) for side in LIDS])
    return [*pose, float(contrast), float(np.mean(gazes)) if gazes else np.nan]


def _contrast_along(image: UInt8Array, points: FloatArray, side: str) -> float:
    """Return the standard deviation of the brightness along an eye.

    The white and the iris of an open eye differ; closed lids have the same brightness everywhere.
    FaceMesh's points of the lids hardly follow a blink.
    """
    upper, lower = (points[list(lid)].astype(float) for lid in LIDS[side])
    along = 0.8 * (upper[-1] - upper[0])
    down = 0.3 * np.array([-along[1], along[0]])
    centre = (upper[3:6].mean(0) + lower[3:6].mean(0)) / 2
    columns, rows = _EYE_SIZE
    transform = np.column_stack([along / columns, down / rows, centre - (along + down) / 2])
    grey = cv2.cvtColor(
        cv2.warpAffine(image, transform, _EYE_SIZE, flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR),
        cv2.COLOR_RGB2GRAY,
    )
    profile, x = grey[_EYE_ROWS].mean(0), np.arange(columns)
    return float((profile - np.polyval(np.polyfit(x, profile, 1), x)).std())


def _filled(column: Floats) -> Floats:
    """Return a column with interpolated values where they are NaN."""
    known = np.isfinite(column)
    if not known.any():
        return np.zeros_like(column)
    return np.interp(np.arange(len(column)), np.flatnonzero(known), column[known])


def _smooth(column: Floats, step_s: float) -> Floats:
    # Import scipy on demand, because the import takes half a second.
    from scipy.ndimage import gaussian_filter1d, median_filter

    median = median_filter(column, 5, mode="nearest")
    return np.asarray(gaussian_filter1d(median, _SMOOTH_S / max(step_s, 1e-3), mode="nearest"))
