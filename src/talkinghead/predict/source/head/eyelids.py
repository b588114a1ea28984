"""Motion of the eyelids in a photo."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.predict.source.head.expression.blendshapes import LIDS
from talkinghead.predict.source.head.head_geometry import Floats, smooth_step
from talkinghead.types import Face, FloatArray, UInt8Array

# Landmarks of the left and the right eye in the image: the upper lid and the lower lid, each from
# left to right, a point of the eyebrow, and a point of the cheek where there is one.
_EYES: dict[str, tuple[tuple[tuple[int, ...], tuple[int, ...], int, int | None], ...]] = {
    "mesh468": ((*LIDS["Right"], 52, 119), (*LIDS["Left"], 282, 348)),
    "ibug68": (
        ((36, 37, 38, 39), (36, 41, 40, 39), 19, None),
        ((42, 43, 44, 45), (42, 47, 46, 45), 24, None),
    ),
}
# Eyes with a smaller ratio of height to width than the first are treated as closed, and eyes with a
# larger one than the second as fully open.
_MIN_ASPECT, _OPEN_ASPECT = 0.12, 0.2
# Distance by which the upper lid moves below the lower lid, in heights of the open eye.
_OVERSHOOT = 0.2
MAX_WIDENING = 0.3
"""Largest distance by which a lid opens an eye further, in heights of the open eye."""
# Fraction of the height of the eye that is stretched when a lid opens it further.
_STRETCHED = 0.65
# The rim of glasses covers the skin above an eye if this fraction of it is darker than the first
# fraction of the skin below the eye, and the luminance changes between two of the measured rows by
# the second. Lashes, creases, shadows and eyebrows do not meet both conditions.
_RIM_PART, _RIM_LIGHT, _RIM_STEP = 0.25, 0.4, 0.2
# Distances between which the skin is measured, below the eye in heights of the eye, and above it in
# heights of the skin; and number of rows.
_BELOW, _ABOVE, _NUM_ROWS = (0.2, 0.8), (0.35, 0.9), 24
# Range of the luminance of a closed lid relative to the skin below the eye, and largest difference
# of its relative colours from that skin. Otherwise, the shadow above a deep-set eye or a highlight
# of the brow would cover the eye as a dark or grey patch.
_LID_LIGHT, _LID_TINT = (0.85, 1.05), 0.02
# In heights of the eye: distance over which the colours of a lid are averaged for that; distances
# from the edges of the open and of the moved lid, which has lashes, in which the correction rises;
# and motion of the lid up to which it rises.
_AVERAGED, _MATCHED, _LASHES, _MATCHED_TRAVEL = 0.3, (-0.5, 0.15), 0.4, 0.5
# Smoothing of the colours of the skin along the eye, in columns in which they are measured, and
# number of these.
_SKIN_SMOOTHING, _NUM_COLUMNS = 2.5, 16
# Lashes, pores and cracks of the stretched skin would become vertical streaks. In heights of the
# eye: the width of the widest streak that is removed, the height of the part at the moved edge that
# keeps its lashes, and the height above the open eye in which the removal begins.
_STREAK, _KEPT, _SMOOTHED_ABOVE = 0.25, 0.25, 0.2
# A lid without skin shows a reflection of the skin below the eye: distance of its edge from the
# eye, scale, darkening at the edge and the height of the dark part, in heights of the eye.
_REFLECTED_FROM, _REFLECTED_SCALE, _EDGE_DARKENING, _EDGE_HEIGHT = 0.2, 0.8, 0.4, 0.08


def find_lids(image: UInt8Array, face: Face) -> list[tuple[Lid, Lid | None] | None]:
    """Return the upper and the lower lid of the eye on the left and on the right of an image.

    An eye that is closed or outside the image is None, as is a lower lid without a known cheek.
    """
    lids: list[tuple[Lid, Lid | None] | None] = []
    for upper, lower, brow, cheek in _EYES[face.topology]:
        above = _make_lid(image, face.points, upper, lower, brow)
        below = None
        if cheek is not None:
            # The same geometry, upside down.
            below = _make_lid(image, face.points, lower[::-1], upper[::-1], cheek)
        if above is not None:
            above = _with_skin(image, face.points, upper, lower, above)
        lids.append(None if above is None else (above, below))
    return lids


@dataclass(frozen=True)
class Lid:
    """Geometry for moving the lid of one eye; described for an upper lid.

    Attributes:
        rows, columns: slices of the image.
        xy: (x, y) of each pixel in the image, float32 [h, w, 2].
        down: unit vector in which the lid closes, float32 [2].
        depth: distance of each pixel below the edge of the lid, float32 [h, w]; infinite beside the
            eye.
        travel: distance of the lid's edge to its closed position, float32 [h, w].
        skin: height of the skin above the lid that is stretched, in pixels.
        height: height of the open eye in pixels.
        openness: 0 for a closed eye to 1 for an open one.
        gap: distance between the lids, float32 [h, w].
        has_rim: whether a rim of glasses is above the lid, so that there is no skin to stretch.
        skin_colour: colour of the skin below the eye in the column of each pixel, float32
            [h, w, 3]; None for a lower lid.
    """

    rows: slice
    columns: slice
    xy: FloatArray
    down: FloatArray
    depth: FloatArray
    travel: FloatArray
    skin: float
    height: float
    openness: float
    gap: FloatArray
    has_rim: bool = False
    skin_colour: FloatArray | None = None

    def move(self, image: UInt8Array, closure: float) -> None:
        """Move the lid in an image in place.

        Args:
            image: the image.
            closure: 0 is the lid of the photo, 1 closes the eye, and negative values, down to
                `-MAX_WIDENING`, open it further.
        """
        travel = np.float32(max(closure, -MAX_WIDENING)) * self.travel
        # `stretch` is 0 at the upper end of the skin and 1 at the edge of the lid.
        stretch = smooth_step((self.depth + self.skin) / (travel + self.skin))
        if closure < 0:
            # The part of the eye at the lid is stretched, and the opposite lid does not move.
            stretch -= smooth_step((self.depth - travel) / (_STRETCHED * self.height))
        if closure < 0:
            image[self.rows, self.columns] = self._shifted(image, -travel * stretch)
            return
        if self.has_rim:
            moved = self._reflected(image, travel)
        else:
            moved = self._smoothed(self._shifted(image, -travel * stretch), travel)
            moved = self._matched(moved, travel)
        region = image[self.rows, self.columns]
        covered = (travel - self.depth + np.float32(0.5)).clip(0, 1)
        if self.has_rim:
            covered *= (self.depth + np.float32(0.5)).clip(0, 1)
        region[:] = cv2.blendLinear(moved, region, covered, np.float32(1) - covered)

    def _shifted(self, image: UInt8Array, shift: npt.NDArray[np.floating]) -> UInt8Array:
        """Return the region, sampled at a distance [h, w] below each pixel."""
        shift = shift.astype(np.float32)
        return _sample(image, self.xy + cv2.merge([self.down[0] * shift, self.down[1] * shift]))

    def _smoothed(self, lid: UInt8Array, travel: FloatArray) -> UInt8Array:
        """Return a lid [h, w, 3], whose edge moves by `travel` [h, w], without vertical streaks."""
        side = 2 * round(_STREAK * self.height) + 1
        kernel = np.ones((1, side), np.uint8)
        skin = cv2.blur(cv2.morphologyEx(lid, cv2.MORPH_CLOSE, kernel), (side, 1))
        # Light spots at the edge are parts of the eye.
        edge = cv2.morphologyEx(lid, cv2.MORPH_OPEN, kernel)
        depth = np.where(np.isfinite(self.depth), self.depth, 0) / self.height
        is_skin = smooth_step((travel / self.height - depth) / _KEPT).astype(np.float32)
        smooth = cv2.blendLinear(skin, edge, is_skin, 1 - is_skin)
        is_lid = smooth_step(1 + depth / _SMOOTHED_ABOVE).astype(np.float32)
        return np.asarray(cv2.blendLinear(smooth, lid, is_lid, 1 - is_lid), np.uint8)

    def _matched(self, lid: UInt8Array, travel: FloatArray) -> UInt8Array:
        """Return a lid [h, w, 3], whose edge moves by `travel`, in the colours of the skin."""
        if self.skin_colour is None:
            return lid
        side = 2 * round(_AVERAGED * self.height) + 1
        mean = np.asarray(cv2.blur(lid, (side, side)), np.float32)
        skin = np.maximum(self.skin_colour, 1)
        grey = [cv2.cvtColor(part, cv2.COLOR_RGB2GRAY) for part in (np.maximum(mean, 1), skin)]
        light = (np.asarray(grey[0]) / np.asarray(grey[1]))[..., None]
        tint = (mean / (skin * light)).clip(1 - _LID_TINT, 1 + _LID_TINT)
        target = skin * light.clip(*_LID_LIGHT) * tint
        change, own = target - mean, target - lid
        # Pixels that have the target's colours already are not changed.
        change = np.where(change * own > 0, np.sign(change) * np.minimum(abs(change), abs(own)), 0)
        depth = np.where(np.isfinite(self.depth), self.depth, 0) / self.height
        low, high = _MATCHED
        weight = smooth_step((depth - low) / (high - low))
        weight *= smooth_step((travel / self.height - depth) / _LASHES)
        weight *= smooth_step(travel / self.height / _MATCHED_TRAVEL)
        matched = lid + weight.astype(np.float32)[..., None] * change
        return np.rint(matched.clip(0, 255)).astype(np.uint8)

    def _reflected(self, image: UInt8Array, travel: FloatArray) -> UInt8Array:
        """Return a lid with the skin below the eye, whose edge moves by `travel` [h, w]."""
        depth = np.where(np.isfinite(self.depth), self.depth, 0)
        above = (travel - depth).clip(0)
        distance = self.gap + _REFLECTED_FROM * self.height + _REFLECTED_SCALE * above
        skin = self._shifted(image, distance - depth)
        # The lids meet in the corners of the eye, where no edge is visible.
        edge = np.exp(-((above / (_EDGE_HEIGHT * self.height)) ** 2))
        edge *= (2 * travel / self.height).clip(0, 1)
        light = (1 - _EDGE_DARKENING * edge).astype(np.float32)
        return (skin * light[..., None]).astype(np.uint8)


def _make_lid(
    image: UInt8Array, points: FloatArray, upper: tuple[int, ...], lower: tuple[int, ...], brow: int
) -> Lid | None:
    """Return the lid at the given landmarks, or None if the eye is closed or outside the image."""
    left, right = points[upper[0]].astype(float), points[upper[-1]].astype(float)
    width = float(np.linalg.norm(right - left))
    across = (right - left) / max(width, 1e-6)
    down = np.array([-across[1], across[0]])

    def curve_points(indexes: tuple[int, ...]) -> Floats:
        """Return landmarks as (x along the eye, y below the corners), with increasing x."""
        xy = np.stack([(points[list(indexes)] - left) @ axis for axis in (across, down)])
        xy[0] = np.maximum.accumulate(xy[0]) + 1e-3 * np.arange(len(indexes))
        return xy

    above, below = curve_points(upper), curve_points(lower)
    height = float(below[1].max() - above[1].min())
    skin = 0.7 * float(above[1].min() - (points[brow] - left) @ down)
    if height < _MIN_ASPECT * width or width < 6 or skin < 2:
        return None
    corners = np.stack([left, right]) + np.array([[-skin], [height]])[..., None] * down
    low = np.maximum(np.floor(corners.min((0, 1))).astype(int), 0)
    high = np.minimum(np.ceil(corners.max((0, 1))).astype(int) + 1, image.shape[1::-1])
    if (high <= low).any():
        return None
    xy = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True))), -1)
    along, deep = (xy - left) @ across, (xy - left) @ down
    inside = (along > above[0, 0]) & (along < above[0, -1])
    # Interpolate linearly between four points per pixel, because a cubic curve is slow.
    fine = np.linspace(0, width, 4 * int(np.ceil(width)) + 1)
    upper_y, lower_y = (np.interp(along, fine, _curve(line, fine)) for line in (above, below))
    # Move the upper lid below the lower lid, except at the corners, to cover the whole eye.
    position = (along / width).clip(0, 1)
    overshoot = _OVERSHOOT * height * np.sqrt(4 * position * (1 - position))
    gap = (lower_y - upper_y).clip(0)
    travel = np.where(inside, gap + overshoot, 0)
    return Lid(
        slice(low[1], high[1]),
        slice(low[0], high[0]),
        xy.astype(np.float32),
        down.astype(np.float32),
        np.where(inside, deep - upper_y, np.inf).astype(np.float32),
        travel.astype(np.float32),
        skin,
        height,
        float(smooth_step((height / width - _MIN_ASPECT) / (_OPEN_ASPECT - _MIN_ASPECT))),
        gap.astype(np.float32),
    )


def _with_skin(
    image: UInt8Array, points: FloatArray, upper: tuple[int, ...], lower: tuple[int, ...], lid: Lid
) -> Lid:
    """Return an upper lid with what the skin around it shows; its landmarks are given."""
    at = np.linspace(0.15, 0.85, _NUM_COLUMNS)

    def skin(indexes: tuple[int, ...], distances: Floats) -> UInt8Array:
        line = points[list(indexes)].astype(float)
        along = (line - line[0]) @ (line[-1] - line[0])
        edge = np.stack([np.interp(at, along / max(along[-1], 1e-6), axis) for axis in line.T], 1)
        xy = edge + distances[:, None, None] * lid.down
        return _sample(image, xy.astype(np.float32))

    below = skin(lower, lid.height * np.linspace(*_BELOW, _NUM_ROWS))
    above = skin(upper, -lid.skin * np.linspace(*_ABOVE, _NUM_ROWS))
    left, right = points[[upper[0], upper[-1]]].astype(float)
    along = (lid.xy - left) @ (right - left) / max(float((right - left) @ (right - left)), 1e-6)
    median = np.median(below, axis=0).astype(np.float32)[None]
    border = cv2.BORDER_REPLICATE
    colours = cv2.GaussianBlur(median, (0, 0), _SKIN_SMOOTHING, borderType=border)[0]
    field = np.stack([np.interp(along, at, channel) for channel in colours.T], -1)
    return replace(lid, has_rim=_has_rim(below, above), skin_colour=field.astype(np.float32))


def _has_rim(below: UInt8Array, above: UInt8Array) -> bool:
    """Return whether the rim of glasses covers the skin above a lid.

    Args:
        below: rows of the skin below the eye, uint8 [rows, columns, 3].
        above: rows of the skin above the eye.
    """
    light = [np.median(cv2.cvtColor(rows, cv2.COLOR_RGB2GRAY), axis=1) for rows in (below, above)]
    relative = light[1] / max(float(np.median(light[0])), 1.0)
    has_step = np.abs(np.diff(relative)).max() > _RIM_STEP
    return bool(has_step and np.mean(relative < _RIM_LIGHT) >= _RIM_PART)


def _curve(points: Floats, at: Floats) -> Floats:
    """Return the ordinates of a monotone cubic curve through points [2, P], at any abscissas.

    `scipy.interpolate.PchipInterpolator` gives the same curve, but takes several times as long.

    Paper: Fritsch and Butland, "A method for constructing local monotone piecewise cubic
        interpolants", 1984.
    """
    (x, y), h = points, np.diff(points[0])
    slopes = np.diff(y) / h
    before, after = slopes[:-1], slopes[1:]
    weights = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    is_monotone = before * after > 0
    before, after = np.where(is_monotone, before, 1), np.where(is_monotone, after, 1)
    mean = sum(weights) / (weights[0] / before + weights[1] / after)
    ends = _end_slope(h[:2], slopes[:2]), _end_slope(h[:-3:-1], slopes[:-3:-1])
    tangents = np.concatenate([ends[:1], np.where(is_monotone, mean, 0), ends[1:]])
    index = np.searchsorted(x, at).clip(1, len(x) - 1) - 1
    t, h = (at - x[index]) / h[index], h[index]
    change = y[index + 1] - y[index]
    start, end = h * tangents[index] - change, change - h * tangents[index + 1]
    return np.asarray(y[index] + t * change + t * (1 - t) * ((1 - t) * start + t * end))


def _end_slope(h: Floats, slopes: Floats) -> float:
    """Return the slope at an end from the first two intervals of a curve."""
    slope = float(((2 * h[0] + h[1]) * slopes[0] - h[0] * slopes[1]) / (h[0] + h[1]))
    if slope * slopes[0] <= 0:
        return 0.0
    is_overshooting = slopes[0] * slopes[1] <= 0 and abs(slope) > 3 * abs(slopes[0])
    return float(3 * slopes[0]) if is_overshooting else slope


def _sample(image: UInt8Array, xy: npt.NDArray[np.floating]) -> UInt8Array:
    """Sample an image at pixel coordinates [h, w, 2]."""
    return cv2.remap(image, xy, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
