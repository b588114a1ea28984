"""Anchors, output decoding and non-maximum suppression of the face detector BlazeFace.

The network is run by `litert_detector`.

Paper: Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019,
arXiv:1907.05047.
"""

from __future__ import annotations

import numpy as np

from talkinghead.types import FloatArray

# Columns of a decoded row: x0, y0, x1, y1, then (x, y) of right eye, left eye, nose, mouth, right
# ear and left ear, then the score.
NUM_KEYPOINTS = 6
SCORE = 4 + 2 * NUM_KEYPOINTS


def make_anchors(grids: list[tuple[int, int]]) -> FloatArray:
    """Return the anchor centres float32 [num_anchors, 2]: (x, y) as fractions of the input.

    `grids` are (cells along a side, anchors per cell) of each feature map. The anchors are
    in the order of the network's output rows.
    """
    levels = []
    for cells, repeats in grids:
        centres = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(centres, centres)
        levels.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), repeats, axis=0))
    return np.concatenate(levels).astype(np.float32)


def decode(
    regressors: FloatArray, logits: FloatArray, anchors: FloatArray, size: int, threshold: float
) -> FloatArray:
    """Decode the network's output to rows [num_kept, 17] in input pixels.

    Args:
        regressors: float32 [num_anchors, 16]: centre, width and height, 6 key points, in input
            pixels from the anchor.
        logits: float32 [num_anchors].
        anchors: float32 [num_anchors, 2], from `make_anchors`.
        size: side of the input in pixels.
        threshold: minimum score.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    keep = scores >= threshold
    raw, centre = regressors[keep], anchors[keep] * size
    middle, half = raw[:, :2] + centre, raw[:, 2:4] / 2
    keypoints = raw[:, 4:] + np.tile(centre, NUM_KEYPOINTS)
    return np.concatenate([middle - half, middle + half, keypoints, scores[keep, None]], axis=1)


def overlap(box: FloatArray, boxes: FloatArray) -> FloatArray:
    """Return the intersection over union [num_boxes] of a box [4] with boxes [num_boxes, 4+]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:4], boxes[:, 2:4])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1) + np.prod(box[2:4] - box[:2])
    return shared / np.maximum(areas - shared, 1e-9)


def suppress(rows: FloatArray, threshold: float = 0.3) -> FloatArray:
    """Merge the overlapping rows of each face into their score-weighted mean.

    The mean is steadier over time than the row with the highest score.

    Rows [num_rows, 17] that overlap the best row by more than `threshold` (IoU) are of the same
    face. The merged rows [num_faces, 17] are sorted by score, which is the highest score of the
    face.
    """
    merged = []
    rows = rows[np.argsort(-rows[:, SCORE], kind="stable")]
    while len(rows):
        same = overlap(rows[0], rows) > threshold
        same[0] = True
        face = np.average(rows[same], axis=0, weights=rows[same, SCORE])
        face[SCORE] = rows[0, SCORE]
        merged.append(face)
        rows = rows[~same]
    return np.array(merged, dtype=np.float32).reshape(-1, SCORE + 1)
