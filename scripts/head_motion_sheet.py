"""Measure and show turned heads and emotions of portraits.

python scripts/head_motion_sheet.py OUTPUT --portraits FOLDER --recogniser MODEL.dat

The portraits are the photos and first frames of videos in the folder, the packaged photo, and
copies of two of them (`--beard`, `--hand`) with a drawn beard and a drawn hand at the face. The
script writes OUTPUT/head_motion.csv and, for each portrait, two sheets: OUTPUT/NAME_poses.png has
the photo and extreme poses, OUTPUT/NAME_emotions.png each emotion at the intensities 0.5 and 1.

Columns: the limits of the pose; the slope of the angles that the tracker finds over the asked ones,
and the mean and the largest difference, in 21 frames of a head that turns by 10 degrees (8 of
pitch, or four fifths of the limit) to both sides, each tracked from five positions until its points
settle, because the tracked pitch depends on where they start; the difference of the other two
angles; the smallest cosine and the largest distance of the embedding at 10 degrees of yaw, pitch
and roll from that of the photo; and the time per frame. `noise` and `noise_distance` are those of
the photo after JPEG compression at quality 50, at three quarters of its size, and 20 % darker;
`other` is the cosine of the most similar other portrait.

The recogniser is dlib's network of 2017 (dlib_face_recognition_resnet_model_v1.dat of the package
face-recognition-models; needs dlib). Faces whose distance is below 0.6 are the same person for it.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from talkinghead import paths
from talkinghead.errors import FaceNotFoundError
from talkinghead.features.faces.detector import FaceDetector, build_detector
from talkinghead.features.faces.head_pose import head_pose
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.reader import read_image
from talkinghead.media.writer import write_image
from talkinghead.predict.source.head.expression.emotions import EMOTIONS, Emotion
from talkinghead.predict.source.head.photo_animation import HeadCue, HeadMotion, PhotoAnimation
from talkinghead.types import Face, FloatArray, UInt8Array

AXES = ("yaw", "pitch", "roll")
MEASURED_DEG = (10.0, 8.0, 10.0)
SWEEP = np.arange(-10, 11) / 10
SHOWN_DEG = (
    *((-15, 0, 0), (15, 0, 0), (0, -10, 0), (0, 10, 0), (0, 0, -15), (0, 0, 15)),
    *((15, -10, 15), (-15, 10, -15), (15, 10, -15), (-15, -10, 15)),
)
# Displacements of the points from which a face is tracked, as fractions of its size, from those in
# the photo. From the points of the frame before, the tracker would find another pitch while the
# head rises than while it sinks.
STARTS = ((0, 0), (0.03, 0), (-0.03, 0), (0, 0.03), (0, -0.03))
NUM_TIMED = 40
# Corners of the eye on the right and on the left of the image, and the base of the nose.
_CHIP_POINTS = (263, 362, 33, 133, 2)
# FaceMesh's points for the drawn beard and hand.
_JAW = (132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361)
_BEARD_TOP = (147, 207, 206, 165, 2, 391, 426, 427, 376)
_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
_CHEEK, _CHIN = 205, 152


class Embedder(Protocol):
    """A face recogniser."""

    def __call__(self, image: UInt8Array, face: Face) -> FloatArray:
        """Return the embedding of a face."""


def dlib_embedder(path: Path) -> Embedder:
    """Return dlib's recogniser, with the landmarks of our detector."""
    import dlib  # type: ignore[import-not-found]

    network = dlib.face_recognition_model_v1(str(path))

    def embed(image: UInt8Array, face: Face) -> FloatArray:
        points = [dlib.point(*np.rint(face.points[i]).astype(int).tolist()) for i in _CHIP_POINTS]
        box = dlib.rectangle(*(round(side) for side in face.box))
        shape = dlib.full_object_detection(box, dlib.points(points))
        chip = dlib.get_face_chip(image, shape, size=150, padding=0.25)
        return np.asarray(network.compute_face_descriptor(chip), np.float32)

    return embed


