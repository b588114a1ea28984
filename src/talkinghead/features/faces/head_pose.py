"""How a head is turned, from points that speech does not move.

Angles are degrees, (yaw, pitch, roll): positive where the nose points to the right of the picture,
where it points down, and where the head leans clockwise.

Shape suffixes: P points.
"""

from __future__ import annotations

import cv2
import numpy as np

from talkinghead.types import FloatArray

_FACE_CM = {
    # MediaPipe's canonical face model (geometry_pipeline_metadata_landmarks.pbtxt, Apache-2.0):
    # eye corners, the nose's bridge, its base and its tip. x to the right of the picture, y down,
    # z away from the camera.
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
"""What a mirror does to the angles."""


def head_pose(points: FloatArray, topology: str) -> FloatArray:
    """The head's angles to the line of sight.

    How long the camera's lens was is not known: it is taken to be a metre away.

    Args:
        points: float [num_points, 2], source pixels; NaN for unknown.
        topology: "mesh468" or "ibug68".

    Returns:
        float32 [3], degrees (yaw, pitch, roll); NaN where the points are unknown or no face's.

    Paper: Terzakis and Lourakis, "A consistently fast and globally optimal solution to the
        perspective-n-point problem", 2020.
    """
    unknown = np.full(3, np.nan, np.float32)
    image = points[_POINTS[topology]].astype(np.float64)
    image -= image.mean(0)
    # The root of the mean square is a size that no turn of the head makes much smaller.
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
    """How far heads are turned from the reference's.

    The difference is nearly free of what a person's own proportions do to the angles.

    Args:
        poses: float [..., 3], from `head_pose`.
        reference: float [3], the reference picture's.

    Returns:
        float32 [..., 3], degrees; 0 where it is unknown.
    """
    return np.nan_to_num(poses - reference).astype(np.float32)
