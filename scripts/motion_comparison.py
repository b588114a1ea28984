"""Make videos for a blind comparison of the head motions of photos.

python scripts/motion_comparison.py OUTPUT --portraits FOLDER --seed 1

The packaged photo and each portrait of the folder speak with `motion=none`, `idle` and `speech`.
The script writes a video and a sheet of each, under numbers in an order drawn by the seed. A sheet
has frames at equal intervals, the path of the nose (red) and of an outer corner of the eye (blue),
and over time the horizontal (solid) and vertical (thin) position of the nose, the opening of the
eyes (green) and the loudness of the speech (grey). Rate the sheets before you read OUTPUT/key.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from talkinghead import paths
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.reader import read_audio, read_image
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AudioClip, Face, FloatArray, UInt8Array

Floats = npt.NDArray[np.floating]
MOTIONS = ("none", "idle", "speech")
NUM_SHOWN, NUM_COLUMNS, TILE_PX = 12, 6, 220
PLOT_PX, PATH_REACH = 330, 0.15
RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 140, 30), (30, 30, 200), (190, 190, 190)
# FaceMesh's tip of the nose, outer corner of an eye, and upper and lower lid of that eye.
NOSE, CORNER, UPPER, LOWER = 1, 33, 159, 145


def crop(image: UInt8Array, face: Face) -> UInt8Array:
    """Return the head as a square tile."""
    reach = 0.95 * max(face.box.width, face.box.height)
    middle = np.array([face.box.x0 + face.box.x1, face.box.y0 + face.box.y1]) / 2
    (x0, y0), (x1, y1) = (np.rint(middle + s * reach).astype(int).clip(0) for s in (-1, 1))
    tile = cv2.resize(image[y0:y1, x0:x1], (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(tile, np.uint8)


def plot_of(points: FloatArray, loudness: FloatArray) -> UInt8Array:
    """Return the paths and positions of points [T, 478, 2], in parts of the face's width."""
    width = NUM_COLUMNS * TILE_PX - PLOT_PX
    path = np.full((PLOT_PX, PLOT_PX, 3), 245, np.uint8)
    series = np.full((PLOT_PX, width, 3), 255, np.uint8)
    scale = PLOT_PX / 2 / PATH_REACH

    def draw(canvas: UInt8Array, x: Floats, y: Floats, colour: tuple[int, ...]) -> None:
        line = np.rint(np.column_stack([x, y])).astype(np.int32)
        cv2.polylines(canvas, [line], isClosed=False, color=colour, lineType=cv2.LINE_AA)

    for index, colour in ((NOSE, RED), (CORNER, BLUE)):
        x, y = (PLOT_PX / 2 + scale * (points[:, index] - points[0, index])).T
        draw(path, x, y, colour)
    times = np.linspace(0, width - 1, len(points))
    draw(series, times, PLOT_PX - 1 - 80 * loudness / max(float(loudness.max()), 1e-6), GREY)
    x, y = (points[:, NOSE] - points[0, NOSE]).T
    draw(series, times, 90 + scale / 2 * x, RED)
    draw(series, times, 190 + scale / 2 * y, BLUE)
    lids = points[:, LOWER, 1] - points[:, UPPER, 1]
    draw(series, times, 50 - 40 * lids / lids.max(), GREEN)
    return np.hstack([path, series])


class Comparison:
    """Writer of a sheet and a video of each portrait with each motion."""

    def __init__(self, folder: Path, audio: Path, seconds: float, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.predictor = LipSyncPredictor.from_checkpoint()
        rate = self.predictor.spec.sample_rate
        self.speech = AudioClip(read_audio(audio, rate).samples[: round(seconds * rate)], rate)

    def render(self, image: UInt8Array, motion: str, name: str) -> None:
        """Write the video and the sheet of one portrait with one motion."""
        detector = self.predictor.detector
        face = detector.detect(image)[0]
        options = SourceOptions(motion=motion, seed=self.seed)
        with self.predictor.predict(image, self.speech, options) as prediction:
            frames = [frame for frame, _ in prediction]
        self._write_video(self.folder / f"{name}.mp4", frames)
        points, last = [], face
        for frame in frames:
            last = detector.track(frame, last) or last
            points.append(last.points / face.box.width)
        shown = np.linspace(0, len(frames) - 1, NUM_SHOWN).round().astype(int)
        tiles = [crop(frames[index], face) for index in shown]
        rows = [np.hstack(tiles[i : i + NUM_COLUMNS]) for i in range(0, NUM_SHOWN, NUM_COLUMNS)]
        samples = np.abs(self.speech.samples)
        loudness = [float(part.mean()) for part in np.array_split(samples, len(frames))]
        plot = plot_of(np.stack(points), np.array(loudness, np.float32))
        write_image(self.folder / f"{name}.png", np.vstack([*rows, plot]))

    def _write_video(self, path: Path, frames: list[UInt8Array]) -> None:
        height, width = frames[0].shape[:2]
        rate, fps = self.predictor.spec.sample_rate, self.predictor.spec.fps
        with VideoWriter(path, width, height, fps, rate) as writer:
            writer.write_audio(self.speech.samples)
            for frame in frames:
                writer.write(frame)


def read_small(file: Path, size: int) -> UInt8Array:
    """Return a photo with a height of at most `size` pixels, with even sides."""
    image = read_image(file)
    scale = min(1.0, size / image.shape[0])
    height, width = (2 * round(scale * side / 2) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def main() -> None:
    """Write the comparison and its key."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="output folder")
    parser.add_argument("--portraits", type=Path, help="folder with photos of faces")
    parser.add_argument("--audio", type=Path, default=paths.DEMO_SPEECH, help="speech file")
    parser.add_argument("--seconds", type=float, default=6.0, help="duration of the speech")
    parser.add_argument("--size", type=int, default=384, help="height of the photos, in pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order and the motion")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    comparison = Comparison(args.output, args.audio, args.seconds, args.seed)
    files = (paths.demo_face(), *(sorted(args.portraits.iterdir()) if args.portraits else []))
    clips = [(file, motion) for file in files for motion in MOTIONS]
    order = np.random.default_rng(args.seed).permutation(len(clips))
    key = []
    for number, index in enumerate(order):
        file, motion = clips[index]
        comparison.render(read_small(file, args.size), motion, f"{number:02d}")
        key.append([f"{number:02d}", file.stem, motion])
    with (
        atomic_path(args.output / "key.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as table,
    ):
        csv.writer(table).writerows([["clip", "portrait", "motion"], *key])


if __name__ == "__main__":
    main()
