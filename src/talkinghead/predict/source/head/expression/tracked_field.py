"""Displacement of the skin of a tracked face, computed anew in each frame of a video.

The field is a normalised convolution of the displacements of the landmarks, on a grid that moves
and tilts with the face, so that it changes as smoothly as the landmarks.

Paper: Knutsson and Westin, "Normalized and differential convolution", CVPR 1993.

Shape suffixes: K blendshapes, P points, h and w the grid's.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from talkinghead.features.faces.head_pose import FaceFrame, Floats, fit_face_frame
from talkinghead.predict.source.head.expression.blendshapes import (
    INNER_LIPS,
    OUTER_LIPS,
    load_basis,
)
from talkinghead.predict.source.head.expression.expression_field import skin_motion
from talkinghead.predict.source.head.head_geometry import smooth_step
from talkinghead.types import Face, FloatArray, UInt8Array

# Grid in centimetres of the face, around the mean of the landmarks.
_CELL_CM, _REACH_X_CM, _REACH_Y_CM = 0.3, 11.0, 12.0
# Standard deviations of the convolution, and weight of the wider one, which fills the gaps.
_SIGMA_CM, _WIDE_SIGMA_CM, _WIDE_WEIGHT = 0.5, 1.5, 0.02
# Factor that compensates for the mean loss of displacement by the convolution.
_GAIN = 1.1
# The motion ends at the outline of the landmarks, scaled about their mean, and fades over this
# distance within it.
_STILL_SCALE, _FADE_CM = 1.12, 1.2
# Largest shortening of the sources of a cell, in cells: beyond 1 the skin would fold.
_MAX_SHORTENING = 0.85
# Smaller displacements in pixels are not drawn.
_MIN_SHIFT_PX = 0.02


def face_area(face: Face, height: int, width: int) -> tuple[slice, slice] | None:
    """Return the rows and columns of an image that expressions change; None outside the image."""
    frame = fit_face_frame(face)
    if frame is None:
        return None
    outline = _outline(_mesh(face, frame))
    limits = np.array([width, height])
    low = np.floor(outline.min(0)).astype(int).clip(0, limits).tolist()
    high = (np.ceil(outline.max(0)).astype(int) + 1).clip(0, limits).tolist()
    if high[0] - low[0] < 2 or high[1] - low[1] < 2:
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def move_skin(image: UInt8Array, face: Face, frame: FaceFrame, weights: FloatArray) -> None:
    """Warp the skin of a face in place.

    Args:
        image: the `face_area` of an image, or a larger part, uint8 [H, W, 3] RGB.
        face: the face in the image.
        frame: position of the face model in the image.
        weights: weights of the blendshapes, float32 [52].
    """
    moved_P2 = _GAIN * frame.scale * np.tensordot(weights, _skin(), 1) @ frame.rotation[:2].T
    if np.abs(moved_P2).max() < _MIN_SHIFT_PX:
        return
    points = _mesh(face, frame)
    to_grid = _to_grid(frame, points.mean(0))
    field = _backward_field(points, moved_P2, to_grid)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shift = cv2.warpAffine(field, to_grid, image.shape[1::-1], flags=flags)
    source = np.asarray(shift, np.float32)
    source[..., 0] += np.arange(image.shape[1], dtype=np.float32)
    source[..., 1] += np.arange(image.shape[0], dtype=np.float32)[:, None]
    maps, rest = cv2.convertMaps(source, None, cv2.CV_16SC2)  # type: ignore[call-overload]
    image[:] = cv2.remap(image, maps, rest, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _mesh(face: Face, frame: FaceFrame) -> Floats:
    """Return the points [P, 2] of the mesh in pixels, those of the basis for other landmarks."""
    if face.topology == "mesh468":
        return face.points.astype(np.float64)
    return frame.to_image(load_basis().points)[:, :2]


def _outline(points: Floats) -> Floats:
    """Return the convex outline [N, 2] at which the motion of the skin ends."""
    hull, centre = cv2.convexHull(points.astype(np.float32))[:, 0], points.mean(0)
    return np.asarray(centre + _STILL_SCALE * (hull - centre), np.float64)


@cache
def _skin() -> FloatArray:
    """Return the motion of the skin [K, P, 3]; the lips move as the line between them.

    The lips are those of the generator, and their opening must not change.
    """
    moved = skin_motion(load_basis().displacements)
    for outer in OUTER_LIPS:
        moved[:, outer] = moved[:, INNER_LIPS[0]]
    return moved


@cache
def _point_areas() -> Floats:
    """Return the relative area of the face that each point of the mesh represents, [P]."""
    points = load_basis().points.astype(np.float64)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    return np.square(np.sort(distances, axis=1)[:, 1:5].mean(1))


def _to_grid(frame: FaceFrame, centre: Floats) -> Floats:
    """Return the similarity transform [2, 3] from pixels to cells of the grid."""
    upright = complex(*frame.rotation[:2, 0])
    factor = np.conj(upright) / abs(upright) / frame.scale / _CELL_CM
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    middle = np.array([_REACH_X_CM, _REACH_Y_CM]) / _CELL_CM
    return np.column_stack([linear, middle - linear @ centre])


def _backward_field(points: Floats, moved_P2: Floats, to_grid: Floats) -> FloatArray:
    """Return the displacement [h, w, 2] in pixels from each cell to its source in the frame."""
    width, height = (round(2 * reach / _CELL_CM) + 1 for reach in (_REACH_X_CM, _REACH_Y_CM))
    cells = (points + moved_P2) @ to_grid[:, :2].T + to_grid[:, 2]
    areas = _point_areas()[:, None]
    values = np.hstack([-moved_P2 * areas, areas])
    sums = _splat(cells, values, height, width)
    near, far = (
        cv2.GaussianBlur(sums, (0, 0), sigma / _CELL_CM, borderType=cv2.BORDER_CONSTANT)
        for sigma in (_SIGMA_CM, _WIDE_SIGMA_CM)
    )
    total = near + np.float32(_WIDE_WEIGHT) * far
    field = total[..., :2] / np.maximum(total[..., 2:], 1e-9)
    outline = _outline(points) @ to_grid[:, :2].T + to_grid[:, 2]
    # The field is interpolated between cells, so the cells at the outline must not move.
    inside_cm = (_depth_inside(outline, height, width) - 1.5) * _CELL_CM
    field *= smooth_step(inside_cm / _FADE_CM)[..., None]
    shortening = _shortening(field @ to_grid[:, :2].T)
    return np.asarray(field * min(1.0, _MAX_SHORTENING / max(shortening, 1e-6)), np.float32)


def _shortening(field: Floats) -> float:
    """Return the largest shortening by displacements [h, w, 2] in cells, in any direction."""
    right, down = np.diff(field, axis=1)[:-1], np.diff(field, axis=0)[:, :-1]
    mean = (right[..., 0] + down[..., 1]) / 2
    difference = (right[..., 0] - down[..., 1]) / 2, (right[..., 1] + down[..., 0]) / 2
    return float((np.hypot(*difference) - mean).max())


def _splat(cells: Floats, values: Floats, height: int, width: int) -> FloatArray:
    """Add values [N, C] at positions [N, 2] to a grid [h, w, C], divided among four cells."""
    corner = np.floor(cells)
    part = cells - corner
    inside = (corner >= 0).all(1) & (corner < [width - 1, height - 1]).all(1)
    corner, part, values = corner[inside].astype(int), part[inside], values[inside]
    sums = np.zeros((height * width, values.shape[1]))
    for right in (0, 1):
        for down in (0, 1):
            weight = np.abs(1 - right - part[:, 0]) * np.abs(1 - down - part[:, 1])
            index = (corner[:, 1] + down) * width + corner[:, 0] + right
            for channel in range(values.shape[1]):
                sums[:, channel] += np.bincount(
                    index, weight * values[:, channel], minlength=height * width
                )
    return sums.reshape(height, width, -1).astype(np.float32)


def _depth_inside(outline: Floats, height: int, width: int) -> FloatArray:
    """Return the distance of each cell from a convex outline, negative outside: [h, w]."""
    ahead = np.roll(outline, -1, 0) - outline
    normals = np.column_stack([-ahead[:, 1], ahead[:, 0]])
    lengths = np.linalg.norm(ahead, axis=1)
    normals, start = normals[lengths > 1e-6], outline[lengths > 1e-6]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    # The order of the points decides on which side of each edge the face is.
    normals *= np.sign(np.einsum("ij,ij->i", normals, outline.mean(0) - start)).mean()
    planes = np.column_stack([normals, -(normals * start).sum(1)]).astype(np.float32)
    ys, xs = np.indices((height, width), np.float32)
    cells = np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size, np.float32)])
    return np.asarray((planes @ cells).min(0).reshape(height, width))
