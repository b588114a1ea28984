"""Blend the generated mouth into the source with your own renderer.

    python examples/custom_renderer.py photo.jpg speech.wav talking.mp4

To use a renderer on the command line, add `conf/renderer/NAME.yaml` with the class as `_target_`.
"""

from __future__ import annotations

import argparse

import numpy as np

from talkinghead import LipSyncPredictor
from talkinghead.predict.compositing.mouth_region import MouthRegion, PaintedMouth


class LinearRenderer:
    """A renderer that fades linearly from the generated mouth to the source at the edge."""

    def __init__(self, width: float = 0.3) -> None:
        self.width = width

    def reset(self) -> None:
        """Clear temporal state; this renderer has none."""

    def render(
        self, image: np.ndarray, mouth: PaintedMouth, region: MouthRegion, time_s: float
    ) -> np.ndarray:
        """Return a copy of the image (uint8 RGB) with the generated mouth."""
        output = image.copy()
        crop = region.crop(output)  # This is a view: writing to it changes the output.
        weight = np.clip((1 - region.radius) / self.width, 0, 1)[..., None]
        crop[...] = (weight * mouth.image + (1 - weight) * crop).clip(0, 255).round()
        return output


def main() -> None:
    """Read the command line and write the video."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo")
    parser.add_argument("speech")
    parser.add_argument("output")
    arguments = parser.parse_args()

    predictor = LipSyncPredictor.from_checkpoint("default", renderer=LinearRenderer())
    predictor.render(arguments.photo, arguments.speech, arguments.output)


if __name__ == "__main__":
    main()