def cosine(a: FloatArray, b: FloatArray) -> float:
    """Return the cosine of two embeddings."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


class Portrait:
    """One portrait, and the frames of its animation."""

    def __init__(self, name: str, image: UInt8Array, detector: FaceDetector) -> None:
        self.name, self.image, self._detector = name, image, detector
        faces = detector.detect(image)
        if not faces:
            raise FaceNotFoundError(f"{name}: no face was found; leave it out")
        self.face = faces[0]
        self.animation = PhotoAnimation(image, faces[:1], HeadMotion(), detector=detector)
        self.limits_deg = self.animation.limits_deg[0]

    def frame(
        self, pose_deg: tuple[float, float, float] = (0, 0, 0), emotion: Emotion | None = None
    ) -> UInt8Array:
        """Return the photo with another pose and emotion."""
        target = self.animation.target(HeadCue(emotion=emotion, pose_deg=pose_deg))
        return self.animation.render(self.image, 0.0, target)

    def track(self, image: UInt8Array, face: Face | None = None, times: int = 3) -> Face:
        """Return the face in a frame, near that of the frame before."""
        face = face or self.face
        for _ in range(times):
            found = self._detector.track(image, face)
            if found is None:
                raise FaceNotFoundError(f"{self.name}: the tracker lost the face")
            face = found
        return face

    def tracked_pose(self, image: UInt8Array) -> FloatArray:
        """Return the mean pose found in a frame, tracked from near the points of the photo."""
        size = max(self.face.box.width, self.face.box.height)
        starts = [self.face.points + size * np.array(start, np.float32) for start in STARTS]
        faces = [self.track(image, replace(self.face, points=points)) for points in starts]
        return np.asarray(np.mean([head_pose(f.points, f.topology) for f in faces], axis=0))

    def turned(self, axis: int, angle_deg: float) -> tuple[float, float, float]:
        """Return the pose [yaw, pitch, roll] with an angle about one axis only."""
        yaw, pitch, roll = (angle_deg * np.eye(3)[axis]).tolist()
        return yaw, pitch, roll


def measure_pose(portrait: Portrait) -> dict[str, float]:
    """Return slopes and errors of the poses that the tracker finds, frame by frame."""
    row: dict[str, float] = {}
    for axis, name in enumerate(AXES):
        reach = min(MEASURED_DEG[axis], 0.8 * float(portrait.limits_deg[axis]))
        asked = reach * SWEEP
        found = []
        for angle in asked.tolist():
            frame = portrait.frame(portrait.turned(axis, angle))
            found.append(portrait.tracked_pose(frame))
        change = np.stack(found)
        change -= change[asked == 0].mean(0)
        error = np.abs(change - asked[:, None] * np.eye(3)[axis])
        row[f"slope_{name}"] = float(np.polyfit(asked, change[:, axis], 1)[0])
        row[f"error_{name}"] = float(error[:, axis].mean())
        row[f"max_error_{name}"] = float(error[:, axis].max())
        row[f"other_axes_{name}"] = float(np.delete(error, axis, 1).mean())
    return row


def measure_identity(portrait: Portrait, embed: Embedder) -> dict[str, float]:
    """Return cosines and distances of embeddings from that of the photo."""
    still = embed(portrait.image, portrait.track(portrait.image))
    row: dict[str, float] = {}
    distances = []
    for axis, name in enumerate(AXES):
        frames = [portrait.frame(portrait.turned(axis, angle)) for angle in (-10, 10)]
        others = [embed(frame, portrait.track(frame)) for frame in frames]
        row[f"identity_{name}"] = min(cosine(still, other) for other in others)
        distances += [float(np.linalg.norm(still - other)) for other in others]
    row["distance"] = max(distances)
    noisy = [embed(*copy) for copy in _noisy_copies(portrait)]
    row["noise"] = min(cosine(still, other) for other in noisy)
    row["noise_distance"] = max(float(np.linalg.norm(still - other)) for other in noisy)
    return row


def _noisy_copies(portrait: Portrait) -> Iterator[tuple[UInt8Array, Face]]:
    image = portrait.image
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])
    size = image.shape[1::-1]
    small = cv2.resize(image, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    copies = (
        cv2.imdecode(data, cv2.IMREAD_COLOR),
        cv2.resize(small, size, interpolation=cv2.INTER_LINEAR),
        cv2.convertScaleAbs(image, alpha=0.8),
    )
    for copy in copies:
        same = np.asarray(copy, np.uint8)
        yield same, portrait.track(same)


def measure_speed(portrait: Portrait) -> dict[str, float]:
    """Return the time per frame in milliseconds, without and with emotion, lids and gaze."""
    row = {}
    idle = PhotoAnimation(portrait.image, [portrait.face], HeadMotion("idle"))
    idle.prepare()
    angles = np.linspace(-8, 8, NUM_TIMED)
    calls = {
        "pose_ms": lambda a: portrait.frame((a, 0.5 * a, a)),
        "emotion_ms": lambda a: portrait.frame((a, 0.5 * a, a), Emotion("happy")),
        "all_ms": lambda a: idle.render(
            portrait.image, 10 + a, idle.target(HeadCue(emotion=Emotion("happy")))
        ),
    }
    for name, call in calls.items():
        times = []
        for angle in angles.tolist():
            start = time.process_time()
            call(angle)
            times.append(time.process_time() - start)
        row[name] = 1e3 * float(np.median(times))
    return row


def sheet_of(frames: list[tuple[str, UInt8Array]], columns: int, face: Face) -> UInt8Array:
    """Return labelled frames, cropped to the head and shoulders, in rows."""
    side = 360
    reach = 1.25 * max(face.box.width, face.box.height)
    middle = np.array([face.box.x0 + face.box.x1, face.box.y0 + face.box.y1]) / 2
    low = np.floor(middle - reach).astype(int).clip(0)
    high = np.ceil(middle + reach).astype(int)
    tiles = []
    for name, frame in frames:
        part = frame[low[1] : high[1], low[0] : high[0]]
        tile = np.zeros((side, side, 3), np.uint8)
        scale = side / max(part.shape[:2])
        large = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        tile[: large.shape[0], : large.shape[1]] = large[:side, :side]
        cv2.putText(tile, name, (6, side - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[n : n + columns]) for n in range(0, len(tiles), columns)]
    return np.ascontiguousarray(np.vstack(rows))


def draw_beard(image: UInt8Array, face: Face) -> UInt8Array:
    """Return a copy of a portrait with a full beard of drawn strokes."""
    rng = np.random.default_rng(0)
    points, size = face.points, face.box.width
    jaw = points[list(_JAW)] + np.array([0, 0.04 * size]) * (np.arange(len(_JAW)) > 1)[:, None]
    outline = np.concatenate([points[list(_BEARD_TOP)], jaw[::-1]])
    inside = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.rint(outline).astype(np.int32)], 1)
    cv2.fillPoly(inside, [np.rint(points[list(_LIPS)]).astype(np.int32)], 0)
    starts = np.argwhere(inside > 0)[:, ::-1]
    count = min(len(starts), 4000)
    fine = 4
    layer = cv2.resize(image, None, fx=fine, fy=fine, interpolation=cv2.INTER_CUBIC)
    middle = points[1, 0]
    for start in rng.permutation(starts)[:count]:
        aside = (start[0] - middle) / size + rng.normal(0, 0.25)
        end = start + size * rng.uniform(0.02, 0.05) * np.array([0.5 * aside, 1])
        shade = float(rng.normal(48, 16))
        colour = tuple(float(np.clip(shade * c, 0, 255)) for c in (1.0, 0.85, 0.7))
        first, last = (np.rint(fine * at).astype(int).tolist() for at in (start, end))
        cv2.line(layer, first, last, colour, max(1, round(fine * size / 200)), cv2.LINE_AA)
    drawn = cv2.resize(layer, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(drawn, np.uint8)


def draw_hand(image: UInt8Array, face: Face) -> UInt8Array:
    """Return a copy of a portrait with a drawn hand that supports the cheek."""
    points, size = face.points.astype(float), face.box.width
    fine = 4
    cheek, chin = points[_CHEEK], points[_CHIN]
    palm = chin + size * np.array([-0.42, 0.28])
    patch = image[int(cheek[1]) - 2 : int(cheek[1]) + 3, int(cheek[0]) - 2 : int(cheek[0]) + 3]
    skin = patch.reshape(-1, 3).mean(0)
    height, width = image.shape[:2]
    result = cv2.resize(image, None, fx=fine, fy=fine, interpolation=cv2.INTER_CUBIC)
    result = result.astype(np.float32)
    parts = [(palm + size * np.array([-0.1, 0.9]), palm, 0.17), (palm, palm, 0.23)]
    for number, aside in enumerate((-0.26, -0.17, -0.08, 0.01)):
        base = palm + size * np.array([aside + 0.13, -0.08])
        tip = cheek + size * np.array([aside, -0.12 + 0.05 * abs(number - 1)])
        parts.append((base, tip, 0.055))
    for start, end, radius in parts:
        shape = np.zeros((fine * height, fine * width), np.uint8)
        first, last = (np.rint(fine * at).astype(int).tolist() for at in (start, end))
        cv2.line(shape, first, last, 1, max(1, round(2 * fine * radius * size)), cv2.LINE_AA)
        depth = cv2.distanceTransform(shape, cv2.DIST_L2, 5) / (fine * radius * size)
        # A rounded limb is darker towards its edge.
        shade = 0.62 + 0.4 * np.sqrt(np.clip(depth, 0, 1))
        limb = np.clip(shade[..., None] * skin, 0, 255)
        result = np.where(shape[..., None] > 0, limb, result)
    drawn = cv2.resize(result.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.rint(np.asarray(drawn)).clip(0, 255).astype(np.uint8)


def read_portraits(args: argparse.Namespace, detector: FaceDetector) -> Iterator[Portrait]:
    """Yield the portraits."""
    files = sorted(args.portraits.iterdir()) if args.portraits else []
    for file in (paths.demo_face(), *files):
        yield Portrait(file.stem, read_image(file), detector)
    for name, file, draw in (("beard", args.beard, draw_beard), ("hand", args.hand, draw_hand)):
        image = read_image(file)
        yield Portrait(name, draw(image, detector.detect(image)[0]), detector)


def write_sheets(folder: Path, portrait: Portrait) -> None:
    """Write the sheets of a portrait."""
    poses = [("photo", portrait.image)]
    poses += [(", ".join(map(str, pose)), portrait.frame(pose)) for pose in SHOWN_DEG]
    emotions = [
        (f"{name} {intensity}", portrait.frame(emotion=Emotion(name, intensity)))
        for name in EMOTIONS
        if name != "neutral"
        for intensity in (0.5, 1.0)
    ]
    for name, frames in (("poses", poses), ("emotions", emotions)):
        sheet = sheet_of(frames, 4, portrait.face)
        write_image(folder / f"{portrait.name}_{name}.png", sheet)


def main() -> None:
    """Write the table and the sheets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="output folder")
    parser.add_argument("--portraits", type=Path, help="folder with photos or videos of faces")
    parser.add_argument("--beard", type=Path, default=paths.demo_face(), help="portrait to copy")
    parser.add_argument("--hand", type=Path, default=paths.demo_face(), help="portrait to copy")
    parser.add_argument("--recogniser", type=Path, help="dlib's network")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    embed = dlib_embedder(args.recogniser) if args.recogniser else None
    rows: list[dict[str, Any]] = []
    stills = []
    for portrait in read_portraits(args, build_detector()):
        limits = zip(AXES, portrait.limits_deg.tolist(), strict=True)
        row: dict[str, Any] = {"portrait": portrait.name, "face_px": portrait.face.box.width}
        row.update({f"limit_{name}": limit for name, limit in limits}, **measure_pose(portrait))
        if embed is not None:
            stills.append(embed(portrait.image, portrait.face))
            row.update(measure_identity(portrait, embed))
        row.update(measure_speed(portrait))
        write_sheets(args.output, portrait)
        rows.append(row)
        print({k: v if isinstance(v, str) else round(v, 3) for k, v in row.items()}, flush=True)
    for number, still in enumerate(stills):
        others = [other for index, other in enumerate(stills) if index != number]
        rows[number]["other"] = max(
            (cosine(still, other) for other in others), default=float("nan")
        )
    with (
        atomic_path(args.output / "head_motion.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
