"""Conversion of collated dataset items to the inputs of a model.

Shape suffixes: B samples, C feature rows, L mel frames of a segment, S video frames, K mel frames
of a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from talkinghead.data.augmentation.batch_augmentation import BatchAugmentation
from talkinghead.features.faces.alignment import masked_face, mouth_crop
from talkinghead.types import AVSpec

_AUDIO = ("mel", "mel_negative", "pseudo_label_mel")
_KEPT = ("lips", "reference_lips", "lip_points", "pseudo_label_lips", "emotion", "head_turn")


def finish_batch(
    batch: Mapping[str, Any], spec: AVSpec, augmentation: BatchAugmentation | None = None
) -> dict[str, Any]:
    """Convert a collated batch of `ClipDataset` items to the inputs of the generator.

    The computation runs on the device of the batch.

    Returns:
        - reference_face float [B, 3, face, face], mouths [B, T, 3, mouth, mouth], masked_face
          [B, T, 3, face / 2, face / 2] and mean_mouth [B, 3, mouth, mouth], in [0, 1]
        - mel, mel_negative and pseudo_label_mel float [B, W, rows, mel_window]
        - lips and pseudo_label_lips float [B, W, 20, 2]; reference_lips [B, 20, 2] and lip_points
          [B, T, 20, 2] in canonical pixels of these images
        - teacher_forced_lips and decoder_mel; see `BatchAugmentation.teacher_forcing`
        - index, clip_index, start int64 [B]; clip and speaker
        - emotion int64 [B] and head_turn float [B, T, 3], if the items have them
        - faces float [B, T, 3, face, face], only without augmentation.
    """
    rest = {name: batch[name] for name in _KEPT if name in batch}
    if augmentation is None:
        images = {name: batch[name].float() / 255.0 for name in ("reference_face", "faces")}
        images["masked_face"] = masked_face(images["faces"], spec)
        return {**images, **finish_mouths(batch, spec), **rest}
    streams = augmentation.streams(batch)
    joint = augmentation.transform(streams, spec.face_size, batch["faces"].device)
    still = streams.bernoulli(augmentation.options.still).to(joint.grid.device)
    posed = augmentation.change_pose(joint, still, streams)
    reference_face = batch["reference_face"][:, None]
    visible = torch.where(still[:, None, None, None, None], reference_face, batch["faces"])
    images = {
        "reference_face": augmentation.degrade(posed.faces(reference_face)[:, 0], streams),
        "masked_face": joint.masked_face(visible),
    }
    rest["lip_points"] = joint.points(batch["lip_points"])
    rest["reference_lips"] = posed.points(batch["reference_lips"][:, None])[:, 0]
    if "head_turn" in rest:
        rest["head_turn"] = joint.turn(rest["head_turn"])
    finished = {**images, **finish_mouths(batch, spec, augmentation), **rest}
    if augmentation.options.teacher_forced_lips > 0:
        finished |= augmentation.teacher_forcing(batch["lips"], finished, streams)
    return finished


def finish_mouths(
    batch: Mapping[str, Any], spec: AVSpec, augmentation: BatchAugmentation | None = None
) -> dict[str, Any]:
    """Convert a collated batch to the inputs of models that use only the mouth.

    Returns:
        mouths, mean_mouth, mel, mel_negative, index, clip_index, start, clip and speaker as
        described at `finish_batch`; lip_points float [B, T, 20, 2] as in the items, not warped.
    """
    images = torch.cat([batch["mean_face"][:, None], batch["faces"]], 1)
    if augmentation is None:
        images = mouth_crop(images.float() / 255.0, spec)
    else:
        streams = augmentation.streams(batch)
        images = augmentation.transform(streams, spec.face_size, images.device).mouths(images)
    return {
        "mouths": images[:, 1:],
        "mean_mouth": images[:, 0],
        "lip_points": batch["lip_points"],
        **_finish_audio(batch, spec, augmentation),
        **{name: batch[name] for name in ("index", "clip_index", "start", "clip", "speaker")},
    }


def _finish_audio(
    batch: Mapping[str, Any], spec: AVSpec, augmentation: BatchAugmentation | None
) -> dict[str, Tensor]:
    names = [name for name in _AUDIO if name in batch]
    segments = torch.cat([batch[name] for name in names], -1)
    if augmentation is not None:
        segments = augmentation.audio(segments, augmentation.streams(batch, audio=True))
    starts = dict.fromkeys(names, batch["window_starts"])
    if "pseudo_label_mel" in starts:
        starts["pseudo_label_mel"] = batch["pseudo_label_starts"]
    window = torch.arange(spec.mel_window, device=segments.device)
    samples = torch.arange(len(segments), device=segments.device)[:, None, None]
    windows = {}
    for name, features_BCL in zip(names, segments.chunk(len(names), -1), strict=True):
        index_BSK = starts[name][:, :, None] + window
        windows_BSKC = features_BCL.transpose(1, 2)[samples, index_BSK]
        windows[name] = windows_BSKC.transpose(2, 3).contiguous()
    return windows
