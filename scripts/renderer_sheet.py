"""Compare the renderers in one image: python scripts/renderer_sheet.py sheet.jpg --faces FOLDER.

The sheet has one block per face, starting with the demo photo. The rows of a block are the
renderers. The columns are the original mouth and three frames at fixed quantiles of the difference
from the original mouth.
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
from talkinghead.predict.audio.lip_priors.automatic_prior import best_lip_prior
from talkinghead.predict.compositing.mouth_region import find_mouth_region
from talkinghead.predict.compositing.renderers import (
    FeatherRenderer,
    LaplacianRenderer,
    PoissonRenderer,
)
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.types import UInt8Array

RENDERERS = {"feather": FeatherRenderer, "laplacian": LaplacianRenderer, "poisson": PoissonRenderer}
QUANTILES = (1.0, 0.85, 0.6)


def block_of(
    predictor: LipSyncPredictor, face: Path, audio: Path, num_frames: int, side: int
) -> UInt8Array:
    """Return the sheet's block for a face, uint8 [num_renderers * side, num_columns * side, 3]."""
    image = read_image(face)
    detected = predictor.detector.detect(image)[0]
    transform = estimate_transform(detected.points, detected.topology, predictor.spec)
    region = find_mouth_region(transform, *image.shape[:2], predictor.spec)
    assert region is not None
    original = region.crop(image)
    indices: list[int] = []
    rows = []
    for name, renderer in RENDERERS.items():
        predictor.renderer = renderer()
        with predictor.predict(face, audio, SourceOptions(motion="none")) as prediction:
            mouths = [region.crop(frame) for frame, _ in islice(prediction, num_frames)]
        if not indices:
            change = np.array([np.abs(mouth.astype(float) - original).mean() for mouth in mouths])
            order = np.argsort(change)
            indices = [int(order[round(q * (len(order) - 1))]) for q in QUANTILES]
        cells = [original, *(mouths[index] for index in indices)]
        row = np.hstack([cv2.resize(m, (side, side), interpolation=cv2.INTER_CUBIC) for m in cells])
        cv2.putText(row, name, (6, side - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
        rows.append(row)
    return np.vstack(rows)


def main() -> None:
    """Render all faces and write the sheet."""
    parser = argparse.ArgumentParser(description="Compare the renderers on the same mouths.")
    parser.add_argument("sheet", type=Path, help="image file to write")
    parser.add_argument("--faces", type=Path, help="folder with photos or videos of faces")
    parser.add_argument("--audio", type=Path, default=paths.DEMO_SPEECH, help="speech file")
    parser.add_argument("--checkpoint", default="default", help="checkpoint of the generator")
    parser.add_argument("--frames", type=int, default=75, help="number of frames to select from")
    parser.add_argument("--side", type=int, default=200, help="side of a mouth, in pixels")
    options = parser.parse_args()
    predictor = LipSyncPredictor.from_checkpoint(
        options.checkpoint, articulation=2.0, lip_prior=best_lip_prior()
    )
    faces = [paths.demo_face(), *(sorted(options.faces.iterdir()) if options.faces else [])]
    blocks = [
        block_of(predictor, face, options.audio, options.frames, options.side) for face in faces
    ]
    write_image(options.sheet, np.ascontiguousarray(np.hstack(blocks)))


if __name__ == "__main__":
    main()
