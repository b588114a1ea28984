"""Make a talking video from a photo and speech.

python examples/photo_to_video.py photo.jpg speech.wav talking.mp4
"""

from __future__ import annotations

import argparse

from talkinghead import LipSyncPredictor


def main() -> None:
    """Read the command line and write the video."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo")
    parser.add_argument("speech")
    parser.add_argument("output")
    arguments = parser.parse_args()

    predictor = LipSyncPredictor.from_checkpoint("default")
    report = predictor.render(arguments.photo, arguments.speech, arguments.output)
    print(f"{report.path}: {report.num_frames} frames, {float(report.duration_s):.1f} s")


if __name__ == "__main__":
    main()
