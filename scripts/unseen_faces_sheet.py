"""Measure and show the mouth motion of unseen faces with unseen voices.

python scripts/unseen_faces_sheet.py OUTPUT --faces photos/ --voices voices/ --own-audio v/

Every face (a photo, or the first frame of a video) is rendered with every voice. With
`--own-audio`, the first frame of each video is rendered with the video's own audio and compared
with the real mouth. The script writes OUTPUT/unseen_faces.csv and OUTPUT/sheet.jpg. The sheet has
one row per pair (and the real mouth below, if known): the most closed mouth, the most open mouth,
then evenly spaced frames.

The spread is the 95th percentile of the mouth opening minus the 5th, in outer-eye distances;
compare it with the spread of a seen speaker. The real mouth may be out of sync with its audio:
`late` is its delay in frames measured by the packaged sync expert, and `r_in_sync` is r with the
delay removed.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from talkinghead.errors import FaceNotFoundError, MediaError, TalkingHeadError
from talkinghead.evaluation.clip_generation import real_mouths
from talkinghead.evaluation.metrics import opening_correlation, opening_series, track_landmarks
from talkinghead.evaluation.report.clip_visuals import STRIP_FRAMES, draw_strip
from talkinghead.evaluation.system_clips import MediaClip, read_clip
from talkinghead.features.faces.alignment import estimate_transform, warp_face
from talkinghead.features.faces.detector import FaceDetector, build_detector
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.reader import read_audio, read_image
from talkinghead.media.writer import write_image
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.sync.embeddings import embed_windows, load_sync_expert
from talkinghead.sync.offset import find_offset
from talkinghead.types import AudioClip, FloatArray, UInt8Array

_MAX_DELAY_FRAMES = 15
COLUMNS = ("face", "voice", "num_frames", "spread", "ratio", "r", "late", "r_in_sync")
"""Columns of the table; `ratio` is the spread relative to the reference or the real video."""


class PairRenderer:
    """A renderer that measures the mouth motion of pairs of face and audio."""

    def __init__(self, args: argparse.Namespace) -> None:
        weight = args.blend_weight
        self.predictor = LipSyncPredictor.from_checkpoint(
            args.checkpoint,
            lip_prior=WhisperLipPrior(blend_weight=weight) if weight else None,
            articulation=args.articulation,
        )
        self.spec = self.predictor.spec
        self.seconds, self.reference_spread = args.seconds, args.reference_spread
        # Use a separate detector, because the predictor's detector runs in another thread.
        self.detector: FaceDetector = build_detector()
        self.expert = load_sync_expert("default", self.spec)

    def render_pair(self, face: Path, voice: Path) -> tuple[dict[str, Any], UInt8Array]:
        """Render a face with a voice; return the table row and the row of the sheet."""
        audio = read_audio(voice, self.spec.sample_rate)
        faces, opening = self._render(read_image(face), audio.samples)
        row = measure(face.stem, voice.stem, opening, self.reference_spread)
        return row, self._draw({f"{face.stem}, {voice.stem}": faces}, opening)

    def render_video(self, video: Path) -> tuple[dict[str, Any], UInt8Array]:
        """Render the first frame of a video with the video's audio; compare with real mouths."""
        whole = read_clip(video, self.detector, self.spec)
        real = whole.first(int(self.seconds * self.spec.fps))
        if real.audio is None:
            raise MediaError(f"{video}: has no audio; give a video with audio")
        faces, opening = self._render(read_image(video), real.audio.samples)
        count = min(len(faces), len(real))
        faces, opening, truth = faces[:count], opening[:count], real.opening[:count]
        late = self._delay_frames(whole)
        row = {
            **measure(video.stem, "own audio", opening, opening_spread(truth)),
            "r": opening_correlation(opening, truth),
            "late": late,
            "r_in_sync": delayed_correlation(late, opening, truth),
        }
        return row, self._draw({f"{video.stem}, generated": faces, "real": real.faces}, opening)

    def _delay_frames(self, clip: MediaClip) -> int:
        """Return the delay in frames of the mouth in a clip relative to the audio."""
        assert clip.audio is not None
        windows = clip.audio.windows(len(clip), self.expert.audio_encoder.input_features)
        embedded = embed_windows(self.expert, real_mouths(clip.faces, self.spec), windows)
        return -find_offset(*embedded, _MAX_DELAY_FRAMES).frames

    def _render(self, image: UInt8Array, samples: FloatArray) -> tuple[UInt8Array, FloatArray]:
        """Return rendered canonical faces uint8 [T, face, face, 3] and the mouth opening [T]."""
        rate = self.spec.sample_rate
        audio = AudioClip(samples[: int(self.seconds * rate)], rate)
        with self.predictor.predict(image, audio, SourceOptions(motion="none")) as frames:
            face = self.detector.detect(image)[0]
            transform = estimate_transform(face.points, face.topology, self.spec)
            size = self.spec.face_size
            faces = np.stack([warp_face(frame, transform, size) for frame, _ in frames])
        points = track_landmarks(faces, self.detector)
        return faces, opening_series(points, self.detector.topology)

    def _draw(self, rows: dict[str, UInt8Array], opening: FloatArray) -> UInt8Array:
        known = np.nan_to_num(opening, nan=float(np.nanmean(opening)))
        moments = np.linspace(0, len(opening) - 1, STRIP_FRAMES).round().astype(int)[1:-1]
        return draw_strip(rows, np.array([known.argmin(), known.argmax(), *moments]), self.spec)


