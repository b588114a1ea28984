"""Measurement and correction of the audio-video offsets of prepared clips by a lip prior."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

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
from talkinghead.progress_bar import track_items
from talkinghead.sync.lip_offset import (
    LipOffset,
    LipOffsetRules,
    PredictLips,
    delay_motion,
    measure_lip_offset,
)
from talkinghead.sync.offset import SEARCH_MARGIN, Offset, shift_audio
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
    min_duration_s: float = 0.0,
) -> list[ClipResult]:
    """Measure the offset of every accepted clip, and shift or drop clips according to the rules.

    All offsets are those of the source videos: if an earlier run has shifted a clip, its predicted
    motion is delayed by that shift before the measurement. Clips that would be shorter than
    `min_duration_s` after the shift are dropped.

    Returns:
        The results with `offset`, and with a `reason` for dropped clips.
    """
    good = [result for result in results if not result.reason]
    groups = defaultdict(list)
    for result in good:
        pooled = result.num_frames / spec.fps < rules.pooled_below_s
        groups[result.task.speaker if pooled else result.task.clip_id].append(result)
    applied: dict[str, ClipResult] = {}
    for group in track_items(groups.values(), "measuring offsets"):
        pairs = [_lip_motions(result, predict_lips) for result in group]
        offset = measure_lip_offset(pairs, rules.max_offset_frames + SEARCH_MARGIN)
        for result in group:
            applied[result.task.clip_id] = _apply(result, offset, spec, rules, min_duration_s)
    return [applied.get(result.task.clip_id, result) for result in results]


def _lip_motions(result: ClipResult, predict_lips: PredictLips) -> tuple[FloatArray, FloatArray]:
    """Return the predicted and the detected lip motion of a clip, each [T, 20, 2]."""
    clip = ClipFile(result.task.clip_path)
    predicted = predict_lips(clip.audio())[: len(clip)]
    if shifted := _shifted_frames(read_metadata(result.task.clip_path)):
        predicted = delay_motion(predicted, shifted)
    return predicted, lip_motion(clip.tensor("lips"))


def _shifted_frames(metadata: Mapping[str, str] | None) -> float:
    """Return the number of frames by which an earlier run has shifted the audio of a clip."""
    return float((metadata or {}).get(_SHIFTED, "0"))


def _apply(
    result: ClipResult,
    offset: LipOffset,
    spec: AVSpec,
    rules: LipOffsetRules,
    min_duration_s: float,
) -> ClipResult:
    if not offset.is_reliable(rules):
        if rules.undetermined == "keep":
            return result
        return replace(result, reason=UNDETERMINED, detail=_describe(offset))
    if abs(offset.frames) > rules.max_offset_frames:
        return replace(result, reason="out of sync", detail=_describe(offset))
    measured = Offset(round(offset.frames, 2), round(offset.correlation, 4))
    metadata = read_metadata(result.task.clip_path) or {}
    shift = offset.frames - _shifted_frames(metadata)
    if not rules.correct or abs(shift) < _MIN_SHIFT:
        return replace(result, offset=measured)
    data = read_clip_data(result.task.clip_path)
    kept, _ = shift_audio(data.audio, len(data.jpegs), shift, spec)
    num_frames = kept.stop - kept.start
    duration_s = float(num_frames / spec.fps)
    if not num_frames or duration_s < min_duration_s:
        detail = f"{duration_s:.2f} s without its offset, {min_duration_s} s are needed"
        return replace(result, reason="too short", detail=detail)
    data = shift_clip(data, data.audio, shift, AudioFeatures(spec, STORED_FEATURES))
    metadata |= {_SHIFTED: json.dumps(offset.frames), "num_frames": str(num_frames)}
    write_clip(result.task.clip_path, data, metadata)
    return replace(result, offset=measured, num_frames=num_frames)


def _describe(offset: LipOffset) -> str:
    return (
        f"the lip prior finds an offset of {offset.frames:+.1f} frames (positive: the audio is "
        f"late) with a standard error of {offset.standard_error:.1f}, r {offset.correlation:.2f}"
    )
