"""Rendering of a photo with turned heads and expressions, by a warp of the photo's own pixels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.head_pose import FaceFrame, head_pose
from talkinghead.predict.source.head.expression.expression_field import ExpressionField
from talkinghead.predict.source.head.head_geometry import Floats, model_head, smooth_step
from talkinghead.predict.source.head.head_layers import separate_head
from talkinghead.types import Face, FloatArray, UInt8Array

log = logging.getLogger(__name__)

POSE_LIMITS_DEG: FloatArray = np.array([15.0, 10.0, 15.0], np.float32)
"""Largest yaw, pitch and roll relative to the photo, in degrees."""
# Fraction of the limit up to which angles are not reduced.
_LINEAR = 0.8
# Maximum number of iterations of the inversion of the motion field, and the change in cells below
# which it ends.
_INVERSIONS, _INVERSION_ERROR = 6, 0.01
# Displacement of a head at which the corrected background at its edge (`still_background`) is fully
# replaced by the filled one.
_STILL_CM = 0.3
# Amount by which neighbours along rows and columns are subtracted before the linear interpolation,
# largest displacement in pixels from which on all of it is subtracted, and displacement below which
# pixels count as still.
_SHARPENING, _SHARPENED_PX, _STILL_PX = 0.1, 0.5, 0.1
# Distance of the camera, as `head_pose` assumes it.
_DISTANCE_CM = 100.0
# Measurement of the gains of the angles: largest yaw, pitch and roll; number of angles on each side
# of 0; displacements of the initial points, as fractions of the size of the face; number of times
# that the face is tracked from each of them; and range of the gains. From other initial points, the
# tracker often finds a pitch or a yaw that differs by 1 degree, and sometimes by 5 degrees.
_PROBES_DEG = (10.0, 8.0, 10.0)
_PROBES = (2, 4, 2)
_STARTS = ((-0.03, 0.03), (-0.03, 0.03), (0.0,))
_TRACKINGS = 3
_GAIN_RANGE = (0.6, 2.0)
# Number of corrections of the gains. The measured pitch is not proportional to its gain, so that it
# is corrected again if the slope differs from 1 by more than this.
_CORRECTIONS, _SLOPE_ERROR = (1, 2, 1), 0.05
# Minimum slope of the measured over the requested angle; it is smaller if the face was not tracked.
_MIN_SLOPE = 0.3
# Mean ratio of the yaw and pitch that the tracker finds in the frames to those of the moved points:
# the outline and the shading of the head do not turn. It is used if nothing can be tracked.
_APPARENT: FloatArray = np.array([0.88, 0.88, 1.0], np.float32)
# Minimum ratio of areas after and before the motion: at the limit of one angle, and of all angles
# together.
_MIN_AREA, _MIN_COMBINED_AREA = 0.2, 0.02
# The same for a face that the border of the image cuts, where it cannot move.
_MIN_CUT_AREA = 0.5
# A face counts as cut if its points at the border have less than this fraction of its motion.
_UNCUT_WEIGHT = 0.5


@dataclass(frozen=True, eq=False)
class TurnedHead:
    """A turned head, to be drawn in a frame.

    Where several heads of a photo move, `clear` is called for each of them before `blend`: a head
    may move to where another one was.

    Attributes:
        area: rows and columns of the image.
        head: colours of the head, multiplied by its opacity, uint8 [H, W, 3].
        opacity: opacity of the head, uint8 [H, W].
        background: colours behind the head, uint8 [H, W, 3].
        before: opacity of the head in the photo, uint8 [H, W].
    """

    area: tuple[slice, slice]
    head: UInt8Array
    opacity: UInt8Array
    background: UInt8Array
    before: UInt8Array

    def clear(self, image: UInt8Array) -> None:
        """Replace the head of the photo by the background behind it, in place."""
        cv2.copyTo(self.background, self.before, image[self.area])

    def blend(self, image: UInt8Array) -> None:
        """Draw the turned head over an image, in place."""
        region = image[self.area]
        transparency = cv2.cvtColor(cv2.bitwise_not(self.opacity), cv2.COLOR_GRAY2RGB)
        region[:] = cv2.add(self.head, cv2.multiply(region, transparency, scale=1 / 255))


class HeadWarp:
    """Warp of one head of a photo to any pose within the limits.

    Args:
        image: the photo, uint8 [H, W, 3] RGB.
        face: a face with depth.
        frame: position of the face model in the photo.
        others: the other faces of the photo, whose heads must not be moved.
        detector: detector of the face, which measures how far the head turns; without one, the mean
            of several faces is assumed.

    Attributes:
        area: rows and columns of the image that `draw` may change.
        limits_deg: limits of yaw, pitch and roll, float32 [3]: `POSE_LIMITS_DEG`, or less if there
            is no space around the head.
    """

    def __init__(
        self,
        image: UInt8Array,
        face: Face,
        frame: FaceFrame,
        others: list[Face],
        detector: FaceDetector | None = None,
    ) -> None:
        height, width = image.shape[:2]
        self._head = model_head(face, frame, width, height, others)
        x0, y0, x1, y1 = (int(side) for side in self._head.box)
        self.area = slice(y0, y1), slice(x0, x1)
        self._cell: FloatArray = self._head.xy[1, 1] - self._head.xy[0, 0]
        self._layers = separate_head(image[self.area], self._head)
        self._head = replace(self._head, weight=self._layers.weight)
        ys, xs = np.mgrid[0 : y1 - y0, 0 : x1 - x0].astype(np.float32)
        self._pixels: FloatArray = np.stack([xs, ys], -1)
        # Points of the head relative to its axis, in units of the distance of the camera.
        self._distance = _DISTANCE_CM * self._head.scale
        near = 1 - self._head.height[..., None] / self._distance
        offset = (self._head.xy - self._head.axis) * near
        points = np.dstack([offset, -self._head.height]) / self._distance
        self._points: FloatArray = points.astype(np.float32)
        self._near: FloatArray = (near / self._distance).astype(np.float32)
        # Arrays of the grid's shape, because broadcasting along two coordinates is slow.
        rows, columns = self._head.weight.shape
        self._cells = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1)
        self._cells = self._cells.astype(np.float32)
        self._steps = np.tile(self._cell, (rows, columns, 1))
        self._weight_per_cell = self._head.weight[..., None] / self._steps
        self._expression = ExpressionField(face, frame, self._head.xy)
        self.limits_deg = POSE_LIMITS_DEG.copy()
        self._gain: FloatArray = np.ones(3, np.float32)
        self._gain = self._geometric_gain(face)
        if detector is not None:
            self._track_gain(image, face, detector)
        self.limits_deg = self._find_limits()

    def draw(
        self,
        image: UInt8Array,
        pose_deg: npt.ArrayLike,
        result: UInt8Array,
        weights: FloatArray | None = None,
    ) -> None:
        """Draw the turned head (see `turned`) in `result`, another copy of the image."""
        turned = self.turned(image, pose_deg, weights)
        turned.clear(result)
        turned.blend(result)

    def turned(
        self, image: UInt8Array, pose_deg: npt.ArrayLike, weights: FloatArray | None = None
    ) -> TurnedHead:
        """Return the turned head.

        Args:
            image: the photo, with any mouth and eyes, uint8 [H, W, 3].
            pose_deg: yaw, pitch and roll relative to the photo, see `head_pose`; larger angles than
                `limits_deg` are limited.
            weights: weights of the blendshapes of the face; None is the face of the photo.
        """
        layers, size = self._layers, self._pixels.shape[1::-1]
        moved = self._expression.shift(weights)
        shift = self._inverse_shift(limit_pose(pose_deg, self.limits_deg), moved)
        source = cv2.add(self._pixels, cv2.resize(shift, size, interpolation=cv2.INTER_LINEAR))
        area = _sharpened(image[self.area], shift)
        cv2.copyTo(layers.foreground, layers.edge, area)
        # Cubic interpolation takes five times as long, and four channels as long as three.
        layer = cv2.cvtColor(area, cv2.COLOR_RGB2RGBA)
        cv2.insertChannel(layers.alpha, layer, 3)
        maps, rest = cv2.convertMaps(source, None, cv2.CV_16SC2)  # type: ignore[call-overload]
        moved_layer = cv2.remap(
            layer, maps, rest, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        opacity = cast(UInt8Array, cv2.extractChannel(moved_layer, 3))
        head = cast(UInt8Array, cv2.cvtColor(moved_layer, cv2.COLOR_RGBA2RGB))
        turn = np.abs(shift)
        if moved is not None:
            turn[self._expression.window] = 0
        furthest = float(turn.max()) / (_STILL_CM * self._head.scale)
        behind, part = layers.background, float(smooth_step(furthest))
        if part < 1:
            still = layers.still_background
            behind = cast(UInt8Array, cv2.addWeighted(behind, part, still, 1 - part, 0))
        return TurnedHead(self.area, head, opacity, behind, layers.alpha)

    def move_points(
        self, points: FloatArray, pose_deg: npt.ArrayLike, weights: FloatArray | None = None
    ) -> FloatArray:
        """Return the positions of points [P, 2] of the photo after the head is turned."""
        moved = self._expression.shift(weights)
        return self._moved(points, limit_pose(pose_deg, self.limits_deg), moved)

    def _moved(
        self, points: FloatArray, pose_deg: FloatArray, moved: FloatArray | None = None
    ) -> FloatArray:
        cells = (points - self._head.xy[0, 0]) / self._cell
        return points + self._cell * _sample(self._shift(pose_deg, moved), cells[None])[0]

    def _shift(self, pose_deg: FloatArray, moved: FloatArray | None = None) -> FloatArray:
        """Return the displacement [h, w, 2] of each grid cell of the photo in cells.

        `moved` is the displacement by the expression before the head is turned, in the window of
        `ExpressionField`.
        """
        head, points = self._head, self._points
        if moved is not None:
            points = points.copy()
            window = self._expression.window
            points[window][..., :2] += self._near[window] * moved
        yaw, pitch, roll = np.radians(self._gain * pose_deg.astype(np.float64))
        x, y, z = cv2.split(cv2.transform(points, _rotation(yaw, pitch)))
        z += np.float32(1)
        cos, sin = np.cos(roll), np.sin(roll)
        lean = np.array([[cos, -sin], [sin, cos]])
        centre = lean @ (head.axis - head.tilt) + head.tilt
        lens = np.column_stack([self._distance * lean, centre])
        turned = cv2.transform(cv2.merge([x / z, y / z]), lens)
        return cast(FloatArray, cv2.multiply(self._weight_per_cell, cv2.subtract(turned, head.xy)))

    def _inverse_shift(self, pose_deg: FloatArray, moved: FloatArray | None = None) -> FloatArray:
        """Return the displacement in pixels from each grid cell of the frame to its source."""
        shift = self._shift(pose_deg, moved)
        inverse = -shift
        for _ in range(_INVERSIONS):
            before, inverse = inverse, -_sample(shift, self._cells + inverse)
            if cv2.norm(inverse, before, cv2.NORM_INF) < _INVERSION_ERROR:
                break
        return np.asarray(inverse * self._steps)

    def _geometric_gain(self, face: Face) -> FloatArray:
        """Return the factors of the angles with which the points of the face turn as requested.

        Faces differ from the face model, so that the same turn moves their points more or less.
        """

        def measure(pose_deg: FloatArray) -> FloatArray:
            return head_pose(self._moved(face.points, pose_deg), face.topology)

        slopes = [_slope(measure, axis) for axis in range(3)]
        return _corrected(self._gain, _APPARENT * np.array(slopes, np.float32))

    def _track_gain(self, image: UInt8Array, face: Face, detector: FaceDetector) -> None:
        """Set the factors with which the detector finds the requested angles in the frames."""
        size = np.float32(np.ptp(face.points, axis=0).max())
        for axis, starts in enumerate(_STARTS):

            def measure(pose_deg: FloatArray, starts: tuple[float, ...] = starts) -> FloatArray:
                frame = image.copy()
                self.draw(image, pose_deg, frame)
                points, poses = self._moved(face.points, pose_deg), []
                for start in starts:
                    found: Face | None = replace(face, points=points + size * np.float32(start))
                    for _ in range(_TRACKINGS):
                        found = found and detector.track(frame, found)
                    if found is not None:
                        poses.append(head_pose(found.points, face.topology))
                return np.asarray(np.mean(poses, axis=0) if poses else np.full(3, np.nan))

            for _ in range(_CORRECTIONS[axis]):
                slopes = np.ones(3, np.float32)
                slopes[axis] = _slope(measure, axis)
                self._gain = _corrected(self._gain, slopes)
                if abs(slopes[axis] - 1) < _SLOPE_ERROR:
                    break

    def _find_limits(self) -> FloatArray:
        """Return the limits up to which the motion field does not fold the head."""
        limits = POSE_LIMITS_DEG.copy()
        size = self._head.weight.shape[1::-1]
        is_head = np.asarray(cv2.resize(self._layers.alpha, size)) > 25
        for index in range(3):
            while limits[index] > 1 and any(
                self._min_area(sign * limits[index] * np.eye(3)[index], is_head) < _MIN_AREA
                for sign in (-1, 1)
            ):
                limits[index] *= 0.85
        cells = ((self._head.face_xy - self._head.xy[0, 0]) / self._cell).astype(np.float32)
        hull = np.rint(cv2.convexHull(cells)).astype(np.int32)
        is_face = cv2.fillConvexPoly(np.zeros(size[::-1], np.uint8), hull, 1) > 0
        is_cut = self._head.weight[is_face].min(initial=1.0) < _UNCUT_WEIGHT
        inside, smallest = (is_face, _MIN_CUT_AREA) if is_cut else (is_head, _MIN_COMBINED_AREA)
        corners = [np.array(signs) for signs in product((-1, 1), repeat=3)]
        while limits.max() > 1 and any(
            self._min_area(signs * limits, inside) < smallest for signs in corners
        ):
            limits *= 0.85
        return limits

    def _min_area(self, pose_deg: Floats, is_head: npt.NDArray[np.bool_]) -> float:
        """Return the smallest change of area of the grid cells of the head."""
        moved = self._cells + self._shift(pose_deg.astype(np.float32))
        right, down = np.diff(moved, axis=1)[:-1], np.diff(moved, axis=0)[:, :-1]
        area = right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]
        return float(area[is_head[:-1, :-1]].min(initial=1.0))


def _slope(measure: Callable[[FloatArray], FloatArray], axis: int) -> float:
    """Return the slope of the measured over the requested yaw (axis 0), pitch or roll."""
    angles = np.linspace(-1, 1, 2 * _PROBES[axis] + 1) * _PROBES_DEG[axis]
    probes = np.delete(angles, _PROBES[axis]).astype(np.float32)
    poses = probes[:, None] * np.eye(3, dtype=np.float32)[axis]
    found = np.array([measure(pose_deg)[axis] for pose_deg in poses])
    return float(probes @ found / (probes @ probes))


def _corrected(gain: FloatArray, slopes: FloatArray) -> FloatArray:
    """Return the gains for measured slopes; an implausible slope changes nothing."""
    corrected = gain / np.where(slopes > _MIN_SLOPE, slopes, 1)
    return np.asarray(corrected.clip(*_GAIN_RANGE), np.float32)


def _sharpened(area: UInt8Array, shift: FloatArray) -> UInt8Array:
    """Compensate the loss of sharpness by a linear interpolation in advance, where heads move.

    `shift` is the displacement of each grid cell in pixels.
    """
    # `max` along an axis of two numbers takes ten times as long.
    distance = np.asarray(cv2.max(*cv2.split(np.abs(shift))), np.float32)
    amount = _SHARPENING * min(1.0, float(distance.max()) / _SHARPENED_PX)
    if not amount:
        return area.copy()
    kernel = np.array([-amount, 1 + 2 * amount, -amount], np.float32)
    sharpened = cast(UInt8Array, cv2.sepFilter2D(area, -1, kernel, kernel))
    still = (distance < _STILL_PX).astype(np.uint8)
    size = area.shape[1::-1]
    cv2.copyTo(area, cv2.resize(still, size, interpolation=cv2.INTER_NEAREST), sharpened)
    return sharpened


def _sample(field: FloatArray, cells: npt.NDArray[np.floating]) -> FloatArray:
    """Sample a field [h, w, 2] at positions [n, m, 2] in grid cells."""
    cells, border = np.asarray(cells, np.float32), cv2.BORDER_REPLICATE
    return cv2.remap(field, cells, None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore[call-overload]


def limit_pose(pose_deg: npt.ArrayLike, limits_deg: FloatArray) -> FloatArray:
    """Return angles that are reduced smoothly near the limits and never exceed them."""
    pose = np.asarray(pose_deg, np.float32)
    start = _LINEAR * limits_deg
    rest = np.maximum(limits_deg - start, 1e-6)
    beyond = rest * np.tanh(np.maximum(np.abs(pose) - start, 0) / rest)
    return np.asarray(np.sign(pose) * (np.minimum(np.abs(pose), start) + beyond), np.float32)


def _rotation(yaw: float, pitch: float) -> Floats:
    """Return the rotation [3, 3] in image axes, with z away from the camera (see `head_pose`)."""
    cos_y, sin_y, cos_p, sin_p = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cos_y, 0, -sin_y], [0, 1, 0], [sin_y, 0, cos_y]])
    nod = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]])
    return nod @ turn
