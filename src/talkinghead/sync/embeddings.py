"""Embeddings of the audio and the mouth images of a clip, computed by a sync expert.

A window of S frames starts at every frame.

Shape suffixes: T video frames, N windows, D embedding width, C feature rows, M mel frames.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from talkinghead.errors import CheckpointError
from talkinghead.features.audio_features import mel_windows
from talkinghead.features.faces.alignment import as_tensor, mouth_crop
from talkinghead.models.checkpoint import load_expert
from talkinghead.models.sync_expert import SyncDiscriminator
from talkinghead.types import GENERATOR_FIELDS, AVSpec, FloatArray, UInt8Array

_CLIP_CHUNK_WINDOWS, _CHUNK_WINDOWS = 64, 25
"""Number of windows that are embedded together, from clip files and from memory."""


def load_sync_expert(path: str | Path, spec: AVSpec) -> SyncDiscriminator:
    """Load a sync expert with frozen weights; "default" is the packaged sync expert.

    Raises:
        CheckpointError: The checkpoint is missing, broken, no sync expert, or was trained for
            another AVSpec.
    """
    advice = (
        "give a checkpoint of `talkinghead train experiment=sync_expert`, or default for the "
        "packaged one, or null for none"
    )
    try:
        loaded = load_expert(path)
    except CheckpointError as error:
        raise CheckpointError(f"no sync expert: {error}; {advice}") from error
    if difference := loaded.spec.difference(spec, GENERATOR_FIELDS):
        raise CheckpointError(
            f"sync expert {path} was trained for another AVSpec ({difference}, expert first); "
            f"{advice}"
        )
    return cast(SyncDiscriminator, loaded.model)


def embed_clip(
    expert: SyncDiscriminator,
    read_faces: Callable[[int, int], UInt8Array],
    num_frames: int,
    mean_mouth: UInt8Array,
    features_CM: Tensor,
    spec: AVSpec,
) -> tuple[FloatArray, FloatArray]:
    """Embed all windows of a clip whose faces are read in chunks.

    Args:
        expert: Sync expert on the CPU, which determines the window size S.
        read_faces: Function that returns the faces of the frames [start, stop) as uint8
            [stop - start, face, face, 3] RGB; see `ClipFile.faces`.
        num_frames: Number of frames T of the clip, at least S.
        mean_mouth: Mouth region of the mean face of the clip, uint8 [3, mouth, mouth].
        features_CM: Audio features in the order of `expert.audio_encoder.input_features`.
        spec: AVSpec of the clip.

    Returns:
        Audio and video embeddings, unit vectors, each float32 [T - S + 1, D].
    """
    names = expert.audio_encoder.input_features
    mean = torch.from_numpy(mean_mouth).float() / 255.0
    num_windows = num_frames - expert.num_frames + 1
    chunks = []
    for first in range(0, num_windows, _CLIP_CHUNK_WINDOWS):
        count = min(_CLIP_CHUNK_WINDOWS, num_windows - first)
        frames = range(first, first + count + expert.num_frames - 1)
        mouths = mouth_crop(as_tensor(read_faces(frames.start, frames.stop)), spec)
        windows = mel_windows(features_CM, frames, spec.fps, spec, names)
        chunks.append(_embed(expert, mouths, windows, mean, range(count)))
    return _join(chunks)


def embed_windows(
    expert: SyncDiscriminator, mouths: Tensor, audio_windows: Tensor
) -> tuple[FloatArray, FloatArray]:
    """Embed all windows of a clip that is in memory.

    Args:
        expert: Sync expert on any device, which determines the window size S.
        mouths: Mouth images, float [T, 3, mouth, mouth] in [0, 1].
        audio_windows: Audio features of each frame, float [T, C, mel_window].

    Returns:
        Audio and video embeddings, unit vectors, each float32 [T - S + 1, D].
    """
    starts = range(len(mouths) - expert.num_frames + 1)
    mean = mouths.mean(dim=0)
    chunks = [
        _embed(expert, mouths, audio_windows, mean, starts[first : first + _CHUNK_WINDOWS])
        for first in range(0, len(starts), _CHUNK_WINDOWS)
    ]
    return _join(chunks)


@torch.inference_mode()
def _embed(
    expert: SyncDiscriminator,
    mouths: Tensor,
    audio_windows: Tensor,
    mean_mouth: Tensor,
    starts: range,
) -> tuple[Tensor, Tensor]:
    """Return the audio and video embeddings of the windows that begin at the frames `starts`."""
    device = next(expert.parameters()).device
    index = torch.tensor(starts)[:, None] + torch.arange(expert.num_frames)
    means = mean_mouth.expand(len(starts), -1, -1, -1)
    video = expert.embed_video(mouths[index].to(device), means.to(device))
    return expert.embed_audio(audio_windows[index].to(device)).cpu(), video.cpu()


def _join(chunks: list[tuple[Tensor, Tensor]]) -> tuple[FloatArray, FloatArray]:
    audio, video = zip(*chunks, strict=True)
    return torch.cat(audio).numpy(), torch.cat(video).numpy()
