"""Head poses over time: constant angles or a table."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from talkinghead.errors import UsageError
from talkinghead.predict.source.head.head_warp import POSE_LIMITS_DEG
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
    track = _read_table(Path(pose)) if isinstance(pose, str | Path) else _constant(pose)
    for name, angle, limit in zip(_ANGLES, track.largest_deg, POSE_LIMITS_DEG, strict=True):
        if angle > limit:
            log.warning(
                "pose: a %s of %.1f degrees was asked for; it is limited to %.0f degrees from the "
                "pose in the photo",
                *(name, angle, limit),
            )
    return track


def _constant(pose: Sequence[float]) -> PoseTrack:
    try:
        angles = np.array([float(angle) for angle in pose], np.float32)
    except (TypeError, ValueError):
        angles = np.empty(0, np.float32)
    if angles.shape != (3,) or not np.isfinite(angles).all():
        raise UsageError(f"pose={pose} is not a pose: {_EXPECTED}")
    return PoseTrack(np.zeros(1, np.float32), angles[None])


def _read_table(path: Path) -> PoseTrack:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"pose={path} cannot be read ({error}): {_EXPECTED}") from error
    columns = ("time_s", *_ANGLES)
    if not rows or not set(columns) <= rows[0].keys():
        found = ", ".join(str(name) for name in rows[0]) if rows else "no rows"
        raise UsageError(f"pose={path} has {found}: {_EXPECTED}")
    table = np.array([[_number(row[c], path, n) for c in columns] for n, row in enumerate(rows, 2)])
    if (np.diff(table[:, 0]) <= 0).any():
        raise UsageError(f"pose={path}: the times in time_s must increase in each row")
    return PoseTrack(table[:, 0], table[:, 1:].astype(np.float32))


def _number(text: str | None, path: Path, line: int) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise UsageError(f"pose={path}, line {line}: {text!r} is not a number: {_EXPECTED}")
    return value
