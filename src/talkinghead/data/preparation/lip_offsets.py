"""Measurement and correction of the audio-video offsets of prepared clips by a lip prior."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from rich.progress import track

from talkinghead.data.clip_file import (
    STORED_FEATURES,
    ClipFile,
    read_clip_data,
    read_metadata,
    write_clip,
)
from talkinghead.data.preparation.clip_maker import ClipResult, shift_clip
from talkinghead.features.audio_features import AudioFeatures
from talkinghead.features.faces.alignment import lip_motion
from talkinghead.sync.lip_offset import LipOffset, LipOffsetRules, PredictLips, measure_lip_offset
from talkinghead.sync.offset import SEARCH_MARGIN, Offset
from talkinghead.types import AVSpec, FloatArray

UNDETERMINED = "undetermined offset"
"""Reason of clips that are dropped because their offset is not reliable."""

_SHIFTED = "shifted_frames"
# Smaller offsets are not corrected, as they are within the error of the measurement.
_MIN_SHIFT = 0.25


def apply_lip_offsets(
    results: Sequence[ClipResult],
    spec: AVSpec,
    rules: LipOffsetRules,
    predict_lips: PredictLips,
) -> list[ClipResult]:
    """Measure the offset of every accepted clip, and shift or drop clips according to the rules.

    Returns:
        The results with `offset`, and with a `reason` for dropped clips. The offset of a clip that
        an earlier run has shifted includes that shift.
    """
    good = [result for result in results if not result.reason]
    groups = defaultdict(list)
    for result in good:
        pooled = result.num_frames / spec.fps < rules.pooled_below_s
        groups[result.task.speaker if pooled else result.task.clip_id].append(result)
    applied: dict[str, ClipResult] = {}
    for group in track(groups.values(), "measuring offsets"):
        pairs = [_lip_motions(result, predict_lips) for result in group]
        offset = measure_lip_offset(pairs, rules.max_offset_frames + SEARCH_MARGIN)
        for result in group:
            applied[result.task.clip_id] = _apply(result, offset, spec, rules)
    return [applied.get(result.task.clip_id, result) for result in results]


def _lip_motions(result: ClipResult, predict_lips: PredictLips) -> tuple[FloatArray, FloatArray]:
    """Return the predicted and the detected lip motion of a clip, each [T, 20, 2]."""
    clip = ClipFile(result.task.clip_path)
    samples = clip.tensor("audio").astype(np.float32) / np.float32(32767)
    return predict_lips(samples)[: len(clip)], lip_motion(clip.tensor("lips"))


def _apply(
    result: ClipResult, offset: LipOffset, spec: AVSpec, rules: LipOffsetRules
) -> ClipResult:
    metadata = read_metadata(result.task.clip_path) or {}
    shifted = float(metadata.get(_SHIFTED, "0"))
    if not offset.is_reliable(rules):
        if rules.undetermined == "keep":
            return result
        return replace(result, reason=UNDETERMINED, detail=_describe(offset))
    total = shifted + offset.frames
    if abs(total) > rules.max_offset_frames:
        return replace(result, reason="out of sync", detail=_describe(offset))
    measured = Offset(round(total, 2), round(offset.correlation, 4))
    if not rules.correct or abs(offset.frames) < _MIN_SHIFT:
        return replace(result, offset=measured)
    data = read_clip_data(result.task.clip_path)
    data = shift_clip(data, data.audio, offset.frames, AudioFeatures(spec, STORED_FEATURES))
    num_frames = len(data.jpegs)
    metadata |= {_SHIFTED: json.dumps(total), "num_frames": str(num_frames)}
    write_clip(result.task.clip_path, data, metadata)
    return replace(result, offset=measured, num_frames=num_frames)


def _describe(offset: LipOffset) -> str:
    return (
        f"the lip prior finds an offset of {offset.frames:+.1f} frames (positive: the audio is "
        f"late) with a standard error of {offset.standard_error:.1f}, r {offset.correlation:.2f}"
    )
