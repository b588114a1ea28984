"""Videos whose face speaks, and a detector that finds its lips."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from helpers.lip_priors import LoudnessLipPrior
from helpers.small_predictor import HEIGHT, SPEC, WIDTH, Detector, lip_generator
from talkinghead.features.faces.alignment import LIP_POINTS
from talkinghead.media.writer import VideoWriter
from talkinghead.predict.predictor import LipSyncPredictor

_SAMPLES_PER_FRAME = 640
_LIP_X = (-20, -13, -7, 0, 7, 13, 20, 13, 7, 0, -7, -13, -17, -7, 0, 7, 17, 7, 0, -7)
_LIP_Y = (0, *5 * (-1,), 0, *5 * (1,), 0, *3 * (-1,), 0, *3 * (1,))


class OpeningLipPrior(LoudnessLipPrior):
    """A lip prior that opens the mouth with the loudness, and moves nothing else."""

    def predict_motion(self, windows, first_frame):
        loudness = super().predict_motion(windows, first_frame)[..., :1, 1:]
        x = np.zeros_like(loudness)
        return 3 * np.concatenate([x, loudness], -1) * np.array(_LIP_Y, np.float32)[:, None]


class SpeakingDetector(Detector):
    """A detector that reads the mouth opening from the grey level of the first columns."""

    num_faces = 1

    def detect(self, image):
        faces = super().detect(image)
        opening = float(image[:, :8].mean()) / 10
        x = 96 + 0.6 * np.array(_LIP_X)
        y = 115 + 0.5 * opening * np.array(_LIP_Y)
        for face in faces:
            face.points[list(LIP_POINTS["mesh468"])] = np.stack([x, y], 1)
        return [replace(face) for face in faces for _ in range(self.num_faces)]

    def track(self, image, previous):
        return next(iter(self.detect(image)), None)


def syllables(num_frames, seed=0):
    """Return the loudness of each frame, in [0, 1]."""
    levels = np.random.default_rng(seed).uniform(0, 1, num_frames // 3 + 4)
    return np.convolve(np.repeat(levels, 3), np.ones(3) / 3, "same")[:num_frames]


def write_speaking_video(
    path: Path,
    duration_s: float = 6.0,
    factor: float = 60.0,
    has_own_audio: bool = True,
    volume: float = 0.1,
) -> Path:
    """Write a video in which the mouth opens with the loudness of its audio.

    Args:
        path: the file.
        duration_s: its duration.
        factor: scale of the mouth opening.
        has_own_audio: False for the audio of other speech.
        volume: amplitude of the loudest audio.
    """
    num_frames = round(duration_s * 25)
    loudness = syllables(num_frames)
    audible = loudness if has_own_audio else syllables(num_frames, seed=1)
    noise = np.random.default_rng(2).standard_normal(num_frames * _SAMPLES_PER_FRAME)
    samples = volume * noise * np.repeat(audible, _SAMPLES_PER_FRAME)
    with VideoWriter(path, WIDTH, HEIGHT, Fraction(25), 16_000, preset="ultrafast") as writer:
        for level in loudness:
            image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
            image[:, :8] = 40 + factor * level
            writer.write(image)
        writer.write_audio(samples.astype(np.float32))
    return path


def speaking_predictor(detector=None, **options):
    """Return a predictor whose lips follow the loudness."""
    model = lip_generator()
    torch.nn.init.normal_(model.decoder.head.weight, std=0.3)
    detector = detector or SpeakingDetector()
    defaults = {"device": "cpu", "articulation": 1.0, "lip_prior": OpeningLipPrior()}
    return LipSyncPredictor(model, SPEC, detector=detector, **{**defaults, **options})
