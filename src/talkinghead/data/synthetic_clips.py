"""Drawn faces whose mouths follow synthetic vowels, for tests and smoke runs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch

from talkinghead.data.clip_file import (
    STORED_FEATURES,
    ClipData,
    encode_face,
    mean_images,
    write_clip,
)
from talkinghead.data.manifest import ClipEntry, Manifest
from talkinghead.data.preparation.clip_maker import CODE_VERSION
from talkinghead.data.window_sampling import make_rng
from talkinghead.errors import UsageError
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.media.timing import frame_time_s, round_half_up, seconds_to_samples
from talkinghead.media.writer import VideoWriter
from talkinghead.types import AVSpec, FloatArray, UInt8Array

_SPEAKER, _SPEECH = 0, 1
_SUBPIXEL_BITS = 4
_WIDEST_OPENING = 0.3


@dataclass(frozen=True)
class Character:
    """Appearance and voice of a drawn speaker.

    Attributes:
        skin, lips, background: RGB colours.
        width: Half of the width of the mouth, as a fraction of the face size.
        pitch_hz: Fundamental frequency of the voice.
    """

    skin: tuple[int, int, int]
    lips: tuple[int, int, int]
    background: tuple[int, int, int]
    width: float
    pitch_hz: float

    @classmethod
    def of(cls, speaker: int, seed: int = 0) -> Character:
        """Return the character of the speaker with the given number."""
        rng = make_rng(seed, _SPEAKER, speaker)
        red = rng.uniform(140, 240)
        return cls(
            (int(red), int(red * rng.uniform(0.7, 0.85)), int(red * rng.uniform(0.5, 0.7))),
            (int(rng.uniform(140, 200)), int(rng.uniform(40, 90)), int(rng.uniform(50, 100))),
            (int(rng.uniform(30, 220)), int(rng.uniform(30, 220)), int(rng.uniform(30, 220))),
            rng.uniform(0.075, 0.095),
            rng.uniform(90, 240),
        )


_MOUTH_LINE, _LIP, _GAP = 0.68, 0.022, 0.065
"""Vertical position of the mouth, thickness of a lip and half of the widest gap, in face sizes."""


def _plain_image(height: int, width: int, colour: tuple[int, int, int]) -> UInt8Array:
    image = np.empty((height, width, 3), np.uint8)
    # np.full takes several times longer than the drawing of a face.
    cv2.rectangle(image, (0, 0), (width, height), colour, -1)
    return image


def draw_face(character: Character, opening: float, size: int) -> UInt8Array:
    """Draw a canonical face, uint8 [size, size, 3] RGB, with a mouth opening in [0, 1]."""
    image = _plain_image(size, size, character.background)

    def ellipse(
        x: float, y: float, width: float, height: float, colour: tuple[int, int, int]
    ) -> None:
        unit = size * 2**_SUBPIXEL_BITS
        centre = round(x * unit), round(y * unit)
        axes = round(width * unit), round(height * unit)
        cv2.ellipse(image, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, _SUBPIXEL_BITS)

    red, green, blue = character.skin
    dark = int(red * 0.35), int(green * 0.35), int(blue * 0.35)
    shade = int(red * 0.85), int(green * 0.85), int(blue * 0.85)
    ellipse(0.5, 1.05, 0.3, 0.25, shade)
    ellipse(0.5, 0.42, 0.3, 0.38, character.skin)
    # The jaw moves only inside the mouth box: pixels outside must not depend on the mouth opening.
    ellipse(0.5, 0.66 + 0.03 * opening, 0.24, 0.2, character.skin)
    for side in (-1, 1):
        ellipse(0.5 + side * 0.13, 0.345, 0.055, 0.028, (245, 245, 245))
        ellipse(0.5 + side * 0.13, 0.345, 0.02, 0.024, (40, 30, 25))
        ellipse(0.5 + side * 0.13, 0.28, 0.07, 0.01, dark)
    ellipse(0.5, 0.5, 0.035, 0.05, shade)
    gap = _GAP * opening
    ellipse(0.5, _MOUTH_LINE + gap / 2, character.width, _LIP + gap, character.lips)
    if opening > 0:
        ellipse(0.5, _MOUTH_LINE + gap / 2, character.width * 0.85, gap, (45, 15, 18))
    return image


def speak(
    character: Character, duration_s: Fraction, sample_rate: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Synthesise random vowels whose loudness and high harmonics increase with the mouth opening.

    Returns:
        The samples in [-1, 1] and the mouth opening in [0, 1] at each sample, both float32
        [num_samples].
    """
    num_samples = seconds_to_samples(duration_s, sample_rate)
    opening = np.zeros(num_samples)
    start = int(rng.uniform(0.0, 0.2) * sample_rate)
    while start < num_samples:
        length = int(rng.uniform(0.16, 0.4) * sample_rate)
        loudness = 0.0 if rng.random() < 0.2 else rng.uniform(0.4, 1.0)
        part = opening[start : start + length]
        part += (loudness * np.sin(np.linspace(0, np.pi, length)) ** 2)[: len(part)]
        start += length
    time_s = np.arange(num_samples) / sample_rate
    phase = 2 * np.pi * character.pitch_hz * (time_s + 0.002 * np.sin(2 * np.pi * 3 * time_s))
    harmonics = np.arange(1, 1 + int(4000 / character.pitch_hz))
    exponent = 1.4 * opening - 2.2
    voice = sum(np.sin(k * phase) * np.exp(np.log(k) * exponent) for k in harmonics)
    samples = 0.15 * opening * voice + 1e-4 * rng.standard_normal(num_samples)
    return np.clip(samples, -1, 1).astype(np.float32), opening.astype(np.float32)


