"""Measure how often `face_select=speaking` finds that a face speaks, with its own and other audio.

    python scripts/bench_active_speaker.py VIDEO... --other AUDIO... [--seconds 3 4 8]

Each video, which is played back and forth if it is short, shows one face. Parts of several
durations are compared with their own audio, if there is any, and with the other files. The table
has the number of parts in which the face counts as speaking: by the motion of the mouth alone
("moves"), and by its correlation with the predicted lip motion too ("follows").
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from fractions import Fraction
from itertools import takewhile
from pathlib import Path

import numpy as np
import torch

from talkinghead.errors import MediaError
from talkinghead.media.reader import read_audio
from talkinghead.predict.audio.calibration import SpokenClip
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.active_speaker import (
    Candidate,
    canonical_reference,
    min_correlation,
)
from talkinghead.predict.source.face_source import open_face
from talkinghead.predict.source.source_frame import Reference, SourceFrame
from talkinghead.predict.speaker_adaptation import predict_spoken_motion
from talkinghead.runtime.whisper_encoder import WhisperEncoder
from talkinghead.types import FloatArray

_START_S = 0.5
"""Part of the other files that is skipped, in seconds."""


def main() -> None:
    """Print a row for each duration and lip prior."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--other", nargs="+", type=Path, default=[])
    parser.add_argument("--seconds", nargs="+", type=int, default=[3, 4, 8])
    arguments = parser.parse_args()
    longest_s = max(arguments.seconds)
    # Without the default encoder's low priority, which takes long on a busy machine.
    whisper = WhisperLipPrior(WhisperEncoder(num_threads=torch.get_num_threads()))
    priors = {"Whisper": whisper, "none": None}
    predictors = [
        LipSyncPredictor.from_checkpoint("default", lip_prior=prior) for prior in priors.values()
    ]
    videos = {path: read_faces(predictors[0], path, longest_s) for path in arguments.videos}
    rate = predictors[0].spec.sample_rate
    other = [read_audio(path, rate).samples[int(_START_S * rate) :] for path in arguments.other]
    print("| lip prior | part | audio | parts | moves | follows | r: 5, 50, 95 % |")
    print("|---|---|---|---|---|---|---|")
    for name, predictor in zip(priors, predictors, strict=True):
        start_s = time.process_time()
        for seconds in arguments.seconds:
            report(name, seconds, compare(predictor, videos, other, seconds))
        print(f"{name}: {time.process_time() - start_s:.0f} s of processor time")


def read_faces(predictor: LipSyncPredictor, path: Path, duration_s: int) -> list[SourceFrame]:
    """Return the frames of the first seconds of a video."""
    source = open_face(path, predictor.detector, predictor.spec, SourceOptions())
    video_s = max(float(source.duration_s), duration_s)
    with closing(source.play()) as frames:
        return list(takewhile(lambda frame: frame.time_s < video_s, frames))


def compare(
    predictor: LipSyncPredictor,
    videos: dict[Path, list[SourceFrame]],
    other: Sequence[FloatArray],
    seconds: int,
) -> dict[str, list[tuple[bool, float]]]:
    """Return whether the mouth moves in each part of the videos, and r, with each audio."""
    spec, results = predictor.spec, defaultdict(list)
    size = seconds * spec.sample_rate
    shown = next(frame for frames in videos.values() for frame in frames if frame.face)
    reference = canonical_reference(shown, spec)
    predicted = [predict(predictor, x[:size], reference) for x in other if len(x) >= size]
    for path, frames in videos.items():
        own = own_audio(path, spec.sample_rate)
        last_s = len(own) / spec.sample_rate - seconds if len(own) else 0.0
        for start_s in map(Fraction, np.arange(0, last_s + 0.01, 0.5)):
            face = Candidate()
            for frame in frames:
                if start_s <= frame.time_s < start_s + seconds:
                    face.add(frame, spec)
            if len(face.times_s) < 10:
                continue
            audios = {"other": predicted if start_s % 1 == 0 else []}
            part = own[int(start_s * spec.sample_rate) :][:size]
            if len(own):
                audios["own"] = [predict(predictor, part, reference)]
            for name, motions in audios.items():
                for motion in motions:
                    r = face.correlation(motion, start_s, spec.fps)
                    results[name].append((not face.is_still, r))
    return results


def own_audio(path: Path, sample_rate: int) -> FloatArray:
    """Return the audio of a video, which is empty if there is none."""
    try:
        samples = read_audio(path, sample_rate).samples
    except MediaError:
        samples = np.zeros(0, np.float32)
    return samples if len(samples) > sample_rate else samples[:0]


def predict(predictor: LipSyncPredictor, samples: FloatArray, reference: Reference) -> FloatArray:
    """Return the lip motion that audio predicts."""
    num_frames = int(len(samples) / predictor.spec.sample_rate * predictor.spec.fps)
    unknown = np.full((num_frames, 20, 2), np.nan, np.float32)
    clip = SpokenClip("audio", samples, unknown, reference, predictor.spec)
    return predict_spoken_motion(predictor.model, predictor.lip_prior, predictor.spec, clip)


def report(prior: str, seconds: int, results: dict[str, list[tuple[bool, float]]]) -> None:
    """Print a row for the own and for the other audio."""
    for name, values in sorted(results.items(), reverse=True):
        moves, r = np.array([v[0] for v in values]), np.array([v[1] for v in values])
        follows = moves & (r >= min_correlation(seconds))
        quantiles = ", ".join(f"{q:.2f}" for q in np.percentile(r, [5, 50, 95]))
        row = f"{len(r)} | {moves.sum()} | {follows.sum()} | {quantiles}"
        print(f"| {prior} | {seconds} s | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
