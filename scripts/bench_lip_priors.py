"""Measure how well the lips follow the speech of people who are not in the training data.

    python scripts/bench_lip_priors.py videos/*.mp4
    python scripts/bench_lip_priors.py *.mp4 --lip-priors distilled --weights my.safetensors

The first frame of each video speaks the video's own audio. The mouth is measured by the lips that
are detected in each frame, in units of the distance between the outer corners of the eyes. r is the
correlation with the opening of the real mouth at the best shift within eight frames, motion the
ratio of the standard deviations.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from talkinghead.errors import TalkingHeadError
from talkinghead.features.faces.detector import FaceDetector
from talkinghead.features.faces.mouth_motion import opening_series, pearson, track_landmarks
from talkinghead.media.audio_decoding import read_audio
from talkinghead.media.reader import grid_frames, read_video
from talkinghead.predict.audio.lip_priors.distilled_prior import DistilledLipPrior
from talkinghead.predict.audio.lip_priors.lip_prior import LipPrior
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AudioClip, FloatArray, UInt8Array

_LIP_PRIORS = ("whisper", "distilled", "none")
_MAX_SHIFT = 8
_FPS = Fraction(25)


def main() -> None:
    """Print a row for each lip prior and video."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("videos", type=Path, nargs="+", help="with one speaking face")
    parser.add_argument("--lip-priors", nargs="+", choices=_LIP_PRIORS, default=_LIP_PRIORS)
    parser.add_argument("--weights", default="default", help="of the distilled lip prior")
    parser.add_argument("--checkpoint", default="default", help="of the generator")
    parser.add_argument("--num-frames", type=int, default=250, help="of each video, at most")
    arguments = parser.parse_args()
    base = LipSyncPredictor.from_checkpoint(arguments.checkpoint, device="cpu")
    try:
        videos = [_read(path, arguments.num_frames) for path in arguments.videos]
        real = [_openings(frames, base.detector) for frames, _ in videos]
        print("| lip prior | " + " | ".join(path.stem for path in arguments.videos) + " | mean |")
        print("|---" * (len(videos) + 2) + "|")
        for name in arguments.lip_priors:
            options = replace(base.options, lip_prior=_lip_prior(name, arguments.weights))
            predictor = LipSyncPredictor(base.model, base.spec, options)
            pairs = zip(videos, real, strict=True)
            _print_row(name, np.array([_compare(predictor, *video, own) for video, own in pairs]))
    except TalkingHeadError as error:
        parser.exit(1, f"bench_lip_priors: {error}\n")


def _read(path: Path, num_frames: int) -> tuple[UInt8Array, AudioClip]:
    """Return the first frames [T, H, W, 3] of a video, and its audio during these frames."""
    frames = np.stack([f.image for f in islice(grid_frames(read_video(path), _FPS), num_frames)])
    audio = read_audio(path, 16_000)
    num_samples = round(16_000 * len(frames) / _FPS)
    return frames, AudioClip(audio.samples[:num_samples], 16_000)


def _lip_prior(name: str, weights: str) -> LipPrior | None:
    if name == "none":
        return None
    return WhisperLipPrior() if name == "whisper" else DistilledLipPrior(weights)


def _compare(
    predictor: LipSyncPredictor, frames: UInt8Array, audio: AudioClip, real: FloatArray
) -> tuple[float, float]:
    """Return r and the relative motion of a mouth that is generated for the first frame."""
    with predictor.predict(frames[0], audio, SourceOptions(motion="none")) as prediction:
        images = np.stack([image for image, _ in prediction])
    opening = _openings(images, predictor.detector)
    num_frames = min(len(opening), len(real))
    opening, real = opening[:num_frames], real[:num_frames]
    shifts = range(-_MAX_SHIFT, _MAX_SHIFT + 1)
    r = max(
        pearson(opening[max(0, s) : num_frames + s], real[max(0, -s) : num_frames - s])
        for s in shifts
    )
    return r, float(np.nanstd(opening) / np.nanstd(real))


def _openings(images: UInt8Array, detector: FaceDetector) -> FloatArray:
    return opening_series(track_landmarks(images, detector), detector.topology)


def _print_row(name: str, found: FloatArray) -> None:
    values = [*found, found.mean(0)]
    print(f"| {name} | " + " | ".join(f"r {r:.3f}, motion {m:.2f}" for r, m in values) + " |")


if __name__ == "__main__":
    main()
