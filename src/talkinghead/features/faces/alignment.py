"""The canonical face.

Alignment by points that speech does not move, and the mouth's fixed box in it.

Nothing here looks at the mouth's landmarks except `mouth_opening`, which measures and never crops.
A box that moves with the chin tells a model how open the mouth is, and it stops listening.

Shape suffixes: T frames, P points, H and W pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from fractions import Fraction
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from talkinghead.types import AVSpec, FloatArray, UInt8Array

RIGID_POINTS: dict[str, dict[int, tuple[float, float]]] = {
    # Eye corners, the nose's bridge and its base, in units of the distance between the outer
    # corners, from the middle of the eye line.
    "mesh468": {
        33: (-0.5, 0.0),
        133: (-0.21, 0.01),
        362: (0.21, 0.01),
        263: (0.5, 0.0),
        168: (0.0, -0.07),
        6: (0.0, 0.02),
        98: (-0.14, 0.52),
        327: (0.14, 0.52),
    },
    "ibug68": {
        36: (-0.5, 0.0),
        39: (-0.21, 0.01),
        42: (0.21, 0.01),
        45: (0.5, 0.0),
        27: (0.0, -0.03),
        31: (-0.14, 0.52),
        35: (0.14, 0.52),
    },
}
_NUM_NOSE = 2
"""The last of the rigid points are the nose's base.

They alone say where the face lies: noses differ in length, and what counts is where the mouth is.
"""
LIP_POINTS: dict[str, tuple[int, ...]] = {
    # Twelve outer points and eight inner ones, from the right corner over the upper lip.
    "mesh468": (
        *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
        *(78, 82, 13, 312, 308, 317, 14, 87),
    ),
    "ibug68": tuple(range(48, 68)),
}
NUM_LIP_POINTS = 20
MIRRORED_LIPS = [*range(6, -1, -1), *range(11, 6, -1), *range(16, 11, -1), *range(19, 16, -1)]
_INNER_LIPS = {"mesh468": (13, 14), "ibug68": (62, 66)}
_OUTER_EYES = {"mesh468": (33, 263), "ibug68": (36, 45)}
# How far from the middle of the eyes the base of a turned head's nose lies, in distances between
# their outer corners: 0.23 times the tangent of the angle. From 50 degrees on less of the mouth can
# be seen, from 61 nothing.
_TURNED, _TURNED_AWAY = 0.28, 0.42

# Where the eyes lie in the canonical face, as fractions of its size: chosen so that the chin of an
# open mouth is inside.
_EYE_DISTANCE = 0.40
_EYE_LINE = 0.33
NOSE_LINE = _EYE_LINE + 0.52 * _EYE_DISTANCE

_SCALE_SIGMA_S = 0.4
_POSITION_SIGMA_S = 0.06
_PARABOLA_PRICE = 0.02
SMOOTHING_LAG_S = Fraction(1, 2)
"""How far ahead the transform's filter looks."""


def canonical_points(topology: str, spec: AVSpec) -> FloatArray:
    """Where the rigid points lie in the canonical face: float32 [P, 2] pixels."""
    unit = np.array(list(RIGID_POINTS[topology].values()), dtype=np.float32)
    return (unit * _EYE_DISTANCE + np.array([0.5, _EYE_LINE], np.float32)) * np.float32(
        spec.face_size
    )


def estimate_transform(points: FloatArray, topology: str, spec: AVSpec) -> FloatArray:
    """The similarity from source pixels to the canonical face.

    Scale and angle by least squares over eyes and bridge; then the nose's base is put in its place.

    Args:
        points: float [num_points, 2], source pixels.
        topology: "mesh468" or "ibug68".
        spec: for the face's size.

    Returns:
        float32 [2, 3].

    Paper: Umeyama, "Least-squares estimation of transformation parameters between two point
        patterns", 1991; in two dimensions it is one complex division.
    """
    source = points[list(RIGID_POINTS[topology])].astype(np.float64)
    target = canonical_points(topology, spec).astype(np.float64)
    z, w = ((p - p.mean(0)) @ np.array([1, 1j]) for p in (source[:-_NUM_NOSE], target[:-_NUM_NOSE]))
    a = np.vdot(z, w) / max(np.vdot(z, z).real, 1e-12)
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    nose = target[-_NUM_NOSE:].mean(0) - linear @ source[-_NUM_NOSE:].mean(0)
    return np.hstack([linear, nose[:, None]]).astype(np.float32)


