"""Fade of the mouth where the edge of the reference's face lies inside the face of a frame.

In a fast turn with a wide laugh, the face of a frame has other cheeks than that of the reference.
What is beside the face in the reference, such as hair, would then be visible inside the face.

Shape suffixes: H and W are the region's, h and w those of a small copy.
"""

from __future__ import annotations

import cv2
import numpy as np

from talkinghead.predict.compositing.mouth_region import ELLIPSE_CENTRE, MouthRegion
from talkinghead.types import FloatArray, UInt8Array

# Largest side in pixels of the small copies.
_SIDE = 80
# Differences of mouth and frame in grey levels between which the mouth fades, and radius in box
# sides in which it then fades.
_DIFFERENCE, _RADIUS = (28.0, 56.0), 0.05
# Distance inside the edge of the reference's face, in box sides, between which the fade ends.
_INSIDE = 0.06, 0.14
# Distances from the centre of the ellipse, in its radii and sideways in box sides, between which
# the fade begins, so that it does not change the lips and the chin, which speech moves.
_RADII, _ASIDE = (0.5, 0.7), (0.05, 0.15)


def edge_fade(
    mouth: FloatArray, frame: UInt8Array, region: MouthRegion, reference_face: FloatArray
) -> FloatArray | None:
    """Return a weight of the mouth, float32 [H, W], which is less where an edge would be visible.

    It is None if the mouth and the frame agree at the edge of the reference's face.

    Args:
        mouth: the mouth, float32 [H, W, 3], approximately in [0, 255].
        frame: the frame, uint8 [H, W, 3].
        region: their position.
        reference_face: outline of the reference's face in the frame, convex, [P, 2] in pixels.
    """
    height, width = region.radius.shape
    # Whole blocks of pixels, which are averaged several times as fast as other sizes.
    step = -(-max(height, width) // _SIDE)
    rows, columns = height // step, width // step
    if not rows or not columns:
        return None
    box_side = region.side_px / step
    corner = np.array([region.columns.start, region.rows.start])
    inside = _depth((reference_face - corner + 0.5) / step - 0.5, (columns, rows)) / box_side
    at = np.s_[step // 2 : step * rows : step, step // 2 : step * columns : step]
    radius = region.radius[at]
    aside = _ramp(np.abs(region.box_xy[..., 0][at] - ELLIPSE_CENTRE[0]), *_ASIDE)
    zone = (1 - _ramp(inside, *_INSIDE)) * aside * _ramp(radius, *_RADII)
    part = np.s_[: step * rows, : step * columns]
    means = [
        cv2.resize(image[part], (columns, rows), interpolation=cv2.INTER_AREA)
        for image in (mouth, frame)
    ]
    difference = np.asarray(cv2.absdiff(means[0], means[1].astype(np.float32))).max(2)
    strong = _ramp(difference, *_DIFFERENCE) * ((zone > 0) & (radius < 1))
    if region.visibility is not None:
        strong *= region.visibility[at]
    if not strong.any():
        return None
    reach = 2 * max(1, round(_RADIUS * box_side)) + 1
    spread = cv2.dilate(strong, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    spread = cv2.GaussianBlur(spread, (0, 0), max(0.5, _RADIUS * box_side / 2))
    weight: FloatArray = np.ones((height, width), np.float32)
    weight[part] -= cv2.resize(zone * spread, (step * columns, step * rows))
    return weight


def _depth(polygon: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Return the distance of each pixel to the edge of a convex polygon [P, 2], 0 outside."""
    # With a margin, because the border of the region is not an edge of the polygon.
    margin = _SIDE // 2
    mask: UInt8Array = np.zeros((size[1] + 2 * margin, size[0] + 2 * margin), np.uint8)
    cv2.fillConvexPoly(mask, np.rint(polygon).astype(np.int32) + margin, 1)
    depth = np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, 5), np.float32)
    return depth[margin:-margin, margin:-margin]


def _ramp(x: FloatArray, low: float, high: float) -> FloatArray:
    return np.asarray(((x - low) / (high - low)).clip(0, 1), np.float32)
