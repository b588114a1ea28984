"""Displacement of a face's skin by blendshapes, for the warp of a photo.

The lips are those of the generator. Around them, the field changes along the mouth only: both lips
move together, so that the opening between them is that of the still photo. The eyes are drawn
separately (see `eyes.py`).

Shape suffixes: K blendshapes, P points, h and w the grid's.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.features.faces.head_pose import FaceFrame, Floats
from talkinghead.predict.source.head.expression.blendshapes import (
    BLENDSHAPES,
    INNER_LIPS,
    LIDS,
    load_basis,
)
from talkinghead.predict.source.head.head_geometry import smooth_step
from talkinghead.types import Face, FloatArray

# Blendshapes that move nothing but the eyes and the tongue.
_NO_SKIN = ("eyeBlink", "eyeLook", "eyeWide", "tongueOut")
# Fraction of the motion of an opening jaw that is applied to the chin; the mouth does not open.
_JAW_PART = 0.5
# Enlarged outlines of the face on which the displacement is zero.
_STILL_SCALES = (1.3, 1.6)
_SMOOTHING = 0.02
# Corners of the mouth, and outer points of the upper and the lower lip from left to right.
_CORNERS = (61, 291)
_OUTER_LIPS = ((185, 40, 39, 37, 0, 267, 269, 270, 409), (146, 91, 181, 84, 17, 314, 405, 321, 375))
# Lengths in widths of the mouth: from the closed lower lip down to its position in a wide open
# mouth, and widths of the strips above, below and beside the region of the lips, across which their
# motion changes into that of the skin.
_OPEN_REACH, _ABOVE, _BELOW, _BESIDE = 0.4, 0.2, 0.3, 0.15
# Maximum change of length by the motion; above 1 the skin would fold.
_MAX_STRAIN = 0.75


class ExpressionField:
    """Displacements of the grid cells of a head by the expression of its face.

    Args:
        face: the face.
        frame: position of the face model in the photo.
        xy: (x, y) of the grid cells in pixels, float32 [h, w, 2].

    Attributes:
        window: rows and columns of the cells that an expression can move.
    """

    def __init__(self, face: Face, frame: FaceFrame, xy: FloatArray) -> None:
        basis = load_basis()
        points = face.points.astype(np.float64)
        if face.topology != "mesh468":
            points = frame.to_image(basis.points)[:, :2]
        moved_KP2 = frame.scale * skin_motion(basis.displacements) @ frame.rotation[:2].T
        self._used = np.flatnonzero(np.abs(moved_KP2).max((1, 2)) > 0)
        hull = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
        around = [points.mean(0) + scale * (hull - points.mean(0)) for scale in _STILL_SCALES]
        self._step = xy[1, 1] - xy[0, 0]
        low, high = (
            np.ceil((corner - xy[0, 0]) / self._step).astype(int)
            for corner in (around[-1].min(0), around[-1].max(0))
        )
        columns, rows = (slice(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True))
        self.window = rows, columns
        self._shape = xy[self.window].shape
        fields_KC = self._interpolate(points, moved_KP2[self._used], around, xy)
        self._fields_KC = self._keep_opening(fields_KC, points, xy)
        self._last: tuple[bytes, FloatArray] | None = None

    def shift(self, weights: FloatArray | None) -> FloatArray | None:
        """Return the displacements [rows, columns, 2] of the cells of the window in pixels.

        None is returned if the skin does not move. The array must not be changed.
        """
        used = np.zeros(0) if weights is None else weights[self._used]
        active = np.flatnonzero(used)
        if not len(active):
            return None
        # An emotion mostly stays the same for many frames.
        key, last = used.tobytes(), self._last
        if last is None or last[0] != key:
            last = self._last = key, self._combined(used, active)
        return last[1]

    def _combined(
        self, used: npt.NDArray[np.floating], active: npt.NDArray[np.integer]
    ) -> FloatArray:
        """Return the displacements by the active ones of the used blendshapes."""
        moved = (used[active] @ self._fields_KC[active]).reshape(self._shape)
        strain = max(
            float(np.abs(np.diff(moved, axis=axis)).max(initial=0) / self._step[1 - axis])
            for axis in (0, 1)
        )
        return np.asarray(moved * np.float32(min(1.0, _MAX_STRAIN / max(strain, 1e-6))))

    def _interpolate(
        self, points: Floats, moved_KP2: Floats, around: list[Floats], xy: FloatArray
    ) -> FloatArray:
        """Return the displacements of the window's cells by the used blendshapes, [K, cells * 2].

        The motion ends at the first outline in `around`.
        """
        # Import scipy on demand, because the import takes half a second.
        from scipy.interpolate import RBFInterpolator

        cells = xy[self.window]
        still = np.concatenate(around)
        known = np.concatenate([points, still])
        # Coordinates in units of the face's size, which the smoothing refers to.
        size = np.ptp(points, axis=0).mean()
        values = np.zeros((len(known), 2 * len(moved_KP2)))
        values[: len(points)] = moved_KP2.transpose(1, 0, 2).reshape(len(points), -1)
        spline = RBFInterpolator(known / size, values, kernel="linear", smoothing=_SMOOTHING)
        moved = spline(cells.reshape(-1, 2) / size)
        inside = np.zeros(xy.shape[:2], np.uint8)
        outline = np.rint((around[0] - xy[0, 0]) / self._step).astype(np.int32)
        cv2.fillConvexPoly(inside, outline, 1)
        fade = cv2.distanceTransform(np.pad(inside, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        fade = (fade[self.window] * self._step.mean() / (0.12 * size)).clip(0, 1).reshape(-1, 1)
        moved = (moved * fade).reshape(len(fade), len(moved_KP2), 2)
        return moved.transpose(1, 0, 2).reshape(len(moved_KP2), -1).astype(np.float32)

    def _keep_opening(self, fields_KC: FloatArray, points: Floats, xy: FloatArray) -> FloatArray:
        """Return the displacements without changes across the lips.

        In the region that the lips can reach, the displacement is that of the line between the
        closed lips.
        """
        left, right = points[list(_CORNERS)]
        width = max(float(np.linalg.norm(right - left)), 1e-6)
        along = (right - left) / width
        axes = np.stack([along, [-along[1], along[0]]]) / width
        across, down = np.moveaxis((xy[self.window] - left) @ axes.T, -1, 0)

        def line(upper: tuple[int, ...], lower: tuple[int, ...]) -> Floats:
            """Return how far the line between points is below the corners, at each cell."""
            at = (points[list(upper)] + points[list(lower)]) / 2 - left
            x, y = axes @ np.column_stack([np.zeros(2), at.T, right - left])
            return np.interp(across, np.maximum.accumulate(x), y)

        middle = line(*INNER_LIPS)
        top, bottom = (line(outer, outer) for outer in _OUTER_LIPS)
        weight = smooth_step((down - top) / _ABOVE + 1)
        weight *= smooth_step((bottom + _OPEN_REACH - down) / _BELOW + 1)
        weight *= smooth_step(across / _BESIDE + 1) * smooth_step((1 - across) / _BESIDE + 1)
        on_line = left + np.stack([across, middle], -1) @ (axes * width**2)
        if not weight.size:
            return fields_KC
        cells = ((on_line - xy[self.window][0, 0]) / self._step).astype(np.float32)
        fields = fields_KC.reshape(len(fields_KC), *self._shape)
        for field in fields:
            moved = cv2.remap(field, cells, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
            field += weight[..., None].astype(np.float32) * (moved - field)
        return fields.reshape(fields_KC.shape)


def skin_motion(displacements_KP3: FloatArray) -> FloatArray:
    """Return displacements that are continuous across the mouth and 0 at the lids."""
    moved = displacements_KP3.copy()
    for index, name in enumerate(BLENDSHAPES):
        if name.startswith(_NO_SKIN):
            moved[index] = 0
    moved[BLENDSHAPES.index("jawOpen")] *= _JAW_PART
    for lids in LIDS.values():
        moved[:, np.concatenate(lids)] = 0
    for pair in zip(*INNER_LIPS, strict=True):
        moved[:, pair] = moved[:, pair].mean(1, keepdims=True)
    return moved
