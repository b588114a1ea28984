"""A user's files for tests of the README and of the examples."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np

from helpers.media_files import write_wav
from talkinghead.media.audio_decoding import read_audio
from talkinghead.media.reader import read_image
from talkinghead.media.writer import VideoWriter, write_image
from talkinghead.paths import DEMO_SPEECH, demo_face
from talkinghead.types import AudioClip


def write_sample_media(folder: Path, speech_s: float) -> None:
    """Write photo.jpg, speech.wav, video.mp4, and videos/ with clips of two speakers."""
    photo, speech = read_image(demo_face()), read_audio(DEMO_SPEECH, 16_000)
    rate = speech.sample_rate
    write_image(folder / "photo.jpg", photo)
    start = rate // 2
    samples = speech.samples[start : start + round(speech_s * rate)]
    write_wav(folder / "speech.wav", AudioClip(samples, rate))
    for name in ("anna/0.mp4", "anna/1.mp4", "ben/0.mp4"):
        path = folder / "videos" / name
        with VideoWriter(path, 400, 400, Fraction(25), rate) as writer:
            writer.write_audio(speech.samples[6400 : 6400 + 2 * rate])
            for frame in range(50):
                shift = abs(frame % 20 - 10)
                writer.write(np.ascontiguousarray(photo[:400, shift : shift + 400]))
    shutil.copy(folder / "videos/anna/0.mp4", folder / "video.mp4")
