"""Strangers' faces with strangers' voices: how far their mouths move, and what they look like.

python scripts/probe_sheet.py probes --faces photos/ video.mp4 --voices voices/ --revoice videos/

Every face (a photo, or a video's first frame) says every voice. With `--revoice` a video's first
frame says the video's own sound, and its mouth is compared with the real one over time. Writes
OUTPUT/probes.csv and OUTPUT/sheet.jpg, a row for each pair (and the real video's below it): the
mouth at its most closed and its most open, then at evenly spaced moments.

The spread is the opening's 95th percentile less its 5th, in distances of the outer eye corners, so
that faces of any size compare. What to expect is the spread of a seen speaker, measured likewise.
A video's picture and sound need not be in step: `late` says by how many frames the real mouth comes
late, as the packaged sync expert measures it, and `r_in_step` is r with that taken into account.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from talkinghead.errors import FaceNotFoundError, MediaError, TalkingHeadError
from talkinghead.evaluation.metrics import agreement, opening_series, track_landmarks
from talkinghead.evaluation.report.clip_visuals import STRIP_FRAMES, draw_strip
from talkinghead.evaluation.scorers.clip_scorers import embed_windows
from talkinghead.evaluation.system_clips import MediaClip, read_clip
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.alignment import estimate_transform, warp_face
from talkinghead.features.faces.detector import FaceDetector, build_detector
from talkinghead.media.reader import read_audio, read_image
from talkinghead.media.writer import atomic_path, write_image
from talkinghead.predict.audio.whisper_prior import WhisperLipPrior
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.sync.offset import find_offset, load_offset_expert
from talkinghead.types import AudioClip, FloatArray, UInt8Array

_MAX_LATE = 15


@dataclass(frozen=True)
class Row:
    """A pair's figures; `ratio` is of the spread to a reference's, or to the real video's."""

    face: str
    voice: str
    num_frames: int
    spread: float
    ratio: float | None = None
    r: float | None = None
    late: int | None = None
    r_in_step: float | None = None


class Prober:
    """Renders pairs and measures them in the canonical face, as `talkinghead evaluate` does."""

    def __init__(
        self,
        checkpoint: str,
        seconds: float,
        reference_spread: float | None = None,
        whisper_share: float = 0.0,
        articulation: float = 1.0,
    ) -> None:
        lip_prior = WhisperLipPrior(share=whisper_share) if whisper_share else None
        self.predictor = LipSyncPredictor.from_checkpoint(
            checkpoint, lip_prior=lip_prior, articulation=articulation
        )
        self.spec = self.predictor.spec
        self.seconds, self.reference_spread = seconds, reference_spread
        # Not the predictor's own: a detector serves one thread at a time.
        self.detector: FaceDetector = build_detector()
        self.expert = load_offset_expert("default", self.spec)

    def probe(self, face: Path, voice: Path) -> tuple[Row, UInt8Array]:
        """A face says a voice: the figures, and the row of the sheet."""
        sound = read_audio(voice, self.spec.sample_rate)
        faces, opening = self._speak(read_image(face), sound.samples)
        row = measure(face.stem, voice.stem, opening, self.reference_spread)
        return row, self._draw({f"{row.face}, {row.voice}": faces}, opening)

    def revoice(self, video: Path) -> tuple[Row, UInt8Array]:
        """A video's first frame says its own sound; the strip has the real mouths below."""
        whole = read_clip(video, self.detector, self.spec)
        real = whole.first(int(self.seconds * self.spec.fps))
        if real.samples is None:
            raise MediaError(f"{video}: has no sound to be re-voiced by; give a video with sound")
        faces, opening = self._speak(read_image(video), real.samples)
        count = min(len(faces), len(real))
        faces, opening, truth = faces[:count], opening[:count], real.opening[:count]
        row = measure(video.stem, "its own", opening, spread_of(truth))
        late = self._late(whole)
        r, in_step = agreement(opening, truth), agreement_when(late, opening, truth)
        row = replace(row, r=r, late=late, r_in_step=in_step)
        return row, self._draw({f"{row.face}, re-voiced": faces, "real": real.faces}, opening)

    def _late(self, clip: MediaClip) -> int:
        """By how many frames a clip's mouth comes late."""
        assert clip.features is not None
        sound = mel_windows(clip.features, range(len(clip)), self.spec.fps, self.spec)
        embedded = embed_windows(self.expert, clip.mouths(self.spec), sound)
        return -find_offset(*embedded, _MAX_LATE).frames

    def _speak(self, picture: UInt8Array, samples: FloatArray) -> tuple[UInt8Array, FloatArray]:
        """The finished frames' canonical faces uint8 [T, face, face, 3], and their opening [T]."""
        rate = self.spec.sample_rate
        sound = AudioClip(samples[: int(self.seconds * rate)], rate)
        with self.predictor.predict(picture, sound) as frames:
            face = self.detector.detect(picture)[0]
            transform = estimate_transform(face.points, face.topology, self.spec)
            size = self.spec.face_size
            faces = np.stack([warp_face(image, transform, size) for image, _ in frames])
        points = track_landmarks(faces, self.detector)
        return faces, opening_series(points, self.detector.topology)

    def _draw(self, rows: dict[str, UInt8Array], opening: FloatArray) -> UInt8Array:
        known = np.nan_to_num(opening, nan=float(np.nanmean(opening)))
        moments = np.linspace(0, len(opening) - 1, STRIP_FRAMES).round().astype(int)[1:-1]
        return draw_strip(rows, np.array([known.argmin(), known.argmax(), *moments]), self.spec)


