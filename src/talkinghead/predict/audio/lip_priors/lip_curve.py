"""A lip prior that plays a curve from a table, such as an animator's or a face tracker's.

Shape suffixes: T frames, 20 lip points in ibug68's order.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from talkinghead.csv_table import TableRow, parse_number, read_csv_table
from talkinghead.errors import UsageError
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
from talkinghead.predict.audio.visemes import ACROSS, PARTED
from talkinghead.types import FloatArray
from talkinghead.value_rules import PositiveFloat, UnitFloat

log = logging.getLogger(__name__)

_FPS, _BLOCK_FRAMES = 25, 10
# Columns of the table, with the range of their values.
_RANGES = {"opening": (0.0, 2.0), "width": (-1.0, 1.0), "rounding": (0.0, 1.0)}
# Distance in canonical pixels from the upper to the lower inner lip, as displacement of closed
# lips: of closed lips in silence, and its increase at an opening of 1.
_CLOSED_GAP, _OPEN_GAP = -2.4, 10.0
# Changes of the distance of the mouth's corners in canonical pixels.
_WIDTH, _ROUNDED_WIDTH = 4.0, -6.0
_EXPECTED = (
    "give a CSV file with the columns opening, width and rounding, or with ARKit's jawOpen, "
    "mouthClose, mouthPucker ..., one row per frame"
)
_SHAPES = (
    *("jawopen", "mouthclose", "mouthfunnel", "mouthpucker"),
    *("mouthstretchleft", "mouthstretchright", "mouthsmileleft", "mouthsmileright"),
)
# ARKit's jawOpen is 1 for the widest mouth; speech reaches about 0.4.
_JAW_SCALE = 2.5


class LipCurve(LipPrior):
    """A lip prior that takes the lip motion from a CSV file instead of the audio.

    The file has a header and one row per frame, with the column `opening` (0 closed, 1 wide open in
    speech, up to 2) and optionally `width` (-1 narrow, 0 neutral, 1 wide) and `rounding` (0 to 1).
    Or it has the columns of ARKit's blend shapes, as face trackers export them: `jawOpen`, and
    optionally `mouthClose`, `mouthFunnel`, `mouthPucker`, `mouthStretchLeft`, `mouthStretchRight`,
    `mouthSmileLeft`, `mouthSmileRight`, in any case. A column `time_s` replaces the frame rate. In
    rows with an empty opening the generator's motion is used.

    The motion is scaled by the option `articulation`, like that of other lip priors. Phonemes that
    a voice gives still close the lips; `phonemes=False` plays the curve as it is.

    Args:
        path: CSV file of the curve.
        fps: Frame rate of the rows, for a file without the column `time_s`.
        blend_weight: Weight of the curve's lip motion, 0 to 1; the rest is the weight of the
            generator's own motion.

    Raises:
        UsageError: The file is missing or not such a table, or an argument is out of range.

    Example:
        >>> LipSyncPredictor.from_checkpoint("default", lip_prior=LipCurve("motion.csv"))
    """

    past_s, block_s, ahead_s = Fraction(0), Fraction(_BLOCK_FRAMES, _FPS), Fraction(0)
    sample_rate, fps = 16_000, Fraction(_FPS)

    def __init__(
        self, path: str | Path, fps: PositiveFloat = 25.0, blend_weight: UnitFloat = 1.0
    ) -> None:
        if not (fps > 0 and 0 <= blend_weight <= 1):
            raise UsageError(
                f"lip_prior=curve got fps={fps}, blend_weight={blend_weight}: expected a frame "
                "rate above 0 and a weight from 0 to 1"
            )
        self.blend_weight = blend_weight
        self._path = Path(path)
        times_s, values = read_curve(self._path, fps)
        step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / fps
        num_frames = max(1, round((float(times_s[-1]) + step_s / 2) * _FPS))
        middles_s = (np.arange(num_frames) + 0.5) / _FPS
        interpolated = {
            name: np.interp(middles_s, times_s, column).astype(np.float32)
            for name, column in values.items()
        }
        self._motion = curve_motion(interpolated)
        self._has_warned = False

    def predict_motion(self, windows: FloatArray, first_frame: int) -> FloatArray:
        """Return the curve's motion in the blocks (see `LipPrior`); the last row is held."""
        last_frame = first_frame + _BLOCK_FRAMES * len(windows)
        frames = np.minimum(np.arange(first_frame, last_frame), len(self._motion) - 1)
        return self._motion[frames].reshape(len(windows), _BLOCK_FRAMES, *self._motion.shape[1:])

    def check_duration(self, num_frames: int) -> None:
        """Log a warning if the speech, of `num_frames` grid frames, and the curve differ."""
        if abs(num_frames - len(self._motion)) > 1 and not self._has_warned:
            self._has_warned = True
            ending = (
                "its last row is held" if num_frames > len(self._motion) else "its end is not used"
            )
            log.warning(
                "%s: the curve lasts %.2f s, the speech %.2f s; %s",
                *(self._path, len(self._motion) / _FPS, num_frames / _FPS, ending),
            )


