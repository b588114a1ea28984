"""Replace the speech of a video, and generate the mouth for the new speech.

python examples/dub_video.py video.mp4 speech.wav dubbed.mp4
"""

from __future__ import annotations

import argparse

from talkinghead import LipSyncPredictor, SourceOptions


def main() -> None:
    """Read the command line and write the dubbed video."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video")
    parser.add_argument("speech")
    parser.add_argument("output")
    arguments = parser.parse_args()

    predictor = LipSyncPredictor.from_checkpoint("default")
    # With several people in the video, face_select="speaking" dubs the one who speaks.
    options = SourceOptions(face_select="largest", extend="pingpong", trim=True)
    report = predictor.render(arguments.video, arguments.speech, arguments.output, options)
    print(f"{report.path}: {report.num_frames} frames at {float(report.fps):g} per second")
    if report.num_frames_without_face:
        print(f"{report.num_frames_without_face} frames without a face are unchanged")


if __name__ == "__main__":
    main()
