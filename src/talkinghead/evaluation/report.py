"""Scores of many clips to a summary, JSON, CSV and strips of frames."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from talkinghead.data.manifest import write_json
from talkinghead.evaluation.metrics import bootstrap_interval
from talkinghead.evaluation.score import ClipScores
from talkinghead.media.writer import atomic_path, write_image

RANK_BY = "r_own_speech"
"""The score that says which clips are the best and the worst."""


def summarise(clips: Sequence[ClipScores], groups: Mapping[str, str]) -> dict[str, Any]:
    """Means over clips with 95 % bootstrap intervals, for each group.

    Args:
        clips: the scored clips.
        groups: each clip's group, by its id.

    Returns:
        `{group: {num_clips, speakers, scores: {name: {mean, low, high, num_clips}}}}`.
    """
    summary: dict[str, Any] = {}
    for group in sorted(set(groups.values())):
        members = [clip for clip in clips if groups[clip.entry.id] == group]
        names = list(dict.fromkeys(name for clip in members for name in clip.values))
        columns = {n: np.array([c.values.get(n, math.nan) for c in members]) for n in names}
        summary[group] = {
            "num_clips": len(members),
            "speakers": sorted({clip.entry.speaker for clip in members}),
            "scores": {n: asdict(bootstrap_interval(values)) for n, values in columns.items()},
        }
    return summary


def write_report(
    output_dir: Path,
    header: Mapping[str, Any],
    clips: Sequence[ClipScores],
    groups: Mapping[str, str],
    num_strips: int,
) -> dict[str, Any]:
    """Writes scores.json, clips.csv and strips/*.png, each whole or not at all.

    Args:
        output_dir: made if it is missing.
        header: what was scored and how; goes first into the JSON.
        clips: the scored clips.
        groups: each clip's group, by its id.
        num_strips: how many of the best and of the worst clips of each group get a strip.

    Returns:
        What scores.json holds.
    """
    rows = [_row(clip, groups[clip.entry.id]) for clip in clips]
    report = _without_nan({**header, "groups": summarise(clips, groups), "clips": rows})
    write_json(output_dir / "scores.json", report)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (
        atomic_path(output_dir / "clips.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(_without_nan(rows))
    for group in set(groups.values()):
        members = [clip for clip in clips if groups[clip.entry.id] == group]
        for name, clip in _best_and_worst(members, num_strips):
            if clip.strip is not None:
                write_image(output_dir / "strips" / f"{group}_{name}.png", clip.strip)
    return report


def shed_strips(
    clips: Sequence[ClipScores], groups: Mapping[str, str], num_strips: int
) -> list[ClipScores]:
    """Forgets the strips that will not be written, so that memory does not grow with the clips."""
    kept = {
        clip.entry.id
        for group in set(groups.values())
        for _, clip in _best_and_worst(
            [c for c in clips if groups[c.entry.id] == group], num_strips
        )
    }
    return [clip if clip.entry.id in kept else replace(clip, strip=None) for clip in clips]


def _row(clip: ClipScores, group: str) -> dict[str, Any]:
    return {
        "id": clip.entry.id,
        "speaker": clip.entry.speaker,
        "split": clip.entry.split,
        "group": group,
        "other": clip.other.id if clip.other else None,
        "other_same_speaker": clip.other.speaker == clip.entry.speaker if clip.other else None,
        **clip.values,
    }


def _best_and_worst(clips: Sequence[ClipScores], count: int) -> list[tuple[str, ClipScores]]:
    """Names such as `worst1_s1-bbaf2n`; a clip that cannot be ranked counts as the worst."""

    def rank(clip: ClipScores) -> float:
        value = clip.values.get(RANK_BY, math.nan)
        return -math.inf if math.isnan(value) else value

    ranked = sorted(clips, key=rank, reverse=True)
    best = ranked[:count]
    worst = ranked[count:][::-1][:count]
    return [
        (f"{kind}{place}_{clip.entry.id.replace('/', '-')}", clip)
        for kind, chosen in (("best", best), ("worst", worst))
        for place, clip in enumerate(chosen, start=1)
    ]


def _without_nan(value: Any) -> Any:
    """NaN becomes null: JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
