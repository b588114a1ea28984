"""Estimation of the head pose from points that do not move with speech.

Angles are (yaw, pitch, roll) in degrees. Yaw is positive if the nose points to the right of the
image, pitch if the nose points down, and roll if the head leans clockwise.
"""

from __future__ import annotations

import cv2
import numpy as np

from talkinghead.types import FloatArray

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
    unknown = np.full(3, np.nan, np.float32)
    image = points[_POINTS[topology]].astype(np.float64)
    image -= image.mean(0)
    # The root mean square of the coordinates is a measure of size that hardly depends on the pose.
    focal = np.sqrt(np.square(image).mean() / np.square(_MODEL[:, :2]).mean()) * _DISTANCE_CM
    if not np.isfinite(focal) or focal <= 0:
        return unknown
    camera = np.diag([focal, focal, 1.0])
    found, rotation, _ = cv2.solvePnP(_MODEL, image, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if not found:
        return unknown
    turned = cv2.Rodrigues(rotation)[0]
    yaw = np.arctan2(turned[2, 0], np.hypot(turned[2, 1], turned[2, 2]))
    pitch = np.arctan2(turned[2, 1], turned[2, 2])
    roll = np.arctan2(turned[1, 0], turned[0, 0])
    return np.degrees([yaw, pitch, roll]).astype(np.float32)


def head_turn(poses: FloatArray, reference: FloatArray) -> FloatArray:
    """Return head poses [..., 3] relative to the reference image's pose [3]; 0 where unknown.

    The difference removes most of the person-specific bias of the estimates.
    """
    return np.nan_to_num(poses - reference).astype(np.float32)
