"""Similarity of faces by the texture of their upper halves.

The descriptor needs no trained weights: it tells apart the few people of a video or a photo, given
an image of each in similar light. It is not meant for the recognition of one person among many.

Paper: Ahonen, Hadid and Pietikäinen, "Face description with local binary patterns", 2006.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from talkinghead.features.faces.alignment import estimate_transform, warp_face
from talkinghead.media.decoding.video_image import ImageLike
from talkinghead.types import AVSpec, Face, FloatArray, UInt8Array

# Side of the face in pixels, part of it that speech hardly moves, and cells of its histograms.
_SIZE, _ROWS, _COLUMNS, _GRID = 96, slice(0, 59), slice(14, 81), (6, 8)
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
# Measured: exceeded by 99 % of the pairs of images of one person in different clips, and by 11 % of
# those of two persons.
_MIN_SIMILARITY = 0.36


def _uniform_patterns() -> UInt8Array:
    """Return the bin of each of the 256 patterns: those with more than two changes share one."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    is_uniform = (bits != np.roll(bits, -1, axis=1)).sum(axis=1) <= 2
    bins = np.full(256, is_uniform.sum(), np.uint8)
    bins[is_uniform] = np.arange(is_uniform.sum())
    return bins


_BINS = _uniform_patterns()


def describe_face(image: ImageLike, face: Face) -> FloatArray:
    """Return the descriptor of a face in an image: float32 [D], of length 1."""
    spec = AVSpec()
    transform = estimate_transform(face.points, face.topology, spec)
    crop = warp_face(image, transform, spec.face_size)
    crop = np.asarray(cv2.resize(crop, (_SIZE, _SIZE), interpolation=cv2.INTER_AREA), np.uint8)
    grey = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY))
    centre = grey[1:-1, 1:-1]
    codes = np.zeros(centre.shape, np.uint8)
    for bit, (row, column) in enumerate(_NEIGHBOURS):
        shifted = grey[1 + row : _SIZE - 1 + row, 1 + column : _SIZE - 1 + column]
        codes |= (shifted >= centre).astype(np.uint8) << bit
    bins = _BINS[codes][_ROWS, _COLUMNS]
    cells = [
        cell.ravel()
        for row in np.array_split(bins, _GRID[0], axis=0)
        for cell in np.array_split(row, _GRID[1], axis=1)
    ]
    num_bins = int(_BINS.max()) + 1
    histograms = np.stack([np.bincount(cell, minlength=num_bins) / cell.size for cell in cells])
    # Square roots make the scalar product a measure of the overlap of two histograms. The mean over
    # the cells depends on the camera more than on the face.
    roots = np.sqrt(histograms)
    described = (roots - roots.mean(axis=0)).ravel()
    return np.asarray(described / max(float(np.linalg.norm(described)), 1e-6), dtype=np.float32)


def most_similar(
    person: FloatArray, faces: Sequence[FloatArray], others: Sequence[FloatArray] = ()
) -> int | None:
    """Return the index of the face of a person, None if the person is not among the faces.

    Args:
        person: descriptor of the person.
        faces: descriptors of the faces.
        others: descriptors of other persons, whose faces are left to them.
    """
    best, index = _MIN_SIMILARITY, None
    for number, face in enumerate(faces):
        similarity = float(person @ face)
        if similarity > best and all(similarity >= float(other @ face) for other in others):
            best, index = similarity, number
    return index
