"""Head poses over time: constant angles or a table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.predict.source.head.head_warp import POSE_LIMITS_DEG
from talkinghead.predict.source.head.motion.timed_table import TIME, read_timed_table
from talkinghead.types import FloatArray

log = logging.getLogger(__name__)

PoseInput: TypeAlias = Sequence[float] | str | Path
"""Yaw, pitch and roll in degrees, or a CSV file."""

_ANGLES = ("yaw", "pitch", "roll")
_EXPECTED = (
    "give yaw, pitch and roll in degrees, such as pose=[10,0,-5], or a CSV file with the columns "
    "time_s, yaw, pitch and roll"
)


class PoseTrack:
    """Yaw, pitch and roll over time, relative to the pose in the photo.

    Args:
        times_s: increasing times, [T].
        angles_deg: yaw, pitch and roll at these times, [T, 3] (see `head_pose`).
    """

    def __init__(self, times_s: FloatArray, angles_deg: FloatArray) -> None:
        self._times_s, self._angles_deg = times_s, angles_deg

    @property
    def largest_deg(self) -> FloatArray:
        """The largest absolute yaw, pitch and roll, [3]."""
        return np.abs(self._angles_deg).max(0)

    def at(self, time_s: float) -> FloatArray:
        """Return the interpolated angles float32 [3]; the first and the last row are held."""
        columns = self._angles_deg.T
        return np.array([np.interp(time_s, self._times_s, c) for c in columns], np.float32)


def read_pose_track(pose: PoseInput) -> PoseTrack:
    """Return the track of constant angles or of a CSV file; log a warning beyond the limits.

    Raises:
        UsageError: The file cannot be read, or the angles are not three numbers.
    """
    if isinstance(pose, str | Path):
        track = _read_table(Path(pose))
    else:
        track = PoseTrack(np.zeros(1, np.float32), np.array([constant_pose(pose)], np.float32))
    for name, angle, limit in zip(_ANGLES, track.largest_deg, POSE_LIMITS_DEG, strict=True):
        if angle > limit:
            log.warning(
                "pose: a %s of %.1f degrees was requested; it is limited to %.0f degrees from the "
                "pose in the photo",
                *(name, angle, limit),
            )
    return track


def constant_pose(pose: Sequence[float]) -> list[float]:
    """Return the yaw, pitch and roll of a constant pose.

    Raises:
        UsageError: These are not three numbers.
    """
    try:
        angles = [float(angle) for angle in pose]
    except (TypeError, ValueError):
        angles = []
    if len(angles) != 3 or not np.isfinite(angles).all():
        raise UsageError(f"pose={pose} is not a pose: {_EXPECTED}")
    return angles


def _read_table(path: Path) -> PoseTrack:
    table, _ = read_timed_table(path, "pose", _ANGLES, _EXPECTED)
    angles = np.stack([table[name] for name in _ANGLES], 1)
    return PoseTrack(table[TIME], angles.astype(np.float32))