def measure(face: str, voice: str, opening: FloatArray, reference: float | None) -> dict[str, Any]:
    """Return the table row of a pair, from the mouth opening [T] and the reference spread."""
    spread = opening_spread(opening)
    ratio = spread / reference if reference else None
    values = (face, voice, len(opening), spread, ratio)
    return dict(zip(COLUMNS, values, strict=False))


def opening_spread(opening: FloatArray) -> float:
    """Return the 95th percentile minus the 5th percentile of a mouth opening [T]."""
    low, high = np.nanpercentile(opening, [5, 95])
    return float(high - low)


def delayed_correlation(late: int, generated: FloatArray, real: FloatArray) -> float:
    """Return r of two mouth openings [T] after removing the delay of the real opening."""
    first, second = max(0, -late), max(0, late)
    count = len(real) - abs(late)
    return opening_correlation(generated[first : first + count], real[second : second + count])


def files_of(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the given files and the files in the given folders."""
    for path in paths:
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        yield from (file for file in found if file.is_dir() or not file.name.startswith("."))


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the results as CSV and print them as a Markdown table."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in rows:
        cells = (row.get(name) for name in COLUMNS)
        texts = ("" if c is None else f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells)
        print(f"| {' | '.join(texts)} |")


def main() -> None:
    """Write the table and the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="output folder")
    for name in ("faces", "voices", "own-audio"):
        parser.add_argument(f"--{name}", type=Path, nargs="+", default=[], help="files or folders")
    parser.add_argument("--checkpoint", default="default", help="the generator's file")
    parser.add_argument("--seconds", type=float, default=10.0, help="longest duration of a voice")
    parser.add_argument("--reference-spread", type=float, help="spread of a seen speaker")
    parser.add_argument(
        "--blend-weight", type=float, default=0.0, help="blend weight of the Whisper lip prior"
    )
    parser.add_argument("--articulation", type=float, default=1.0, help="scale of the lip motion")
    args = parser.parse_args()
    pairs = list(product(files_of(args.faces), files_of(args.voices)))
    videos = [(video,) for video in files_of(args.own_audio)]
    if not pairs and not videos:
        parser.error("there is nothing to render: give --faces and --voices, or --own-audio")
    try:
        renderer = PairRenderer(args)
        jobs = [(renderer.render_pair, pair) for pair in pairs]
        jobs += [(renderer.render_video, video) for video in videos]
        done = []
        for render, files in jobs:
            try:
                done.append(render(*files))
            except (MediaError, FaceNotFoundError) as error:
                print(f"{', '.join(map(str, files))} are left out: {error}")
        if not done:
            parser.exit(1, "no pair could be rendered\n")
        rows, strips = zip(*done, strict=True)
        write_image(args.output / "sheet.jpg", np.concatenate(strips))
        write_table(args.output / "unseen_faces.csv", rows)
    except TalkingHeadError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