def measure(face: str, voice: str, opening: FloatArray, reference: float | None) -> Row:
    """The figures of a pair, from its opening [T] and the spread to compare with."""
    spread = spread_of(opening)
    return Row(face, voice, len(opening), spread, spread / reference if reference else None)


def spread_of(opening: FloatArray) -> float:
    """How far a mouth moves: its opening's 95th percentile less its 5th."""
    low, high = np.nanpercentile(opening, [5, 95])
    return float(high - low)


def agreement_when(late: int, generated: FloatArray, real: FloatArray) -> float:
    """The r of two openings [T], of which the real one is `late` frames late."""
    first, second = max(0, -late), max(0, late)
    count = len(real) - abs(late)
    return agreement(generated[first : first + count], real[second : second + count])


def files_of(paths: Sequence[Path]) -> Iterator[Path]:
    """The files that are named, and those in folders that are."""
    for path in paths:
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        yield from (file for file in found if file.is_dir() or not file.name.startswith("."))


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Every figure as CSV; as Markdown to the terminal."""
    names = [field.name for field in fields(Row)]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([getattr(row, name) for name in names] for row in rows)
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(shown(getattr(row, name)) for name in names)} |")


def shown(value: Any) -> str:
    """A table's cell."""
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Writes the table and the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="folder")
    for name in ("faces", "voices", "revoice"):
        parser.add_argument(f"--{name}", type=Path, nargs="+", default=[], help="files, folders")
    parser.add_argument("--checkpoint", default="default", help="the generator's")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each voice, at most")
    parser.add_argument("--reference-spread", type=float, help="a seen speaker's")
    parser.add_argument("--whisper-share", type=float, default=0.0, help="lip_prior.share")
    parser.add_argument("--articulation", type=float, default=1.0, help="see conf/predict.yaml")
    args = parser.parse_args()
    pairs = list(product(files_of(args.faces), files_of(args.voices)))
    videos = [(video,) for video in files_of(args.revoice)]
    if not pairs and not videos:
        parser.error("there is nothing to render: give --faces and --voices, or --revoice")
    try:
        prober = Prober(
            args.checkpoint,
            args.seconds,
            args.reference_spread,
            args.whisper_share,
            args.articulation,
        )
        jobs = [(prober.probe, pair) for pair in pairs]
        jobs += [(prober.revoice, video) for video in videos]
        done = []
        for probe, files in jobs:
            try:
                done.append(probe(*files))
            except (MediaError, FaceNotFoundError) as error:
                print(f"{', '.join(map(str, files))} left out: {error}")
        if not done:
            parser.exit(1, "not one pair could be rendered\n")
        rows, strips = zip(*done, strict=True)
        write_image(args.output / "sheet.jpg", np.concatenate(strips))
        write_table(args.output / "probes.csv", rows)
    except TalkingHeadError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