def write_synthetic_clip(
    path: Path | str,
    seconds: float = 2.0,
    *,
    width: int = 256,
    height: int = 256,
    fps: Fraction = Fraction(25),
    sample_rate: int | None = 16_000,
    speaker: int = 0,
    seed: int = 0,
) -> None:
    """Write a video of a drawn face that speaks, with or without (`sample_rate=None`) audio.

    The suffix of the path selects the container. `seed` determines the syllables.
    """
    character = Character.of(speaker)
    duration_s = Fraction(seconds).limit_denominator(1000)
    rate = sample_rate or 16_000
    samples, opening = speak(character, duration_s, rate, make_rng(seed, _SPEECH, speaker))
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2
    with VideoWriter(Path(path), width, height, fps, sample_rate) as writer:
        for value in _at_frames(opening, round_half_up(duration_s * fps), fps, rate):
            image = _plain_image(height, width, character.background)
            image[top : top + side, left : left + side] = draw_face(character, float(value), side)
            writer.write(image)
        if sample_rate is not None:
            writer.write_audio(samples)


def make_synthetic_corpus(
    directory: Path | str,
    spec: AVSpec,
    num_speakers: int = 2,
    clips_per_speaker: int = 4,
    seconds: float = 2.0,
    seed: int = 0,
) -> Manifest:
    """Write a prepared corpus of drawn faces.

    The last clip of each speaker is in split "val", the one before it in split "test", unless there
    are only two clips per speaker. `seconds` is the duration of a clip.

    Raises:
        UsageError: There are fewer than two clips per speaker.
    """
    if clips_per_speaker < 2 or num_speakers < 1:
        raise UsageError(
            f"a synthetic corpus needs at least one speaker with two clips, but num_speakers is "
            f"{num_speakers} and clips_per_speaker={clips_per_speaker}"
        )
    directory, clips = Path(directory), []
    last_splits = ["test", "val"] if clips_per_speaker > 2 else ["val"]
    splits = ["train"] * (clips_per_speaker - len(last_splits)) + last_splits
    for speaker in range(num_speakers):
        for number, split in enumerate(splits):
            data = _make_clip(spec, speaker, number, seconds, seed)
            entry = ClipEntry(
                id=f"cartoon{speaker}/clip{number}",
                speaker=f"cartoon{speaker}",
                path=f"clips/cartoon{speaker}/clip{number}.safetensors",
                num_frames=len(data.jpegs),
                duration_s=float(len(data.jpegs) / spec.fps),
                split=split,
                source="drawn",
                sha256=hashlib.sha256(b"".join(data.jpegs)).hexdigest(),
            )
            write_clip(directory / entry.path, data, {"num_frames": str(entry.num_frames)})
            clips.append(entry)
    manifest = Manifest(spec, "drawn", CODE_VERSION, tuple(clips))
    manifest.save(directory)
    return manifest


def synthetic_clip_frames(seconds: float, fps: Fraction) -> int:
    """Return the number of frames of a clip of a duration, at least one."""
    return max(1, round_half_up(Fraction(seconds).limit_denominator(1000) * fps))


def _make_clip(spec: AVSpec, speaker: int, number: int, seconds: float, seed: int) -> ClipData:
    character = Character.of(speaker, seed)
    num_frames = synthetic_clip_frames(seconds, spec.fps)
    duration_s = frame_time_s(num_frames, spec.fps)
    rng = make_rng(seed, _SPEECH, speaker * 1000 + number)
    samples, opening = speak(character, duration_s, spec.sample_rate, rng)
    values = _at_frames(opening, num_frames, spec.fps, spec.sample_rate)
    faces = np.stack([draw_face(character, float(value), spec.face_size) for value in values])
    mean_face = np.rint(faces.mean(axis=0)).astype(np.uint8)
    audio = AudioFeatures(spec, STORED_FEATURES)
    rows = audio.split(audio(torch.from_numpy(samples)))
    return ClipData(
        jpegs=[encode_face(face) for face in faces],
        mel=rows["mel"].numpy(),
        prosody=rows["prosody"].numpy(),
        audio=samples,
        mouth_opening=(values * _WIDEST_OPENING).astype(np.float32),
        lips=np.stack([_lips(character, float(value), spec.face_size) for value in values]),
        transforms=np.tile(np.eye(2, 3, dtype=np.float32), (num_frames, 1, 1)),
        head_pose=np.zeros((num_frames, 3), np.float32),
        **mean_images(mean_face, spec),
    )


def _lips(character: Character, opening: float, size: int) -> FloatArray:
    """Return the lip points, float32 [20, 2] in pixels, in the order of `lip_points`."""
    gap = _GAP * opening
    rings = []
    outer, inner = (12, character.width, _LIP + gap), (8, 0.85 * character.width, gap)
    for count, width, height in (outer, inner):
        angle = np.pi + 2 * np.pi * np.arange(count) / count
        ring = np.stack([width * np.cos(angle), height * np.sin(angle)], axis=1)
        rings.append(ring + np.array([0.5, _MOUTH_LINE + gap / 2]))
    return (np.concatenate(rings) * size).astype(np.float32)


def _at_frames(opening: FloatArray, num_frames: int, fps: Fraction, rate: int) -> FloatArray:
    """Return the mouth opening in the middle of each frame."""
    middles = [float((n + Fraction(1, 2)) / fps * rate) for n in range(num_frames)]
    return np.interp(middles, np.arange(len(opening)), opening).astype(np.float32)