def invert(transform: FloatArray) -> FloatArray:
    """The inverse of a 2 x 3 affine map, float32 [2, 3]."""
    return cv2.invertAffineTransform(transform.astype(np.float64)).astype(np.float32)


def chain_transforms(first: FloatArray, second: FloatArray) -> FloatArray:
    """The 2 x 3 affine map that does what `first` and then `second` do, float32 [2, 3]."""
    linear = second[:, :2] @ first[:, :2]
    return np.column_stack([linear, second[:, :2] @ first[:, 2] + second[:, 2]]).astype(np.float32)


def transform_scale(transform: FloatArray) -> float:
    """Canonical pixels per source pixel."""
    return float(np.hypot(transform[0, 0], transform[1, 0]))


class TransformSmoother:
    """Smooths a stream of similarities with a fixed lag.

    Gaussian windows, centred, cut short at both ends of a shot.

    The scale is averaged over about a second, for it is what leaks (a face seen taller is a mouth
    seen open); position and angle over a fifth of one, for they follow the head: there a parabola
    is fitted, since a mean cuts off the turns of a head that nods. Frames without a face have no
    weight and are filled in. Because the lag is fixed, a stream gives what a file gives.

    Paper: Cleveland, "Robust Locally Weighted Regression and Smoothing Scatterplots", 1979.
    """

    def __init__(self, fps: Fraction, spec: AVSpec) -> None:
        self.lag = max(1, int(SMOOTHING_LAG_S * fps))
        self._centre = np.array([0.5, NOSE_LINE]) * spec.face_size
        sigmas_s = np.array(
            [_SCALE_SIGMA_S, _POSITION_SIGMA_S, _POSITION_SIGMA_S, _POSITION_SIGMA_S]
        )
        self._sigmas = sigmas_s * float(fps)
        self._states: deque[npt.NDArray[np.float64]] = deque(maxlen=2 * self.lag + 1)
        self._pending = 0

    def push(self, transform: FloatArray | None) -> list[FloatArray]:
        """Takes a frame's transform (None.

        No face) and gives the frame's that is `lag` frames old, once there is one.
        """
        self._states.append(self._to_state(transform))
        self._pending += 1
        return (
            [self._smoothed(len(self._states) - 1 - self.lag)] if self._pending > self.lag else []
        )

    def flush(self) -> list[FloatArray]:
        """The transforms still owed, at the end of a shot; then as new."""
        first = len(self._states) - self._pending
        rest = [self._smoothed(i, owed=False) for i in range(first, len(self._states))]
        self._states.clear()
        self._pending = 0
        return rest

    def _to_state(self, transform: FloatArray | None) -> npt.NDArray[np.float64]:
        """(log scale, angle, x, y).

        The source point that is mapped to the nose's base, so that scaling does not move it.
        """
        if transform is None:
            return np.full(4, np.nan)
        x, y = invert(transform).astype(np.float64) @ np.array([*self._centre, 1.0])
        angle = np.arctan2(transform[1, 0], transform[0, 0])
        previous = next((s[1] for s in reversed(self._states) if not np.isnan(s[1])), angle)
        angle += 2 * np.pi * np.round((previous - angle) / (2 * np.pi))
        return np.array([np.log(transform_scale(transform)), angle, x, y])

    def _smoothed(self, index: int, owed: bool = True) -> FloatArray:
        if owed:
            self._pending -= 1
        states = np.array(self._states)
        offsets = np.arange(len(states))[:, None] - index
        # The floor lets a far frame speak where all near ones are without a face.
        kernel = (np.exp(-0.5 * (offsets / self._sigmas) ** 2) + 1e-12) * (abs(offsets) <= self.lag)
        weights = kernel * ~np.isnan(states)
        total = weights.sum(0)
        if not total.all():
            return np.full((2, 3), np.nan, dtype=np.float32)
        log_scale, angle, x, y = np.nansum(weights * np.nan_to_num(states), 0) / total
        if not np.isnan(states[index, 0]):
            angle, x, y = _fit_parabola(
                offsets[:, 0] / self._sigmas[1], weights[:, 1], states[:, 1:]
            )
        a, b = np.exp(log_scale) * np.cos(angle), np.exp(log_scale) * np.sin(angle)
        linear = np.array([[a, -b], [b, a]])
        return np.hstack([linear, (self._centre - linear @ [x, y])[:, None]]).astype(np.float32)


