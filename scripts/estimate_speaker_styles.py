"""Estimate the styles of training speakers, and write the file of named styles.

    python scripts/estimate_speaker_styles.py --voices DIR grid_s4=DIR addresses_1=DIR ...

Each folder holds videos of one speaker. The style of a speaker is the change with which the motion
that the model predicts for other voices (`--voices`, audio files) has the spread of the speaker's
own lips, because the styles are applied to any voice. Prints a row for each speaker.
"""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from talkinghead.errors import MediaError
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.audio_decoding import read_audio
from talkinghead.media.reader import list_video_files
from talkinghead.predict.audio.calibration import SpokenClip, read_spoken_clip, style_between
from talkinghead.predict.audio.speaker_style import NAMED_STYLES
from talkinghead.predict.options import SourceOptions
from talkinghead.predict.predictor import LipSyncPredictor
from talkinghead.predict.source.face_source import open_face
from talkinghead.predict.speaker_adaptation import predict_motion
from talkinghead.types import FloatArray

_MAX_CLIP_S = 60.0


def main() -> None:
    """Estimate the styles and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("speakers", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--voices", type=Path, required=True)
    parser.add_argument("--num-voices", type=int, default=20)
    parser.add_argument("--num-clips", type=int, default=20, help="maximum for each speaker")
    parser.add_argument("--output", type=Path, default=NAMED_STYLES)
    arguments = parser.parse_args()
    predictor = LipSyncPredictor.from_checkpoint("default", device="cpu")
    folders = dict(speaker.split("=", 1) for speaker in arguments.speakers)
    clips = {
        name: _read_clips(predictor, Path(folder), arguments.num_clips)
        for name, folder in folders.items()
    }
    audio = sorted(path for path in arguments.voices.iterdir() if path.is_file())
    audio = audio[:: max(1, len(audio) // arguments.num_voices)][: arguments.num_voices]
    predicted = _predict_voices(predictor, audio, next(iter(clips.values()))[0])
    styles = {}
    for name, own in clips.items():
        known = [clip.has_speech & np.isfinite(clip.lips).all((1, 2)) for clip in own]
        motion = [lip_motion(c.lips)[frames] for c, frames in zip(own, known, strict=True)]
        speech_s = sum(int(frames.sum()) for frames in known) / float(predictor.spec.fps)
        style = style_between(np.concatenate(motion), predicted, speech_s)
        values = {key: round(value, 2) for key, value in asdict(style).items()}
        styles[name] = {key: values[key] for key in ("opening", "width", "upper_lip")}
        print(f"{name:12} {len(own):3} clips, {speech_s:5.1f} s of speech: {styles[name]}")
    with atomic_path(arguments.output) as temporary:
        temporary.write_text(json.dumps(styles, indent=2) + "\n", encoding="utf-8")


def _read_clips(predictor: LipSyncPredictor, folder: Path, num_clips: int) -> list[SpokenClip]:
    files = list_video_files(folder)
    clips = []
    for path in files[:: max(1, len(files) // num_clips)][:num_clips]:
        source = open_face(path, predictor.detector, predictor.spec, SourceOptions())
        try:
            with closing(source.play()) as frames:
                clips.append(read_spoken_clip(path, frames, predictor.spec, _MAX_CLIP_S))
        except MediaError as error:
            print(f"left out: {error}")
    return clips


def _predict_voices(predictor: LipSyncPredictor, audio: list[Path], clip: SpokenClip) -> FloatArray:
    """Return the motion predicted for voices, in the frames with speech [N, 20, 2]."""
    motions = []
    for path in audio:
        samples = read_audio(path, predictor.spec.sample_rate).samples
        num_frames = int(len(samples) / predictor.spec.sample_rate * predictor.spec.fps)
        lips = np.zeros((num_frames, 20, 2), np.float32)
        spoken = SpokenClip(path.name, samples, lips, clip.reference, predictor.spec)
        motions.append(predict_motion(predictor, spoken)[spoken.has_speech])
    return np.concatenate(motions)


if __name__ == "__main__":
    main()
