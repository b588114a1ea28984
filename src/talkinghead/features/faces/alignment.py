"""Alignment of faces to a canonical face by points that do not move with speech.

Crops never depend on the mouth's landmarks: a crop that moves with the chin reveals the mouth
opening, and a model would learn to use that instead of the audio.

Shape suffixes: T frames, P points, H and W pixels.
"""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from talkinghead.media.decoding.video_image import ImageLike, image_around
from talkinghead.types import AVSpec, FloatArray, UInt8Array

RIGID_POINTS: dict[str, dict[int, tuple[float, float]]] = {
    # Eye corners, bridge and base of the nose, relative to the middle of the eye line, in units of
    # the distance between the outer eye corners.
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
"""Number of rigid points on the base of the nose; these are the last points of each list.

These points alone define the translation: noses differ in length, and the mouth position matters
most.
"""
LIP_POINTS: dict[str, tuple[int, ...]] = {
    # Twelve outer and eight inner points, clockwise from the mouth corner on the left.
    "mesh468": (
        *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
        *(78, 82, 13, 312, 308, 317, 14, 87),
    ),
    "ibug68": tuple(range(48, 68)),
}
NUM_LIP_POINTS = 20
MIRRORED_LIPS = [*range(6, -1, -1), *range(11, 6, -1), *range(16, 11, -1), *range(19, 16, -1)]
_INNER_LIPS = {"mesh468": (13, 14), "ibug68": (62, 66)}
OUTER_EYES = {"mesh468": (33, 263), "ibug68": (36, 45)}
# Offset of the base of the nose from the middle of the eyes, divided by the distance between the
# outer eye corners: 0.23 times the tangent of the yaw. The values are for yaws of 50 degrees, above
# which a part of the mouth is hidden, and 61 degrees, above which all of it is hidden.
_TURNED, _TURNED_AWAY = 0.28, 0.42

# Distance and height of the eyes in the canonical face, as fractions of its size. With these
# values, the chin is inside the canonical face even if the mouth is open.
_EYE_DISTANCE = 0.40
_EYE_LINE = 0.33
NOSE_LINE = _EYE_LINE + 0.52 * _EYE_DISTANCE


def canonical_points(topology: str, spec: AVSpec) -> FloatArray:
    """Return the positions float32 [P, 2] of the rigid points in the canonical face, in pixels."""
    unit = np.array(list(RIGID_POINTS[topology].values()), dtype=np.float32)
    eyes = np.array([0.5, _EYE_LINE], np.float32)
    return (unit * _EYE_DISTANCE + eyes) * np.float32(spec.face_size)


def estimate_transform(points: FloatArray, topology: str, spec: AVSpec) -> FloatArray:
    """Estimate the similarity transform float32 [2, 3] from source pixels to the canonical face.

    Scale and angle minimise the squared error of eyes and bridge; the translation aligns the nose's
    base. `points` are float [P, 2].

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
    """Return the inverse of an affine map, float32 [2, 3]."""
    return cv2.invertAffineTransform(transform.astype(np.float64)).astype(np.float32)


def chain_transforms(first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the affine map float32 [2, 3] that applies `first` and then `second`."""
    linear = second[:, :2] @ first[:, :2]
    return np.column_stack([linear, second[:, :2] @ first[:, 2] + second[:, 2]]).astype(np.float32)


def transform_scale(transform: FloatArray) -> float:
    """Return the scale of a transform: the number of canonical pixels per source pixel."""
    return float(np.hypot(transform[0, 0], transform[1, 0]))


def enlarge_canonical(transform: FloatArray, factor: int) -> FloatArray:
    """Return the transform [2, 3] to a canonical face of `factor` times the size."""
    enlarged = factor * transform
    enlarged[:, 2] += (factor - 1) / 2  # The origin is the centre of the first pixel.
    return enlarged


def warp_face(image: ImageLike, transform: FloatArray, size: int) -> UInt8Array:
    """Warp an image to the canonical face uint8 [size, size, 3], antialiased."""
    square = np.array([(x, y) for x in (0, size) for y in (0, size)], np.float32)
    corners = transform_points(square, invert(transform))
    image, to_part = image_around(image, corners, 1 / max(transform_scale(transform), 1e-6))
    transform = chain_transforms(invert(to_part.astype(np.float32)), transform)
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
    """Return the gap between the inner lips divided by the distance of the outer eye corners.

    The result is NaN if a point is NaN.
    """
    upper, lower = _INNER_LIPS[topology]
    left, right = OUTER_EYES[topology]
    gap = np.linalg.norm(points[upper] - points[lower])
    return float(gap / max(float(np.linalg.norm(points[left] - points[right])), 1e-6))


def frontality(points: FloatArray, topology: str) -> float:
    """Return the visibility of the mouth: 1 up to 50 degrees of yaw, decreasing to 0 at 61."""
    left, right = (points[index] for index in OUTER_EYES[topology])
    across = right - left
    nose = points[list(RIGID_POINTS[topology])[-_NUM_NOSE:]].mean(0)
    offset = (nose - (left + right) / 2) @ across
    turn = abs(float(offset)) / max(float(across @ across), 1e-6)
    return float(np.clip((_TURNED_AWAY - turn) / (_TURNED_AWAY - _TURNED), 0, 1))


def lip_motion(lips: FloatArray) -> FloatArray:
    """Return the displacement of lips [T, 20, 2] from their median, made symmetric.

    Position and asymmetry of the mouth are removed, as they cannot be predicted from speech. The
    result is NaN where the lips are unknown.
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
    """Return the lip points float32 [20, 2] in the order of ibug68.

    The points are in canonical pixels if `transform` is given, else in source pixels.
    """
    lips = points[list(LIP_POINTS[topology])]
    return lips if transform is None else transform_points(lips, transform)


def lips_at(lips: FloatArray, frame: int) -> FloatArray:
    """Return the lips float32 [20, 2] of one frame, or the median of all frames if unknown."""
    known = lips[frame] if np.isfinite(lips[frame]).all() else np.nanmedian(lips, axis=0)
    return np.asarray(known, dtype=np.float32)


def transform_points(points: FloatArray, transform: FloatArray) -> FloatArray:
    """Apply an affine transform [2, 3] to points [..., 2], and return float32 points."""
    return (points @ transform[:, :2].T + transform[:, 2]).astype(np.float32)


def mouth_crop(faces: Tensor, spec: AVSpec) -> Tensor:
    """Crop canonical faces to the mouth box, and resize to [..., 3, mouth_size, mouth_size]."""
    x0, y0, x1, y1 = (int(v) for v in spec.mouth_box)
    box, size = faces[..., y0:y1, x0:x1].flatten(0, -4), (spec.mouth_size, spec.mouth_size)
    flat = F.interpolate(box, size, mode="bilinear", antialias=True)
    return flat.view(*faces.shape[:-2], *size)


def masked_face(faces: Tensor, spec: AVSpec) -> Tensor:
    """Return canonical faces [..., 3, face_size, face_size] at half size with a masked mouth."""
    flat = F.avg_pool2d(faces.flatten(0, -4), 2)
    return mask_mouth(flat.view(*faces.shape[:-2], *flat.shape[-2:]), spec)


def mask_mouth(halves: Tensor, spec: AVSpec) -> Tensor:
    """Mask the mouth in half-size faces [..., 3, face_size / 2, face_size / 2], in place."""
    x0, y0, x1, y1 = (int(v) // 2 for v in spec.mask_box)
    halves[..., y0:y1, x0:x1] = 0
    return halves


def fill_mouth(masked_face: Tensor, mouths: Tensor, spec: AVSpec) -> Tensor:
    """Return copies of half-size faces with mouths [..., 3, mouth_size, mouth_size] pasted in."""
    x0, y0, x1, y1 = (int(v) // 2 for v in spec.mouth_box)
    filled, size = masked_face.clone(), (y1 - y0, x1 - x0)
    small = F.interpolate(mouths.flatten(0, -4), size, mode="bilinear", antialias=True)
    filled[..., y0:y1, x0:x1] = small.view(*masked_face.shape[:-2], *size)
    return filled


def paste_mouth(faces: Tensor, mouths: Tensor, spec: AVSpec) -> Tensor:
    """Return copies of canonical faces with mouths [..., 3, mouth_size, mouth_size] pasted in."""
    x0, y0, x1, y1 = (int(v) for v in spec.mouth_box)
    pasted = faces.clone()
    large = F.interpolate(mouths.flatten(0, -4), (y1 - y0, x1 - x0), mode="bicubic").clamp(0, 1)
    pasted[..., y0:y1, x0:x1] = large.view(*faces.shape[:-2], y1 - y0, x1 - x0)
    return pasted


def as_tensor(faces: UInt8Array) -> Tensor:
    """Convert images uint8 [..., H, W, 3] to float32 [..., 3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(faces)).movedim(-1, -3).float() / 255.0
