"""Clips of drawn faces whose mouth is a dark bar, with a detector and a generator for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from talkinghead.data.clip_file import ClipData, encode_face, write_clip
from talkinghead.data.manifest import ClipEntry
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.alignment import paste_mouth
from talkinghead.features.mel import MEL_SILENCE
from talkinghead.types import AVSpec, Box, Face, UInt8Array

SPEC = AVSpec()
NUM_FRAMES = 40
EYE_DISTANCE_PX = 92.0


def draw_mouths(gaps: Tensor) -> Tensor:
    """Return grey mouth images [T, 3, 96, 96] with a dark bar whose height is `gaps` [T] pixels."""
    row = torch.arange(96)
    inside = (row - 48).abs()[None, :] < (gaps / 2)[:, None]
    bar = inside[:, None, :, None] & ((row - 48).abs() < 20)
    return torch.where(bar, 0.05, 0.6).expand(-1, 3, -1, -1)


def gaps_of(mel: Tensor, num_frames: int) -> Tensor:
    """Return the height of the bar in each frame, in pixels: the audio level around the frame."""
    return (mel_windows(mel, range(num_frames), SPEC.fps, SPEC).mean(dim=(1, 2)) + 4) * 5


class BarDetector:
    """A face detector that measures the height of the dark bar."""

    topology = "ibug68"

    def detect(self, image: UInt8Array) -> list[Face]:
        return [self.track(image, None)]

    def track(self, image: UInt8Array, previous: Face | None) -> Face:
        dark = np.flatnonzero(image[:, 128].mean(axis=1) < 80)
        points = np.zeros((68, 2), dtype=np.float32)
        points[45] = (EYE_DISTANCE_PX, 0)
        points[48:68] = (128, 184)
        if len(dark):
            points[62], points[66] = (128, dark[0]), (128, dark[-1] + 1)
        return Face(Box(0, 0, 256, 256), points, 1.0, self.topology)


class BarModel:
    """A generator that draws a bar for the audio, or a constant bar if `ignores_audio`."""

    context_frames, lookahead_frames = 3, 1
    input_features = ("mel",)
    needs_head_pose = False
    max_mouth_scale = 1
    device = torch.device("cpu")

    def __init__(self, ignores_audio: bool = False) -> None:
        self.ignores_audio = ignores_audio
        self.contexts: list[Tensor] = []

    def encode_reference(self, face: Tensor, lips: Tensor) -> SimpleNamespace:
        return SimpleNamespace(face=face, lips=lips, mouth=torch.zeros(1, 3, 96, 96))

    def encode_context(self, masked_face: Tensor, reference: SimpleNamespace) -> SimpleNamespace:
        self.contexts.append(masked_face)
        return SimpleNamespace(maps=[masked_face], token=masked_face)

    def encode_audio(self, windows: Tensor, reference: SimpleNamespace) -> Tensor:
        gaps = (windows.mean(dim=(2, 3)) + 4) * 5
        return (torch.full_like(gaps, 12.0) if self.ignores_audio else gaps).unsqueeze(2)

    def set_lip_motion(self, tokens: Tensor, lips: Tensor, blend_weight: float) -> Tensor:
        gaps = 10 * (lips[:, 17:20, 1] - lips[:, 13:16, 1]).mean(1, keepdim=True)
        return torch.lerp(tokens, gaps, blend_weight)

    def decode(self, tokens: Tensor, reference, context) -> SimpleNamespace:
        mouth = draw_mouths(tokens[:, 0])
        flow, mask = torch.zeros(len(tokens), 2, 48, 48), torch.ones(len(tokens), 1, 96, 96)
        still = {
            "flow": flow,
            "sides": flow.repeat(1, 2, 1, 1),
            "points": reference.lips.expand(len(tokens), -1, -1),
        }
        return SimpleNamespace(mouth=mouth, rgb=mouth, mask=mask, **still)


def write_bar_clip(folder: Path, name: str, speaker: str, split: str, seed: int) -> ClipEntry:
    """Write a clip with a mel of syllables and a grey face whose bar moves with the syllables."""
    num_mels = int(NUM_FRAMES * 3.2) + 1
    levels = np.random.default_rng(seed).uniform(-3, 2, 1 + num_mels // 16)
    syllables = np.repeat(levels, 16)[:num_mels]
    syllables[:16] = MEL_SILENCE
    mel = torch.from_numpy(syllables).float().expand(80, -1).half().float()
    gaps = gaps_of(mel, NUM_FRAMES)
    faces = paste_mouth(torch.full((NUM_FRAMES, 3, 256, 256), 0.6), draw_mouths(gaps), SPEC)
    images = (faces * 255).byte().permute(0, 2, 3, 1).numpy()
    data = ClipData(
        jpegs=[encode_face(image) for image in images],
        mel=mel.numpy(),
        prosody=np.zeros((3, num_mels), np.float32),
        audio=np.repeat(gaps.numpy() / 100, 640).astype(np.float32),
        mouth_opening=(gaps * 1.5 / EYE_DISTANCE_PX).numpy(),
        lips=np.zeros((NUM_FRAMES, 20, 2), np.float32),
        transforms=np.tile(np.eye(2, 3, dtype=np.float32), (NUM_FRAMES, 1, 1)),
        mean_face=images[0].transpose(2, 0, 1).copy(),
        mean_mouth=np.zeros((3, 96, 96), np.uint8),
    )
    path = f"clips/{speaker}/{name}.safetensors"
    write_clip(folder / path, data, {})
    identity = f"{speaker}/{name}"
    return ClipEntry(identity, speaker, path, NUM_FRAMES, NUM_FRAMES / 25, split, "x.mp4", "0")
