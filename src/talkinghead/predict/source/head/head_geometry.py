"""Three-dimensional model of a head in a photo: a height for each pixel, and a centre of rotation.

Coordinates of the model are centimetres (see `FaceFrame`): x right, y down, z away from the camera.

Shape suffixes: h and w are the grid's, P points.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.features.faces.head_pose import FaceFrame, face_surface
from talkinghead.types import Box, Face, FloatArray

Floats = npt.NDArray[np.float64]

GRID = 144
"""Number of grid cells along the longer side of a head's area."""
# Positions between a face, at 0, and another one, at 1: up to which its motion does not fade, from
# which on pixels are still, and border between the two heads.
_RIGID_UNTIL, _STILL_AT, _BORDER = 0.3, 0.55, 0.5
# Half axes of a head with hair and its centre above that of the face, in widths and heights of the
# box of the face.
_HEAD_AXES, _HEAD_ABOVE = np.array([0.8, 0.95]), 0.15
# Points about which the head turns and nods (between the ears) and tilts (in the neck).
_AXIS_CM = np.array([0.0, 2.0, 3.0])
_TILT_CM = np.array([0.0, 10.0, 3.0])
# Centre and radii of the head with hair, above and below the centre.
CENTRE_CM = np.array([0.0, -2.0, 3.0])
_RADIUS_X, _RADIUS_ABOVE, _RADIUS_BELOW = 9.0, 13.0, 12.0
# Distances from the centre, in these radii: pixels within the first move with the head, and pixels
# beyond the second do not move. Above the centre everything moves with the head, so that hair and
# hats are not bent; what does not belong to the head is not in its layer.
_RIGID, _STILL = 1.15, 2.0
# Distances below the centre between which the motion begins to fade beside the head.
_FADING_CM = -13.0, 12.0
# Position and height above the axis of points of the neck and the shoulders.
_NECK_CM = (
    *((0, 11.5, 4.0), (-4, 11.5, 3.0), (4, 11.5, 3.0), (0, 15, 2.5), (0, 20, 0.5)),
    *((-7, 11, 0.0), (7, 11, 0.0), (-9, 15, 0.0), (9, 15, 0.0), (-12, 20, 0.0), (12, 20, 0.0)),
)
# Smoothing of the spline, and maximum depth below the axis.
_SMOOTHING, _MAX_DEPTH_CM = 0.03, 2.0
# Maximum slope of the height field. A turn by an angle folds the image where the slope exceeds the
# cotangent of the angle.
_MAX_SLOPE = 2.2


@dataclass(frozen=True, eq=False)
class HeadGeometry:
    """Shape of one head, on a grid over the area in which it moves.

    Attributes:
        box: the area in pixels, inside the image.
        xy: (x, y) of the grid cells in pixels, float32 [h, w, 2].
        height: height above the head's axis towards the camera in pixels, float32 [h, w].
        weight: fraction of the head's motion, 1 in and above the head and 0 far below it,
            float32 [h, w].
        distance: distance from the centre of the head, 1 at its outline, float32 [h, w].
        below_cm: distance below the centre of the head, float32 [h, w].
        axis: centre of turns and nods in pixels, [2].
        tilt: centre of tilts in pixels, [2].
        scale: pixels per centimetre.
        face_xy: points of the face in pixels, [P, 2].
        own: positive where a pixel belongs to this head, if to any, negative where it belongs to
            another one, and 0 in the middle, float32 [h, w].
        others: 1 where another head may be, else 0, float32 [h, w].
    """

    box: Box
    xy: FloatArray
    height: FloatArray
    weight: FloatArray
    distance: FloatArray
    below_cm: FloatArray
    axis: Floats
    tilt: Floats
    scale: float
    face_xy: Floats
    own: FloatArray
    others: FloatArray


