"""Render twelve difficult inputs and show the results on one sheet.

python scripts/difficult_inputs_sheet.py OUTPUT --grid videos --glasses a.jpg --painting b.jpg

The inputs (OUTPUT/inputs) are made from scikit-image's astronaut, from speakers of GRID (a folder
of clips per speaker) and from two portraits, and are rendered with the start of the demo speech.
The script writes OUTPUT/frames (a frame in the middle of a word and its neighbours),
OUTPUT/sheet.jpg (the middle frame of every input, whole and cropped to the face) and
OUTPUT/difficult_inputs.csv, and prints the same table. Inputs whose media are not given are
skipped.
"""

from __future__ import annotations

import argparse
import csv
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps
from scipy.interpolate import RBFInterpolator

from talkinghead import paths
from talkinghead.errors import TalkingHeadError
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.reader import read_audio, read_image, read_video
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.predict.audio.lip_priors.automatic_prior import best_lip_prior
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AudioClip, Face, FloatArray, UInt8Array

FPS = 25
DURATION_S = 3
SHOWN_FRAME = 45
"""Number of the frame on the sheet, which is in the middle of a word of the demo speech."""
CUT_FRAME = 43
ABSENT_FRAMES = (13, 38)
"""First and last frame without a person."""
TURN_DEG = 45
TURN_FRAMES = (26, 42, 52, 70)
"""Numbers of the frames in which the head starts to turn, is turned, starts to turn back, and is
back."""
DEPTHS_CM = {
    # Depths in MediaPipe's canonical face model (Apache-2.0): eye corners, bridge, base and tip of
    # the nose, lips, chin, forehead and sides of the face.
    **{33: 3.17, 133: 3.76, 362: 3.76, 263: 3.17, 168: 5.24, 98: 5.24, 327: 5.24, 4: 7.59},
    **{0: 5.98, 61: 4.28, 291: 4.28, 152: 4.26, 10: 4.48, 234: -2.44, 454: -2.44},
}
HALF_WIDTH_CM = 7.66
SMALL_FACE_PX = 160
NUM_COLUMNS, TILE_PX = 6, 240


@dataclass(frozen=True)
class Media:
    """Media from which the inputs are made, and the output folder for the inputs."""

    folder: Path
    detector: FaceDetector
    photo: UInt8Array
    grid: Path | None
    glasses: Path | None
    painting: Path | None

    def portrait(self, name: str) -> Path:
        """Return the path of the portrait given by the option `name`."""
        path: Path | None = getattr(self, name)
        if path is None:
            raise FileNotFoundError(f"a portrait: give --{name}")
        return path

    def speaker(self, name: str) -> list[UInt8Array]:
        """Return the frames of a GRID speaker's first clip, uint8 [288, 360, 3]."""
        return [frame.image for frame in islice(read_video(self.clip(name)), DURATION_S * FPS)]

    def clip(self, name: str) -> Path:
        """Return the path of a GRID speaker's first clip."""
        if self.grid is None or not (clips := sorted((self.grid / name).glob("*.m*"))):
            raise FileNotFoundError(f"clips of GRID's {name}: give --grid")
        return clips[0]

    def write(self, name: str, images: list[UInt8Array]) -> Path:
        """Write a nearly lossless video."""
        path = self.folder / f"{name}.mp4"
        height, width = images[0].shape[:2]
        with VideoWriter(path, width, height, Fraction(FPS), None, crf=8) as writer:
            for image in images:
                writer.write(np.ascontiguousarray(image))
        return path


