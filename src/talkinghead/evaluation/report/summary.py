"""Scores of many clips to a summary, JSON, CSV, strips of frames and one page to look at."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from talkinghead.data.manifest import write_json
from talkinghead.evaluation.metrics import Interval, bootstrap_interval, paired_difference
from talkinghead.evaluation.report.clip_visuals import ClipVisuals
from talkinghead.evaluation.report.page import render_page
from talkinghead.evaluation.report.score_catalogue import CATALOGUE
from talkinghead.evaluation.scorers.fid import frechet_distance
from talkinghead.media.writer import atomic_path, write_image
from talkinghead.types import FloatArray

RANK_BY = "r_own_speech"
"""The score that says which clips are the best and the worst."""


@dataclass(frozen=True)
class Scored:
    """One clip's scores in one column of the report: a group of speakers, or a system.

    `facts` are further columns of clips.csv; `values` the scores by the names in docs/metrics.md;
    `features` the generated and the real frames' for FID, each float32 [n, D].
    """

    clip: str
    column: str
    facts: dict[str, Any]
    values: dict[str, float]
    visuals: ClipVisuals | None = None
    features: tuple[FloatArray, FloatArray] | None = None


@dataclass(frozen=True)
class Report:
    """What `write` puts into files.

    Attributes:
        kind: what the columns are, "groups" or "systems". Systems have the same clips, so their
            differences are given, clip by clip.
        header: what was scored and how; goes first into the JSON.
        clips: the scored clips.
        fps: of the visuals.
        reference_column: the column that is no system.
        verdict: a sentence at the head of the page, and whether it is good news.
    """

    kind: str
    header: Mapping[str, Any]
    clips: Sequence[Scored]
    fps: Fraction
    reference_column: str | None = None
    verdict: tuple[str, bool] | None = None
    columns: list[str] = field(init=False)

    def __post_init__(self) -> None:
        columns = list(dict.fromkeys(clip.column for clip in self.clips))
        ordered = columns if self.kind == "systems" else sorted(columns)
        object.__setattr__(self, "columns", ordered)

    @property
    def _systems(self) -> list[str]:
        """Whom clip by clip comparison is fair to: none where the columns have other clips."""
        if self.kind != "systems":
            return []
        return [column for column in self.columns if column != self.reference_column]

    def content(self) -> dict[str, Any]:
        """What scores.json holds; NaN is null, for JSON knows no NaN."""
        content: dict[str, Any] = {**self.header, self.kind: summarise(self.clips, self.columns)}
        if self.kind == "systems":
            content["differences"] = differences(self.clips, self._systems)
        rows = [
            {"id": c.clip, self.kind.rstrip("s"): c.column, **c.facts, **c.values}
            for c in self.clips
        ]
        cleaned: dict[str, Any] = without_nan({**content, "clips": rows})
        return cleaned

    def write(self, output_dir: Path, num_strips: int) -> dict[str, Any]:
        """Writes scores.json, clips.csv, strips/*.png and report.html, each whole or not at all.

        Args:
            output_dir: made if it is missing.
            num_strips: how many of each column's best and worst clips are shown.

        Returns:
            What scores.json holds.

        Raises:
            MediaError: a file cannot be written.
        """
        content = self.content()
        write_json(output_dir / "scores.json", content)
        _write_table(output_dir / "clips.csv", content["clips"])
        visuals = self.visuals(num_strips)
        for name, clip in visuals:
            assert clip.visuals is not None
            file_name = f"{clip.column}_{name}".replace("/", "-")
            write_image(output_dir / "strips" / f"{file_name}.png", clip.visuals.strip)
        page = render_page(self, content, visuals, winners(self.clips, self._systems))
        with atomic_path(output_dir / "report.html") as temporary:
            temporary.write_text(page, encoding="utf-8")
        return content

    def visuals(self, num_strips: int) -> list[tuple[str, Scored]]:
        """The best and the worst clips of each column that have something to show, by name."""
        return [
            (name, clip)
            for column in self.columns
            for name, clip in _best_and_worst(self.clips, column, num_strips)
            if clip.visuals is not None
        ]


def summarise(clips: Sequence[Scored], columns: Sequence[str]) -> dict[str, Any]:
    """Means over clips with 95 % bootstrap intervals, for each column.

    Args:
        clips: the scored clips.
        columns: in the order wanted.

    Returns:
        `{column: {num_clips, [speakers], scores: {name: {mean, low, high, num_clips}}}}`. FID is
        one figure of all frames, and has no interval.
    """
    summary: dict[str, Any] = {}
    for column in columns:
        members = [clip for clip in clips if clip.column == column]
        names = list(dict.fromkeys(name for clip in members for name in clip.values))
        values = {n: np.array([c.values.get(n, math.nan) for c in members]) for n in names}
        scores = {n: asdict(bootstrap_interval(v)) for n, v in values.items()}
        pairs = [clip.features for clip in members if clip.features is not None]
        if pairs:
            ours, real = (np.concatenate(side) for side in zip(*pairs, strict=True))
            fid = Interval(frechet_distance(ours, real), math.nan, math.nan, len(pairs))
            scores["fid"] = asdict(fid)
        speakers = sorted({clip.facts["speaker"] for clip in members if "speaker" in clip.facts})
        summary[column] = {
            "num_clips": len(members),
            **({"speakers": speakers} if speakers else {}),
            "scores": scores,
        }
    return summary


def differences(clips: Sequence[Scored], systems: Sequence[str]) -> dict[str, Any]:
    """Each pair of systems, score by score, on the clips that both have.

    Returns:
        `{"a - b": {name: {mean, low, high, num_clips, differs}}}`: `differs` where the interval
        leaves out 0, and there are clips enough.
    """
    found: dict[str, Any] = {}
    for first, second in combinations(systems, 2):
        names = list(dict.fromkeys(n for clip in clips for n in clip.values))
        pairs = {}
        for name in names:
            interval = paired_difference(*paired_values(clips, first, second, name))
            pairs[name] = {**asdict(interval), "differs": interval.leaves_out_zero}
        found[f"{first} - {second}"] = pairs
    return found


def winners(clips: Sequence[Scored], systems: Sequence[str]) -> dict[str, str]:
    """For each score the system that is better than every other one beyond its interval."""
    best: dict[str, str] = {}
    for name, info in CATALOGUE.items():
        for system in systems if info.better else ():
            rivals = [other for other in systems if other != system]
            pairs = (paired_values(clips, system, other, name) for other in rivals)
            leads = [paired_difference(info.badness(a), info.badness(b)) for a, b in pairs]
            if leads and all(lead.leaves_out_zero and lead.high < 0 for lead in leads):
                best[name] = system
    return best


def paired_values(
    clips: Sequence[Scored], first: str, second: str, name: str
) -> tuple[FloatArray, FloatArray]:
    """A score of two columns on the clips that both have: float [num_clips] each."""
    ours, theirs = (
        {clip.clip: clip.values.get(name, math.nan) for clip in clips if clip.column == column}
        for column in (first, second)
    )
    common = [clip for clip in ours if clip in theirs]
    return np.array([ours[c] for c in common]), np.array([theirs[c] for c in common])


def drop_unused_visuals(clips: Sequence[Scored], num_strips: int) -> list[Scored]:
    """Forgets what will not be shown, so that memory does not grow with the clips."""
    kept = {
        (clip.column, clip.clip)
        for column in {clip.column for clip in clips}
        for _, clip in _best_and_worst(clips, column, num_strips)
    }
    return [
        clip if (clip.column, clip.clip) in kept else replace(clip, visuals=None) for clip in clips
    ]


def without_nan(value: Any) -> Any:
    """NaN becomes null: JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _best_and_worst(clips: Sequence[Scored], column: str, count: int) -> list[tuple[str, Scored]]:
    """Names such as `worst1_s1-bbaf2n`; a clip that cannot be ranked counts as the worst."""

    def rank(clip: Scored) -> float:
        value = clip.values.get(RANK_BY, math.nan)
        return -math.inf if math.isnan(value) else value

    ranked = sorted((c for c in clips if c.column == column), key=rank, reverse=True)
    best = ranked[:count]
    worst = ranked[count:][::-1][:count]
    return [
        (f"{kind}{place}_{clip.clip.replace('/', '-')}", clip)
        for kind, chosen in (("best", best), ("worst", worst))
        for place, clip in enumerate(chosen, start=1)
    ]
