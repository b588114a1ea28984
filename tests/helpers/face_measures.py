"""Measures of an expression on FaceMesh's points."""

from __future__ import annotations

import numpy as np

# FaceMesh's points, in pairs on the left and on the right of the image.
_EYE_CORNERS = ((33, 133), (263, 362))
_INNER_BROWS, _OUTER_BROWS = ((107, 55), (336, 285)), ((105, 53), (334, 283))
_LIDS = ((159, 145), (386, 374))
_MOUTH_CORNERS, _LIPS = (61, 291), (13, 14)


def measure_face(points):
    """Return measures of points [468, 2 or 3], in distances of the outer corners of the eyes.

    Heights are positive above the reference: brows above the eyes, corners above the lower lip.
    """
    points = np.asarray(points, float)[:, :2]
    across = points[263] - points[33]
    size = np.linalg.norm(across)
    axes = np.stack([across, [-across[1], across[0]]]) / size**2
    x, y = ((points - points[33]) @ axes.T).T
    eyes = [y[list(corners)].mean() for corners in _EYE_CORNERS]

    def above_eyes(brows):
        return np.mean([eye - y[list(brow)].mean() for eye, brow in zip(eyes, brows, strict=True)])

    lids = [y[lower] - y[upper] for upper, lower in _LIDS]
    corners = list(_MOUTH_CORNERS)
    return {
        "inner_brow": above_eyes(_INNER_BROWS),
        "outer_brow": above_eyes(_OUTER_BROWS),
        "brow_distance": x[336] - x[107],
        "lid_gap": np.mean(lids),
        "corner_height": y[list(_LIPS)].mean() - y[corners].mean(),
        "mouth_width": np.ptp(x[corners]),
        "lip_gap": y[_LIPS[1]] - y[_LIPS[0]],
        "upper_lip": y[0] - y[2],
    }
