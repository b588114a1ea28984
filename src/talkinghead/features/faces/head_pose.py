"""Estimation of the head pose from points that do not move with speech.

Angles are (yaw, pitch, roll) in degrees. Yaw is positive if the nose points to the right of the
image, pitch if the nose points down, and roll if the head leans clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead.types import Face, FloatArray

Floats: TypeAlias = npt.NDArray[np.float64]

_FACE_CM = {
    # MediaPipe's canonical face model (geometry_pipeline_metadata_landmarks.pbtxt, Apache-2.0):
    # eye corners, bridge, base and tip of the nose. Axes: x right, y down, z away from the camera.
    33: (-4.445859, -2.663991, -3.173422),
    133: (-1.856432, -2.585245, -3.757904),
    362: (1.856432, -2.585245, -3.757904),
    263: (4.445859, -2.663991, -3.173422),
    168: (0.0, -3.271027, -5.236015),
    98: (-1.405627, 1.714196, -5.241087),
    327: (1.405627, 1.714196, -5.241087),
    4: (0.0, 0.463170, -7.586580),
}
_POINTS = {"mesh468": list(_FACE_CM), "ibug68": [36, 39, 42, 45, 27, 31, 35, 30]}
_MODEL = np.array(list(_FACE_CM.values()))
# Forehead, chin, sides of the face and corners of the mouth: means of FaceMesh's points of three
# faces in this model's coordinates.
_OUTLINE_CM = (
    *((0.0, -7.8, -4.9), (0.0, 7.8, -3.7), (-6.8, -0.5, 2.1), (6.8, -0.5, 2.1)),
    *((-2.6, 3.7, -4.1), (2.6, 3.7, -4.1)),
)
_DISTANCE_CM = 100.0

MIRRORED = (-1.0, 1.0, -1.0)
"""Factors that convert the angles of an image to the angles of the mirrored image."""


def head_pose(points: FloatArray, topology: str) -> FloatArray:
    """Return the angles float32 [3] of the head relative to the camera's line of sight.

    The focal length is unknown; a distance of one metre is assumed. The angles are NaN where the
    points are unknown or degenerate.

    Paper: Terzakis and Lourakis, "A consistently fast and globally optimal solution to the
        perspective-n-point problem", 2020.
    """
    turned = _solve_rotation(points, topology)
    if turned is None:
        return np.full(3, np.nan, np.float32)
    yaw = np.arctan2(turned[2, 0], np.hypot(turned[2, 1], turned[2, 2]))
    pitch = np.arctan2(turned[2, 1], turned[2, 2])
    roll = np.arctan2(turned[1, 0], turned[0, 0])
    return np.degrees([yaw, pitch, roll]).astype(np.float32)


def _solve_rotation(points: FloatArray, topology: str) -> Floats | None:
    """Return the rotation [3, 3] of the face model, None if the points are degenerate."""
    image = points[_POINTS[topology]].astype(np.float64)
    image -= image.mean(0)
    # The root mean square of the coordinates is a measure of size that hardly depends on the pose.
    focal = np.sqrt(np.square(image).mean() / np.square(_MODEL[:, :2]).mean()) * _DISTANCE_CM
    if not np.isfinite(focal) or focal <= 0:
        return None
    camera = np.diag([focal, focal, 1.0])
    found, rotation, _ = cv2.solvePnP(_MODEL, image, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    return np.asarray(cv2.Rodrigues(rotation)[0]) if found else None


@dataclass(frozen=True)
class FaceFrame:
    """Position of the canonical face model in an image, without perspective.

    Model coordinates are centimetres: x right, y down, z away from the camera, with the origin in
    the middle of the head.

    Attributes:
        scale: pixels per centimetre.
        rotation: from model axes to image axes, float64 [3, 3].
        origin: position of the model's origin in pixels, float64 [3]; its z is that of the depths
            of the face, with the opposite sign.
    """

    scale: float
    rotation: Floats
    origin: Floats

    def to_image(self, model_cm: npt.ArrayLike) -> Floats:
        """Return points [P, 3] of the model in pixels, with z away from the camera."""
        return self.scale * np.asarray(model_cm, float) @ self.rotation.T + self.origin


def fit_face_frame(face: Face) -> FaceFrame | None:
    """Fit the canonical face model to a face; None if its points are degenerate.

    Paper: Umeyama, "Least-squares estimation of transformation parameters between two point
        patterns", 1991.
    """
    indexes, model = _POINTS[face.topology], _MODEL - _MODEL.mean(0)
    centre = np.zeros(3)
    centre[:2] = face.points[indexes].mean(0)
    if face.depth is None:
        rotation = _solve_rotation(face.points, face.topology)
        if rotation is None:
            return None
        turned = (model @ rotation.T)[:, :2]
        offset = face.points[indexes] - centre[:2]
        scale = float((turned * offset).sum() / np.square(turned).sum())
    else:
        centre[2] = -face.depth[indexes].mean()
        target = np.column_stack([face.points, -face.depth])[indexes] - centre
        if not np.isfinite(target).all():
            return None
        left, values, right = np.linalg.svd(target.T @ model)
        signs = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
        rotation = left * signs @ right
        scale = float((values * signs).sum() / np.square(model).sum())
    if scale <= 0:
        return None
    return FaceFrame(scale, rotation, centre - scale * rotation @ _MODEL.mean(0))


def face_surface(face: Face, frame: FaceFrame) -> Floats:
    """Return the known points [P, 3] of a face's surface in pixels, with z away from the camera.

    Without measured depth, these are points of the face model.
    """
    if face.depth is None:
        return frame.to_image(np.concatenate([_MODEL, _OUTLINE_CM]))
    return np.column_stack([face.points, -face.depth]).astype(np.float64)


def head_turn(poses: FloatArray, reference: FloatArray) -> FloatArray:
    """Return head poses [..., 3] relative to the reference image's pose [3]; 0 where unknown.

    The difference removes most of the person-specific bias of the estimates.
    """
    return np.nan_to_num(poses - reference).astype(np.float32)
