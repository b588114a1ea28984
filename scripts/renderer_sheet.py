"""The renderers side by side: python scripts/renderer_sheet.py sheet.jpg --faces FOLDER.

A block for each face, the astronaut's first. Its rows are the renderers; its columns the source's
own mouth, and the moments at which the new one is furthest from it, and less and less far.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from talkinghead import paths
from talkinghead.features.faces.alignment import estimate_transform
from talkinghead.media.reader import read_image
from talkinghead.media.writer import write_image
from talkinghead.predict.audio.whisper_prior import whisper_lip_prior_if_available
from talkinghead.predict.compositing.mouth_region import find_mouth_region
from talkinghead.predict.compositing.renderers import (
    FeatherRenderer,
    LaplacianRenderer,
    PoissonRenderer,
)
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import UInt8Array

RENDERERS = {
    "feather": FeatherRenderer,
    "laplacian": LaplacianRenderer,
    "poisson": PoissonRenderer,
}
MOMENTS = (1.0, 0.85, 0.6)


def block_of(
    predictor: LipSyncPredictor, face: Path, audio: Path, num_frames: int, side: int
) -> UInt8Array:
    """A face's block: uint8 [3 * side, (1 + moments) * side, 3]."""
    picture = read_image(face)
    found = predictor.detector.detect(picture)[0]
    transform = estimate_transform(found.points, found.topology, predictor.spec)
    height, width = picture.shape[:2]
    region = find_mouth_region(transform, height, width, predictor.spec)
    assert region is not None
    chosen: list[int] = []
    rows = []
    for name, renderer in RENDERERS.items():
        predictor.renderer = renderer()
        with predictor.predict(face, audio) as prediction:
            mouths = [region.crop(image) for image, _ in islice(prediction, num_frames)]
        own = region.crop(picture)
        if not chosen:
            change = np.array([np.abs(mouth.astype(float) - own).mean() for mouth in mouths])
            order = np.argsort(change)
            chosen = [int(order[round(moment * (len(order) - 1))]) for moment in MOMENTS]
        shown = [own, *(mouths[index] for index in chosen)]
        row = np.hstack([cv2.resize(m, (side, side), interpolation=cv2.INTER_CUBIC) for m in shown])
        cv2.putText(row, name, (6, side - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
        rows.append(row)
    return np.vstack(rows)


def main() -> None:
    """Writes the sheet."""
    parser = argparse.ArgumentParser(description="The three renderers on the same mouths.")
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--faces", type=Path, help="a folder with photos or videos of faces")
    parser.add_argument("--audio", type=Path, default=paths.DEMO_SPEECH, help="the speech")
    parser.add_argument("--checkpoint", default="default", help="the generator's")
    parser.add_argument("--frames", type=int, default=75, help="how many to choose moments from")
    parser.add_argument("--side", type=int, default=200, help="of a mouth, in pixels")
    options = parser.parse_args()
    predictor = LipSyncPredictor.from_checkpoint(
        options.checkpoint, articulation=2.0, lip_prior=whisper_lip_prior_if_available()
    )
    faces = [paths.demo_face(), *(sorted(options.faces.iterdir()) if options.faces else [])]
    blocks = [
        block_of(predictor, face, options.audio, options.frames, options.side) for face in faces
    ]
    write_image(options.sheet, np.ascontiguousarray(np.hstack(blocks)))


if __name__ == "__main__":
    main()