def _fit_parabola(
    offsets: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """The value at offset 0 of a parabola through weighted values [n, k], NaN without weight: [k].

    Slope and curvature have a small price, so that few values give about their mean.
    """
    powers = np.vander(offsets, 3, increasing=True)
    weighted = powers.T * weights
    normal = weighted @ powers + np.diag([0, 1, 1]) * _PARABOLA_PRICE * weights.sum()
    middle = values[weights.argmax()]
    deviation = np.nan_to_num(values - middle)
    return np.asarray(middle + np.linalg.solve(normal, weighted @ deviation)[0])


def smooth_transforms(
    transforms: FloatArray, fps: Fraction, spec: AVSpec, cuts: Collection[int] = ()
) -> FloatArray:
    """A whole clip through `TransformSmoother`, which is reset at every cut.

    Args:
        transforms: float32 [T, 2, 3], NaN where no face was found.
        fps: frames per second.
        spec: for the face's size.
        cuts: the first frames of new shots.

    Returns:
        float32 [T, 2, 3]; NaN where no face is within half a second of a frame.
    """
    smoother = TransformSmoother(fps, spec)
    smoothed: list[FloatArray] = []
    for frame, transform in enumerate(transforms):
        if frame in cuts:
            smoothed += smoother.flush()
        smoothed += smoother.push(None if np.isnan(transform).any() else transform)
    smoothed += smoother.flush()
    return np.stack(smoothed)


def warp_face(image: UInt8Array, transform: FloatArray, size: int) -> UInt8Array:
    """The canonical face.

    Uint8 [size, size, 3] from uint8 [H, W, 3] RGB, filtered before it is shrunk.
    """
    scale = transform_scale(transform)
    if scale < 0.75:
        factor = max(scale, 1 / max(image.shape[:2]))
        width, height = (max(1, round(s * factor)) for s in (image.shape[1], image.shape[0]))
        shrink = np.array([image.shape[1] / width, image.shape[0] / height], dtype=np.float32)
        # Pixel centres: source = shrunk * shrink + (shrink - 1) / 2.
        offset = transform[:, :2] @ ((shrink - 1) / 2)
        transform = np.hstack([transform[:, :2] * shrink, transform[:, 2:] + offset[:, None]])
        image = cast(UInt8Array, cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA))
    face = cv2.warpAffine(
        image, transform, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return cast(UInt8Array, face)


def mouth_opening(points: FloatArray, topology: str) -> float:
    """The gap between the inner lips over the distance between the outer eye corners.

    NaN for unknown points.
    """
    upper, lower = _INNER_LIPS[topology]
    left, right = _OUTER_EYES[topology]
    gap = np.linalg.norm(points[upper] - points[lower])
    return float(gap / max(float(np.linalg.norm(points[left] - points[right])), 1e-6))


def frontality(points: FloatArray, topology: str) -> float:
    """How well a face's mouth can be seen: 1 up to a half-profile, then falling to 0 in profile.

    Args:
        points: float [num_points, 2], source pixels.
        topology: "mesh468" or "ibug68".
    """
    left, right = (points[index] for index in _OUTER_EYES[topology])
    across = right - left
    nose = points[list(RIGID_POINTS[topology])[-_NUM_NOSE:]].mean(0)
    offset = (nose - (left + right) / 2) @ across
    turn = abs(float(offset)) / max(float(across @ across), 1e-6)
    return float(np.clip((_TURNED_AWAY - turn) / (_TURNED_AWAY - _TURNED), 0, 1))


def lip_motion(lips: FloatArray) -> FloatArray:
    """How the lips have moved from where they rest, alike on both sides of the face.

    Speech tells neither where a mouth lies nor how crooked it is, so neither is left in.

    Args:
        lips: float [T, 20, 2] of one clip, from `lip_points`; NaN for unknown.

    Returns:
        float32 [T, 20, 2], canonical pixels from the clip's median.
    """
    known = np.isfinite(lips[:, 0, 0])
    if not known.any():
        return lips
    motion = lips - np.median(lips[known], axis=0)
    mirrored = motion[:, MIRRORED_LIPS] * np.array([-1, 1], np.float32)
    return np.asarray((motion + mirrored) / 2, dtype=np.float32)


def lip_points(
    points: FloatArray, topology: str, transform: FloatArray | None = None
) -> FloatArray:
    """The lips, in ibug68's order whatever found them.

    Args:
        points: float [num_points, 2], source pixels; NaN for unknown.
        topology: "mesh468" or "ibug68".
        transform: float [2, 3], source to canonical pixels.

    Returns:
        float32 [20, 2], canonical pixels, or source pixels without a transform.
    """
    lips = points[list(LIP_POINTS[topology])]
    return lips if transform is None else transform_points(lips, transform)


def lips_at(lips: FloatArray, frame: int) -> FloatArray:
    """A clip's lips [T, 20, 2] in one frame, float32 [20, 2]; where unknown, the clip's median."""
    known = lips[frame] if np.isfinite(lips[frame]).all() else np.nanmedian(lips, axis=0)
    return np.asarray(known, dtype=np.float32)


def transform_points(points: FloatArray, transform: FloatArray) -> FloatArray:
    """Points [..., 2] through a transform [2, 3], float32."""
    return (points @ transform[:, :2].T + transform[:, 2]).astype(np.float32)


def mouth_crop(faces: Tensor, spec: AVSpec) -> Tensor:
    """Canonical faces, float [..., 3, face, face], to mouths [..., 3, mouth, mouth]."""
    x0, y0, x1, y1 = (int(v) for v in spec.mouth_box)
    box = faces[..., y0:y1, x0:x1]
    flat = F.interpolate(
        box.flatten(0, -4), (spec.mouth_size, spec.mouth_size), mode="bilinear", antialias=True
    )
    return flat.view(*faces.shape[:-2], spec.mouth_size, spec.mouth_size)


def masked_face(faces: Tensor, spec: AVSpec) -> Tensor:
    """What the generator may see of the current frame: half the size, black from the nose down.

    Args:
        faces: canonical faces, float [..., 3, face_size, face_size] in [0, 1].
        spec: for the mask's box.

    Returns:
        float [..., 3, face_size / 2, face_size / 2].
    """
    flat = F.avg_pool2d(faces.flatten(0, -4), 2)
    return black_mouth(flat.view(*faces.shape[:-2], *flat.shape[-2:]), spec)


def black_mouth(halves: Tensor, spec: AVSpec) -> Tensor:
    """Canonical faces of half the size, [..., 3, face_size / 2, face_size / 2], masked in place."""
    x0, y0, x1, y1 = (int(v) // 2 for v in spec.mask_box)
    halves[..., y0:y1, x0:x1] = 0
    return halves


def fill_mouth(masked_face: Tensor, mouths: Tensor, spec: AVSpec) -> Tensor:
    """Mouths [..., 3, mouth, mouth] put into copies of `masked_face`, half-size faces."""
    x0, y0, x1, y1 = (int(v) // 2 for v in spec.mouth_box)
    filled = masked_face.clone()
    small = F.interpolate(
        mouths.flatten(0, -4), (y1 - y0, x1 - x0), mode="bilinear", antialias=True
    )
    filled[..., y0:y1, x0:x1] = small.view(*masked_face.shape[:-2], y1 - y0, x1 - x0)
    return filled


def paste_mouth(faces: Tensor, mouths: Tensor, spec: AVSpec) -> Tensor:
    """Inverse of `mouth_crop`.

    Mouths [..., 3, mouth_size, mouth_size] put into copies of canonical faces.
    """
    x0, y0, x1, y1 = (int(v) for v in spec.mouth_box)
    pasted = faces.clone()
    large = F.interpolate(mouths.flatten(0, -4), (y1 - y0, x1 - x0), mode="bicubic").clamp(0, 1)
    pasted[..., y0:y1, x0:x1] = large.view(*faces.shape[:-2], y1 - y0, x1 - x0)
    return pasted


def as_tensor(faces: UInt8Array) -> Tensor:
    """uint8 [..., H, W, 3] to float32 [..., 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(faces)).movedim(-1, -3).float() / 255.0