def read_curve(path: Path, fps: float) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return the times [T] in seconds, and the opening, width and rounding [T] of a curve's rows.

    Raises:
        UsageError: The file is missing or not such a table.
    """
    table = read_csv_table(path, "lip_prior.path", _EXPECTED)
    rows, columns = table.rows, table.columns
    if not rows or not {"opening", "jawopen"} & set(columns):
        found = table.found if rows else "no rows"
        raise UsageError(f"lip_prior.path={path} has {found}: {_EXPECTED}")

    def column(name: str, default: float = 0.0) -> FloatArray:
        return np.array([_number(path, row, name, default) for row in rows])

    values = {name: column(name) for name in _RANGES}
    if "opening" not in columns:
        values = _from_blend_shapes({name: column(name) for name in columns if name in _SHAPES})
    for name, (low, high) in _RANGES.items():
        outside = np.flatnonzero((values[name] < low) | (values[name] > high))
        if len(outside):
            value = values[name][outside[0]]
            raise UsageError(
                f"lip_prior.path={path}, line {rows[outside[0]].line}: {name}={value:g}; expected "
                f"{low:g} to {high:g}"
            )
    times_s = column("time_s") if "time_s" in columns else (np.arange(len(rows)) + 0.5) / fps
    if not (np.isfinite(times_s).all() and (np.diff(times_s) > 0).all()):
        raise UsageError(f"lip_prior.path={path}: the times in time_s must increase in each row")
    return times_s, values


def curve_motion(values: Mapping[str, FloatArray]) -> FloatArray:
    """Return the lip motion float32 [T, 20, 2] of an opening, a width and a rounding [T]."""
    gap = _CLOSED_GAP + _OPEN_GAP * values["opening"]
    width = _WIDTH * values["width"] + _ROUNDED_WIDTH * values["rounding"]
    motion = np.stack([np.outer(width, ACROSS), np.outer(gap, PARTED)], -1)
    # NaN in any value leaves the whole frame to the generator.
    motion[~np.isfinite(gap + width)] = np.nan
    return motion.astype(np.float32)


def _from_blend_shapes(shapes: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the opening, width and rounding of ARKit's weights, limited to their ranges."""
    zero = np.zeros(len(shapes["jawopen"]))
    closed, funnel, pucker, *sides = (shapes.get(name, zero) for name in _SHAPES[1:])
    values = {
        "opening": _JAW_SCALE * (shapes["jawopen"] - closed),
        "width": (sides[0] + sides[1] + (sides[2] + sides[3]) / 2) / 2,
        "rounding": pucker + funnel / 2,
    }
    return {name: np.clip(value, *_RANGES[name]) for name, value in values.items()}


def _number(path: Path, row: TableRow, name: str, default: float) -> float:
    """Return a value of a row: NaN if it is empty, the default if there is no such column."""
    if name not in row.values:
        return default
    text = row.values[name]
    try:
        return parse_number(text) if text else np.nan
    except ValueError as error:
        raise UsageError(
            f"lip_prior.path={path}, line {row.line}: {name}={text} is not a number"
        ) from error
