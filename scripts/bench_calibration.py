"""Measure the calibration on a source's own speech: the first half calibrates, the second scores.

    python scripts/bench_calibration.py VIDEO... [--max-s 60] [--map MAP]

For each video it prints, for the predicted lip motion of the second half without and with
calibration: the correlation r of the mouth opening with the detected one, as filed, in step
(shifted by the offset measured in the first half) and at the best shift; and the spread of the
opening relative to the detected one.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from talkinghead.features.faces.mouth_motion import pearson
from talkinghead.predict.audio.calibration import SpokenClip, opening_of, read_spoken_clip
from talkinghead.predict.audio.lip_priors.whisper_prior import WhisperLipPrior
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.face_source import open_face
from talkinghead.predict.speaker_adaptation import adapt_to_clip, adapted_prior, predict_motion
from talkinghead.types import FloatArray

_MAX_SHIFT = 8


def main() -> None:
    """Print a table with a row for each video."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--max-s", type=float, default=60.0)
    parser.add_argument("--map", type=Path, help="lip motion map, in place of the packaged one")
    arguments = parser.parse_args()
    lip_prior = WhisperLipPrior(map_path=arguments.map)
    predictor = LipSyncPredictor.from_checkpoint("default", lip_prior=lip_prior)
    print("| video | half, s | offset | r as filed | r in step | r at best | spread | style |")
    print("|---|---|---|---|---|---|---|---|")
    for video in arguments.videos:
        source = open_face(video, predictor.detector, predictor.spec, SourceOptions())
        with closing(source.play()) as frames:
            clip = read_spoken_clip(video, frames, predictor.spec, arguments.max_s)
        print(row(predictor, clip), flush=True)


def row(predictor: LipSyncPredictor, clip: SpokenClip) -> str:
    """Return the row of a table for a clip."""
    half = len(clip.lips) // 2
    num_samples = int(half / clip.spec.fps * clip.spec.sample_rate)
    first = replace(clip, samples=clip.samples[:num_samples], lips=clip.lips[:half])
    adaptation, aligned = adapt_to_clip(predictor, first)
    before = opening_of(predict_motion(predictor, clip))
    prior = adapted_prior(predictor.lip_prior, adaptation)
    after = opening_of(predict_motion(predictor, clip, prior, adaptation.style))
    real = opening_of(clip.lips)
    second = slice(half, None)
    scores = []
    for predicted in (before, after):
        r = [
            shifted_r(predicted, real, shift, second)
            for shift in range(-_MAX_SHIFT, _MAX_SHIFT + 1)
        ]
        in_step = shifted_r(predicted, real, aligned.offset.frames, second)
        speech = clip.has_speech & np.isfinite(real)
        speech[:half] = False
        spread = predicted[speech].std() / real[speech].std()
        scores.append((r[_MAX_SHIFT], in_step, max(r), spread))
    cells = [f"{a:.2f} → {b:.2f}" for a, b in zip(*scores, strict=True)]
    offset = f"{aligned.offset.frames:+.1f} ({aligned.offset.standard_error:.1f})"
    values = adaptation.style
    style = f"{values.opening:.2f}, {values.width:.2f}, {values.upper_lip:+.2f}"
    if "map_gain_r" in adaptation.report:
        style += f", map (r {adaptation.report['map_gain_r']:+.3f})"
    name = Path(clip.name).stem
    return f"| {name} | {half / 25:.1f} | {offset} | {' | '.join(cells)} | {style} |"


def shifted_r(predicted: FloatArray, real: FloatArray, shift: float, frames: slice) -> float:
    """Return r of the opening when the real mouth is delayed by `shift` frames."""
    times = np.arange(len(real))
    delayed = np.interp(times - shift, times, real, left=np.nan, right=np.nan).astype(np.float32)
    return float(pearson(predicted[frames], delayed[frames]))


if __name__ == "__main__":
    main()
