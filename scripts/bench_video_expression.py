"""Measure expressions of videos: time, motion of the face, jitter, and lips.

python scripts/bench_video_expression.py video.mp4 ...
python scripts/bench_video_expression.py --sentences 2 --sheet sheet.png video.mp4

The packaged voice speaks sentences through each video. Every emotion is then added to the frames:
CPU time of a face in a frame; displacement of its brows and of the corners of its mouth at four
intensities; r of the mouth opening with that of the frames without emotion, and the closure rate
(docs/metrics.md), from landmarks detected in the frames. Jitter is measured on the first frame,
repeated with noise of two levels: standard deviations over time of the detector's points and of the
displacement of the skin, in pixels.
"""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from closure_rate import SENTENCES, Spoken, speak

from talkinghead.evaluation.metrics import closure_rate, opening_correlation
from talkinghead.features.faces.alignment import mouth_opening
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.head_pose import fit_face_frame
from talkinghead.features.faces.tracker import FaceTracker
from talkinghead.media.encoding.patched_image import PatchedImage
from talkinghead.predict.audio.audio_source import SpeechStream
from talkinghead.predict.audio.phonemes import TimedSpeech
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.face_tracks import align_faces, track_face
from talkinghead.predict.source.head.expression.emotions import EMOTIONS, Emotion
from talkinghead.predict.source.head.expression.tracked_field import move_skin
from talkinghead.predict.source.head.expression.video_expression import (
    FrameExpression,
    VideoExpression,
)
from talkinghead.predict.source.source_frame import SourceFrame
from talkinghead.speech.tts.piper import Piper
from talkinghead.speech.voice import Voice
from talkinghead.types import AVSpec, Face, FloatArray, UInt8Array

_INTENSITIES = (0.25, 0.5, 0.75, 1.0)
# Middles of the inner and the outer brows, and corners of the mouth.
_POINTS = {
    "inner brow": (55, 107, 285, 336),
    "outer brow": (53, 105, 283, 334),
    "corners": (61, 291),
}
_NOISE, _NUM_STILL = 2.0, 50
_NAMES = [name for name in EMOTIONS if name != "neutral"]


@dataclass
class Shown:
    """A frame with its generated mouth, and the smoothed face in it."""

    image: UInt8Array
    face: Face