def model_head(
    face: Face, frame: FaceFrame, width: int, height: int, others: list[Face]
) -> HeadGeometry:
    """Return the geometry of a head in an image of a given size, apart from other faces."""
    axis, tilt, centre = frame.to_image(np.stack([_AXIS_CM, _TILT_CM, CENTRE_CM]))
    # The rotation within the image plane; turns and nods hardly change the outline of a head.
    upright = complex(*frame.rotation[:2, 0])
    upright /= abs(upright)
    tilted = np.abs([[upright.real, upright.imag], [upright.imag, upright.real]])
    reach = _STILL * frame.scale * tilted @ np.array([_RADIUS_X, _RADIUS_ABOVE])
    box = _area(centre[:2], reach, width, height)
    cells_x, cells_y = (
        max(8, round(GRID * side / max(box.width, box.height))) for side in (box.width, box.height)
    )
    xy = np.stack(
        np.meshgrid(
            box.x0 + (np.arange(cells_x) + 0.5) * box.width / cells_x - 0.5,
            box.y0 + (np.arange(cells_y) + 0.5) * box.height / cells_y - 0.5,
        ),
        -1,
    )
    offset = ((xy - centre[:2]) @ np.array([1, 1j])) / upright / frame.scale
    below = offset.imag
    radius_y = np.where(below > 0, _RADIUS_BELOW, _RADIUS_ABOVE)
    distance = np.hypot(offset.real / _RADIUS_X, below / radius_y)
    start, end = _FADING_CM
    beside = smooth_step((below - start) / (end - start)) * offset.real / _RADIUS_X
    faded = np.hypot(beside, np.maximum(below, 0) / _RADIUS_BELOW)
    weight = smooth_step((_STILL - faded) / (_STILL - _RIGID))
    own = np.ones_like(weight)
    for other in others:
        position = _between(xy, face, other)
        weight *= smooth_step((_STILL_AT - position) / (_STILL_AT - _RIGID_UNTIL))
        own = np.minimum(own, _BORDER - position)
    surface = face_surface(face, frame)
    heights = _heights(surface - [0, 0, axis[2]], centre, upright * frame.scale, xy)
    return HeadGeometry(
        box,
        xy.astype(np.float32),
        heights.astype(np.float32),
        weight.astype(np.float32),
        distance.astype(np.float32),
        below.astype(np.float32),
        axis[:2],
        tilt[:2],
        frame.scale,
        surface[:, :2],
        own.astype(np.float32),
        _inside_heads(xy, others),
    )


def smooth_step(x: npt.ArrayLike) -> Floats:
    """Return the cubic smoothstep function, which rises smoothly from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))


def _area(centre: Floats, reach: Floats, width: int, height: int) -> Box:
    limit = np.array([width, height])
    x0, y0 = np.floor(centre - reach).clip(0, limit - 1).tolist()
    x1, y1 = np.ceil(centre + reach + 1).clip(1, limit).tolist()
    return Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))


def _between(xy: Floats, face: Face, other: Face) -> Floats:
    """Return the position of pixels along the line from a face, at 0, to another one, at 1."""
    own, across = np.array(face.box.centre), np.array(other.box.centre)
    across = across - own
    return np.asarray((xy - own) @ across / max(float(across @ across), 1e-6))


def _inside_heads(xy: Floats, faces: list[Face]) -> FloatArray:
    """Return 1 inside the heads of faces, about, and else 0."""
    inside = np.zeros(xy.shape[:2], np.float32)
    for face in faces:
        size = np.array([face.box.width, face.box.height])
        offset = (xy - face.box.centre) / size + [0, _HEAD_ABOVE]
        inside[np.hypot(*np.moveaxis(offset / _HEAD_AXES, -1, 0)) < 1] = 1
    return inside


def _heights(surface: Floats, centre: Floats, cm: complex, xy: Floats) -> Floats:
    """Return the heights [h, w] above the axis, by a thin-plate spline through known points.

    Args:
        surface: points of the face in pixels, with z relative to the axis, [P, 3].
        centre: centre of the head in pixels, [3].
        cm: a centimetre to the right in the head, as x + iy in pixels.
        xy: positions, [h, w, 2].
    """
    # Import scipy on demand, because the import takes half a second.
    from scipy.interpolate import RBFInterpolator

    turns = np.linspace(-1.15 * np.pi, 0.15 * np.pi, 24)
    outline = np.cos(turns) * _RADIUS_X + 1j * np.sin(turns) * _RADIUS_ABOVE
    around = np.concatenate([outline, 1.4 * outline, 1.9 * outline])
    neck = np.array(_NECK_CM)
    offsets = np.concatenate([around, neck[:, 0] + 1j * (neck[:, 1] - CENTRE_CM[1])]) * cm
    ring = np.column_stack([offsets.real, offsets.imag]) + centre[:2]
    scale = abs(cm)
    positions = np.concatenate([surface[:, :2], ring]) / scale
    known = np.concatenate([-surface[:, 2] / scale, np.zeros(len(around)), neck[:, 2]])
    spline = RBFInterpolator(positions, known, smoothing=_SMOOTHING)
    heights = spline(xy.reshape(-1, 2) / scale).reshape(xy.shape[:2]) * scale
    step = float(xy[0, 1, 0] - xy[0, 0, 0])
    return _limit_slope(np.maximum(heights, -_MAX_DEPTH_CM * scale), _MAX_SLOPE * step)


def _limit_slope(heights: Floats, max_step: float) -> Floats:
    """Smooth a height field where its steps from cell to cell are too large."""
    for _ in range(20):
        down, right = np.gradient(heights)
        steep = np.hypot(down, right) > max_step
        if not steep.any():
            break
        blend = cv2.GaussianBlur(cv2.dilate(steep.astype(np.float64), np.ones((3, 3))), (0, 0), 1.5)
        heights += blend.clip(0, 1) * (cv2.GaussianBlur(heights, (0, 0), 1.5) - heights)
    return heights
