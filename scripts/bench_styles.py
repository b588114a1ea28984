"""Measure what the named speaker styles do to the lips of a photo.

    python scripts/bench_styles.py                                    the demo photo and speech
    python scripts/bench_styles.py --face photo.jpg --audio speech.wav --sheet styles.png

The lips are detected in the rendered frames. Opening and width are means and standard deviations in
fractions of the width of the closed mouth; the spread is that of the opening relative to neutral.
The sheet shows each style at the same moments of the speech.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from talkinghead.features.faces.alignment import LIP_POINTS
from talkinghead.media.audio_decoding import read_audio
from talkinghead.media.writer import write_image
from talkinghead.paths import DEMO_SPEECH, demo_face
from talkinghead.predict.audio.speaker_style import named_styles
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import AudioClip, FloatArray, UInt8Array

_NUM_SHOWN = 6


def main() -> None:
    """Print a row for each style, and write the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--face", type=Path, default=demo_face())
    parser.add_argument("--audio", type=Path, default=DEMO_SPEECH)
    parser.add_argument("--duration-s", type=float, default=4.0, help="of the audio")
    parser.add_argument("--sheet", type=Path)
    arguments = parser.parse_args()
    audio = read_audio(arguments.audio, 16_000)
    audio = AudioClip(audio.samples[: round(16_000 * arguments.duration_s)], 16_000)
    base = LipSyncPredictor.from_checkpoint("default", device="cpu")
    print("| style | opening | spread | width | spread of the width |\n|---|---|---|---|---|")
    rows, shown, neutral_spread = list[UInt8Array](), None, 1.0
    for name in named_styles():
        options = replace(base.options, style=name)
        predictor = LipSyncPredictor(base.model, base.spec, options)
        with predictor.predict(arguments.face, audio, SourceOptions(motion="none")) as prediction:
            images = [image for image, _ in prediction]
        opening, width = _measure(predictor, images)
        if shown is None:
            shown = np.argsort(opening)[:: -max(1, len(opening) // _NUM_SHOWN)][:_NUM_SHOWN]
            neutral_spread = float(opening.std())
        print(
            f"| {name} | {opening.mean():.3f} | {opening.std() / neutral_spread:.2f} | "
            f"{width.mean():.3f} | {width.std():.3f} |"
        )
        rows.append(np.concatenate([images[number] for number in shown], axis=1))
    if arguments.sheet is not None:
        write_image(arguments.sheet, np.concatenate(rows))


def _measure(
    predictor: LipSyncPredictor, images: list[UInt8Array]
) -> tuple[FloatArray, FloatArray]:
    """Return the opening and the width [T] of the lips, in widths of the first frame's mouth."""
    points = []
    for image in images:
        face = predictor.detector.detect(image)[0]
        points.append(face.points[list(LIP_POINTS[face.topology])])
    lips = np.stack(points)
    width = np.linalg.norm(lips[:, 6] - lips[:, 0], axis=1)
    opening = (lips[:, 17:20, 1] - lips[:, [15, 14, 13], 1]).mean(1)
    return np.asarray(opening / width[0]), np.asarray(width / width[0])


if __name__ == "__main__":
    main()