def rotated(media: Media) -> Path:
    """Make a portrait video with rotated frames and a display matrix that undoes the rotation."""
    upright = [image[:, 72:288] for image in media.speaker("s3")]
    path = media.write("rotated", [np.rot90(image) for image in upright])
    data = bytearray(path.read_bytes())
    # The track header contains type, version, flags, times and IDs before the matrix.
    start = data.index(b"tkhd") + 4 + 40
    quarter = 1 << 16
    data[start : start + 36] = struct.pack(">9i", 0, quarter, 0, -quarter, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def alpha(media: Media) -> Path:
    """Make an image with an alpha channel that shows head and shoulders with a soft edge."""
    height, width = media.photo.shape[:2]
    kept = np.zeros((height, width), np.uint8)
    cv2.ellipse(kept, (225, 130), (105, 140), 0, 0, 360, 255, -1)
    cv2.ellipse(kept, (225, height), (220, 270), 0, 0, 360, 255, -1)
    path = media.folder / "alpha.png"
    Image.fromarray(np.dstack([media.photo, cv2.GaussianBlur(kept, (0, 0), 5)])).save(path)
    return path


def four_k(media: Media) -> Path:
    """Make an upscaled photo of 3840 x 2160 pixels."""
    path = media.folder / "four_k.png"
    large = cv2.resize(media.photo[:288], (3840, 2160), interpolation=cv2.INTER_CUBIC)
    write_image(path, large.astype(np.uint8))
    return path


def small(media: Media) -> Path:
    """Make a video of 1920 x 1080 pixels with a face of 160 x 160 in front of a plain wall."""
    images = media.speaker("s23")
    box = media.detector.detect(images[0])[0].box
    scale = SMALL_FACE_PX / max(box.width, box.height)
    wall = np.full((1080, 1920, 3), np.median(images[0][:40], axis=(0, 1)), np.float32)

    def placed(image: UInt8Array) -> UInt8Array:
        person = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        height, width = person.shape[:2]
        inside = np.zeros((height + 100, width), np.float32)
        inside[30:, 40:-40] = 1
        weight = cv2.GaussianBlur(inside, (0, 0), 12)[:height, :, None]
        composed = wall.copy()
        corner = composed[-height:, 1200 : 1200 + width]
        corner += weight * (person - corner)
        return np.rint(composed).astype(np.uint8)

    return media.write("small", [placed(image) for image in images])


def two(media: Media) -> Path:
    """Make a video of two people, of whom the person on the right speaks."""
    pairs = zip(media.speaker("s20"), media.speaker("s3"), strict=True)
    return media.write("two", [np.hstack(pair) for pair in pairs])


def absent(media: Media) -> Path:
    """Make a video of a person who leaves the frame and returns a second later."""

    def shifted(image: UInt8Array, number: int) -> UInt8Array:
        distance = max(ABSENT_FRAMES[0] - number, number - ABSENT_FRAMES[1], 0)
        away = image.shape[1] * (1 - distance / 5 if distance < 5 else 0.0)
        shift = np.array([[1, 0, away], [0, 1, 0]])
        return cv2.warpAffine(  # type: ignore[return-value]
            image, shift, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE
        )

    return media.write("absent", [shifted(i, n) for n, i in enumerate(media.speaker("s20"))])


def cut(media: Media) -> Path:
    """Make a video with a cut from one person to another."""
    return media.write("cut", media.speaker("s32")[:CUT_FRAME] + media.speaker("s23")[CUT_FRAME:])


def turned(media: Media) -> Path:
    """Make a video of a head that turns by 45 degrees and back, from a photo and a depth map."""
    middle, depth, weight = relief(media.photo, media.detector.detect(media.photo)[0])
    angles = np.radians(
        np.interp(np.arange(DURATION_S * FPS), TURN_FRAMES, (0, TURN_DEG, TURN_DEG, 0))
    )
    columns = np.arange(media.photo.shape[1], dtype=np.float32)
    rows = np.arange(media.photo.shape[0], dtype=np.float32)
    down = np.repeat(rows[:, None], len(columns), axis=1)
    images = []
    for angle in angles:
        aside = (columns - middle) * (np.cos(angle) - 1) + depth * np.sin(angle)
        # A part is hidden if a nearer part has moved in front of it.
        places = np.maximum.accumulate(columns + weight * aside, axis=1) + 1e-4 * columns
        origin = np.stack([np.interp(columns, row, columns) for row in places])
        image = cv2.remap(media.photo, origin.astype(np.float32), down, cv2.INTER_CUBIC)
        images.append(image.astype(np.uint8))
    return media.write("turned", images)


def relief(image: UInt8Array, face: Face) -> tuple[float, FloatArray, FloatArray]:
    """Return the middle column of a face, the depth map [H, W] in pixels and the head mask."""
    half = face.box.width / 2
    middle = np.array([face.box.x0 + face.box.x1, face.box.y0 + face.box.y1]) / 2
    around = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    rim = middle + half * np.stack([1.6 * np.cos(around), 2.1 * np.sin(around)], -1)
    known = np.vstack([face.points[list(DEPTHS_CM)], rim])
    depths = np.array([*DEPTHS_CM.values(), *[-8.0] * len(rim)]) * half / HALF_WIDTH_CM
    height, width = image.shape[:2]
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    near = RBFInterpolator(known, depths)(places.reshape(-1, 2)).reshape(height, width)
    away = np.linalg.norm((places - middle) / (half * np.array([1.6, 2.1])), axis=-1)
    return float(middle[0]), near.clip(depths.min()), (2 - 1.2 * away).clip(0, 1)


def grey(media: Media) -> Path:
    """Write the photo with a single channel."""
    path = media.folder / "grey.png"
    Image.fromarray(media.photo).convert("L").save(path)
    return path


CASES: dict[str, Callable[[Media], Path]] = {
    "rotated": rotated,
    "alpha": alpha,
    "four_k": four_k,
    "small": small,
    "two": two,
    "absent": absent,
    "cut": cut,
    "turned": turned,
    "beard": lambda media: media.clip("s26"),
    "glasses": lambda media: media.portrait("glasses"),
    "grey": grey,
    "painting": lambda media: media.portrait("painting"),
}
FACE_INDEX = {"two": 1}
"""Index of the speaking face, counted from the left."""


class SheetRenderer:
    """A renderer of inputs that writes the frames around `SHOWN_FRAME`."""

    def __init__(self, folder: Path, checkpoint: str, around: int, articulation: float) -> None:
        self.folder = folder
        self.predictor = LipSyncPredictor.from_checkpoint(
            checkpoint, articulation=articulation, lip_prior=best_lip_prior()
        )
        rate = self.predictor.spec.sample_rate
        samples = read_audio(paths.DEMO_SPEECH, rate).samples
        self._speech = AudioClip(samples[: DURATION_S * rate], rate)
        self._kept = range(SHOWN_FRAME - around, SHOWN_FRAME + around + 1)

    def render(self, name: str, face: Path) -> tuple[dict[str, Any], UInt8Array]:
        """Render an input; return the table row and the tile uint8 [2 * side, side, 3]."""
        index = FACE_INDEX.get(name, 0)
        select = "index" if name in FACE_INDEX else "largest"
        options = SourceOptions(face_select=select, face_index=index, motion="none")
        started_s = time.perf_counter()
        with self.predictor.predict(face, self._speech, options) as frames:
            kept = {n: image for n, (image, _) in enumerate(frames) if n in self._kept}
        seconds = time.perf_counter() - started_s
        for number, image in kept.items():
            write_image(self.folder / f"{name}_{number}.png", image)
        shown = kept[SHOWN_FRAME]
        row = {
            "name": name,
            "width": shown.shape[1],
            "height": shown.shape[0],
            "num_frames": frames.num_frames,
            "num_frames_without_face": frames.num_frames_without_face,
            "seconds": round(seconds, 1),
        }
        tiles = (Image.fromarray(image) for image in (shown, self._face(shown, index)))
        return row, np.vstack([ImageOps.pad(tile, (TILE_PX, TILE_PX)) for tile in tiles])

    def _face(self, image: UInt8Array, index: int) -> UInt8Array:
        """Return the image cropped to the face."""
        faces = self.predictor.detector.detect(image)
        box = sorted(faces, key=lambda face: face.box.x0)[index].box
        middle = np.array([box.x0 + box.x1, box.y0 + box.y1]) / 2
        reach = 0.62 * max(box.width, box.height)
        (x0, y0), (x1, y1) = (np.rint(middle + s * reach).astype(int).clip(0) for s in (-1, 1))
        return image[y0:y1, x0:x1]


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the results as CSV and print them as a Markdown table."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(map(str, row.values()))} |")