def main() -> None:
    """Print a table for each video."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--sentences", type=int, default=3)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    predictor = LipSyncPredictor.from_checkpoint("default")
    with closing(Piper()) as piper:
        voice = Voice(piper, sample_rate=predictor.spec.sample_rate)
        spoken = [speak(voice, text) for text in SENTENCES[:: 100 // options.sentences]]
    sheets = []
    for path in options.videos:
        avatar = predictor.avatar(path, SourceOptions(calibrate="none"))
        clips = []
        for sentence in spoken:
            speech = TimedSpeech(sentence.samples, tuple(sentence.phonemes))
            stream = SpeechStream([speech], predictor.spec.sample_rate)
            with (
                predictor.predict(avatar, stream) as frames,
                closing(avatar.source.play()) as played,
            ):
                pairs = zip(frames, played, strict=False)
                clips.append([Shown(i, f.face) for (i, _), f in pairs if f.face is not None])
        print(f"\n{path.name}: {sum(map(len, clips))} frames, {avatar.source.width} pixels wide")
        _print_jitter(clips[0][0], predictor.detector, predictor.spec)
        _print_table(clips, spoken, predictor.detector, avatar.source.fps)
        sheets.append(_sheet(clips[0][len(clips[0]) // 2]))
    if options.sheet is not None:
        cv2.imwrite(str(options.sheet), np.concatenate(sheets)[..., ::-1])


def _add(shown: Shown, emotion: Emotion) -> UInt8Array:
    frame = FrameExpression(VideoExpression(emotion=emotion), [(shown.face, 1.0)])
    return frame.render_patched(PatchedImage(shown.image), 0.0, np.zeros(52, np.float32)).to_array()


def _print_table(
    clips: list[list[Shown]], spoken: list[Spoken], detector: FaceDetector, fps: Fraction
) -> None:
    plain = [_openings([shown.image for shown in clip], detector) for clip in clips]
    closures = [sentence.times_s("pbm") for sentence in spoken]
    rate = np.nanmean([closure_rate(*pair, fps) for pair in zip(plain, closures, strict=True)])
    print("| emotion | ms | inner brow | outer brow | corners | r | closure |")
    print("|---|---|---|---|---|---|---|")
    print(f"| neutral | 0 | | | | 1 | {rate:.3f} |")
    for name in _NAMES:
        started_s = time.process_time()
        images = [[_add(shown, Emotion(name)) for shown in clip] for clip in clips]
        cost_ms = 1e3 * (time.process_time() - started_s) / sum(map(len, clips))
        found = [_openings(clip, detector) for clip in images]
        r = np.mean([opening_correlation(*pair) for pair in zip(found, plain, strict=True)])
        rate = np.nanmean([closure_rate(*pair, fps) for pair in zip(found, closures, strict=True)])
        raised = _raised(
            [shown for clip in clips for shown in clip[:: max(1, len(clip) // 5)]], name
        )
        print(
            f"| {name} | {cost_ms:.1f} | {' | '.join(raised)} | {r:.3f} | {rate:.3f} |", flush=True
        )


def _openings(images: list[UInt8Array], detector: FaceDetector) -> FloatArray:
    tracker = FaceTracker(detector)
    faces = [tracker.update(image) for image in images]
    openings = [np.nan if f is None else mouth_opening(f.points, f.topology) for f in faces]
    return np.array(openings, np.float32)


def _skin_shift(face: Face, weights: FloatArray, points: FloatArray) -> FloatArray:
    """Return the displacement [P, 2] of points of a face by an expression in pixels."""
    low, high = np.floor(face.points.min(0) - 40), np.ceil(face.points.max(0) + 40)
    grid = np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)))
    sources = np.dstack([*grid, np.zeros_like(grid[0])]).astype(np.float32)
    moved = sources.copy()
    inside = Face(face.box, face.points - low.astype(np.float32), 1.0, face.topology, face.depth)
    frame = fit_face_frame(inside)
    assert frame is not None
    move_skin(moved, inside, frame, weights)
    shift, found = (sources - moved)[..., :2], points
    for _ in range(8):
        cells = (found - low).astype(np.float32)[None]
        found = points + cv2.remap(shift, cells, None, cv2.INTER_LINEAR)[0]
    return np.asarray(found - points, np.float32)


def _raised(frames: list[Shown], name: str) -> list[str]:
    """Return how far groups of points rise at each intensity, in percent of the eyes' distance."""
    cells = []
    for group in _POINTS.values():
        heights = []
        for intensity in _INTENSITIES:
            weights = Emotion(name, intensity).weights
            values = []
            for shown in frames:
                points = shown.face.points
                across = points[263] - points[33]
                down = np.array([-across[1], across[0]]) / np.square(across).sum()
                values.append(-_skin_shift(shown.face, weights, points[list(group)]) @ down)
            heights.append(100 * np.mean(values))
        cells.append(" ".join(f"{height:+.1f}" for height in heights))
    return cells


def _print_jitter(shown: Shown, detector: FaceDetector, spec: AVSpec) -> None:
    rng = np.random.default_rng(0)
    images = [
        np.rint(shown.image + rng.normal(0, _NOISE, shown.image.shape))
        .clip(0, 255)
        .astype(np.uint8)
        for _ in range(_NUM_STILL)
    ]
    frames = [
        SourceFrame(image, Fraction(i, 25), Fraction(1, 25)) for i, image in enumerate(images)
    ]
    sightings = list(track_face(frames, FaceTracker(detector)))
    raw = np.stack([face.points for _, face in sightings if face is not None])
    faces = [f.face for f in align_faces(sightings, spec, Fraction(25)) if f.face is not None]
    smooth = np.stack([face.points for face in faces])
    print(f"jitter: detector {raw.std(0).mean():.3f}, smoothed {smooth.std(0).mean():.3f} pixels")
    for name in _NAMES:
        weights = Emotion(name).weights
        shifts = [_skin_shift(face, weights, smooth.mean(0)) for face in faces]
        print(f"  skin, {name}: {np.std(shifts, axis=0).mean():.3f}")


def _sheet(shown: Shown, width: int = 280) -> UInt8Array:
    x0, y0, x1, y1 = (int(side) for side in shown.face.box)
    margin = (x1 - x0) // 3
    rows, columns = slice(max(0, y0 - margin), y1 + margin), slice(max(0, x0 - margin), x1 + margin)
    tiles = [shown.image, *(_add(shown, Emotion(name)) for name in _NAMES)]
    return np.concatenate([cv2.resize(tile[rows, columns], (width, width)) for tile in tiles], 1)


if __name__ == "__main__":
    main()