def main() -> None:
    """Write the inputs, the frames, the sheet and the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="output folder")
    parser.add_argument("--grid", type=Path, help="folder of GRID with a folder per speaker")
    parser.add_argument("--glasses", type=Path, help="a portrait of a person with glasses")
    parser.add_argument("--painting", type=Path, help="a painted portrait")
    parser.add_argument("--checkpoint", default="default", help="the generator's file")
    parser.add_argument("--around", type=int, default=2, help="neighbouring frames to write")
    parser.add_argument("--articulation", type=float, default=2.0, help="scale of the lip motion")
    args = parser.parse_args()
    inputs, shown = args.output / "inputs", args.output / "frames"
    inputs.mkdir(parents=True, exist_ok=True)
    try:
        renderer = SheetRenderer(shown, args.checkpoint, args.around, args.articulation)
        detector, photo = renderer.predictor.detector, read_image(paths.demo_face())
        media = Media(inputs, detector, photo, args.grid, args.glasses, args.painting)
        results = []
        for name, make in CASES.items():
            try:
                results.append(renderer.render(name, make(media)))
            except FileNotFoundError as error:
                print(f"{name} is left out because it needs {error}")
        rows, tiles = zip(*results, strict=True)
        tiles += (np.zeros_like(tiles[0]),) * (-len(tiles) % NUM_COLUMNS)
        lines = [np.hstack(tiles[n : n + NUM_COLUMNS]) for n in range(0, len(tiles), NUM_COLUMNS)]
        write_image(args.output / "sheet.jpg", np.vstack(lines))
        write_table(args.output / "difficult_inputs.csv", rows)
    except TalkingHeadError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
