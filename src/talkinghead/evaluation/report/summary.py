"""Summary of an evaluation: means, differences between systems, and the report files."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from talkinghead.data.manifest import write_json
from talkinghead.evaluation.metrics import Interval, bootstrap_interval
from talkinghead.evaluation.report.overview import format_overview
from talkinghead.evaluation.report.page import render_page
from talkinghead.evaluation.report.results import RANK_BY, ClipResult, Report
from talkinghead.evaluation.report.score_catalogue import CATALOGUE
from talkinghead.evaluation.scorers.image_scorers import frechet_distance
from talkinghead.media.atomic_file import atomic_path
from talkinghead.media.writer import write_image
from talkinghead.types import FloatArray

logger = logging.getLogger(__name__)

PAGE_NAME = "report.html"


def write_report(report: Report, output_dir: Path, num_strips: int) -> dict[str, Any]:
    """Write scores.json, clips.csv, strips/*.png and report.html, each atomically.

    `num_strips` is the number of best clips and of worst clips that are shown per column.

    Returns:
        The content of scores.json; NaN becomes None.

    Raises:
        MediaError: a file cannot be written.
    """
    content: dict[str, Any] = {**report.header, report.kind: summarise(report)}
    if report.parts:
        content[f"by_{report.table_by}"] = {
            part: summarise(
                replace(report, clips=[c for c in report.clips if c.facts[report.table_by] == part])
            )
            for part in report.parts
        }
    if report.kind == "systems":
        content["differences"] = differences(report.clips, report.systems)
    content["clips"] = [
        {"id": c.clip, report.kind.rstrip("s"): c.column, **c.facts, **c.values}
        for c in report.clips
    ]
    content = json.loads(json.dumps(content, default=os.fspath), parse_constant=lambda _: None)
    write_json(output_dir / "scores.json", content)
    _write_table(output_dir / "clips.csv", content["clips"])
    shown = [
        entry
        for column in report.columns
        for entry in _best_and_worst(report.clips, column, num_strips)
        if entry[1].visuals is not None
    ]
    for rank, clip in shown:
        assert clip.visuals is not None
        name = f"{clip.column}_{rank.replace(' ', '')}_{clip.clip}".replace("/", "-")
        write_image(output_dir / "strips" / f"{name}.png", clip.visuals.strip)
    page = render_page(report, content, shown, winners(report.clips, report.systems))
    with atomic_path(output_dir / PAGE_NAME) as temporary:
        temporary.write_text(page, encoding="utf-8")
    logger.info("%s", format_overview(report, content))
    logger.info("report: %s", output_dir / PAGE_NAME)
    return content


def summarise(report: Report) -> dict[str, Any]:
    """Return the means over clips with 95 % bootstrap intervals for each column.

    The entries are `{num_clips, [speakers], scores: {name: {mean, low, high, num_clips}}}`. FID is
    computed over the frames of all clips and has no interval.
    """
    summary: dict[str, Any] = {}
    for column in report.columns:
        members = [clip for clip in report.clips if clip.column == column]
        names = dict.fromkeys(name for clip in members for name in clip.values)
        values = {n: np.array([c.values.get(n, math.nan) for c in members]) for n in names}
        scores = {n: asdict(bootstrap_interval(v)) for n, v in values.items()}
        pairs = [clip.features for clip in members if clip.features is not None]
        if pairs:
            ours, real = (np.concatenate(side) for side in zip(*pairs, strict=True))
            fid = Interval(frechet_distance(ours, real), math.nan, math.nan, len(pairs))
            scores["fid"] = asdict(fid)
        summary[column] = {"num_clips": len(members), "scores": scores}
        if speakers := {clip.facts["speaker"] for clip in members if "speaker" in clip.facts}:
            summary[column]["speakers"] = sorted(speakers)
    return summary


def differences(clips: Sequence[ClipResult], systems: Sequence[str]) -> dict[str, Any]:
    """Return the differences of the scores of each pair of systems on their common clips.

    Scores differ more between clips than between systems, so systems are compared clip by clip.

    Returns:
        `{"a - b": {name: {mean, low, high, num_clips, differs}}}`; `differs` is true if the
        interval excludes 0 and there are enough clips.
    """
    found: dict[str, Any] = {}
    for first, second in combinations(systems, 2):
        pairs = found[f"{first} - {second}"] = {}
        for name in dict.fromkeys(n for clip in clips for n in clip.values):
            interval = bootstrap_interval(np.subtract(*paired_values(clips, first, second, name)))
            pairs[name] = {**asdict(interval), "differs": interval.excludes_zero}
    return found


def winners(clips: Sequence[ClipResult], systems: Sequence[str]) -> dict[str, str]:
    """Return, for each score, the system that is significantly better than all other systems."""
    best: dict[str, str] = {}
    for name, info in CATALOGUE.items():
        for system in systems if info.better else ():
            rivals = [other for other in systems if other != system]
            pairs = (paired_values(clips, system, other, name) for other in rivals)
            leads = [bootstrap_interval(info.badness(a) - info.badness(b)) for a, b in pairs]
            if leads and all(lead.excludes_zero and lead.high < 0 for lead in leads):
                best[name] = system
    return best


def paired_values(
    clips: Sequence[ClipResult], first: str, second: str, name: str
) -> tuple[FloatArray, FloatArray]:
    """Return the values of a score for two columns on their common clips, float [num_clips]."""
    ours, theirs = (
        {clip.clip: clip.values.get(name, math.nan) for clip in clips if clip.column == column}
        for column in (first, second)
    )
    common = [clip for clip in ours if clip in theirs]
    return np.array([ours[c] for c in common]), np.array([theirs[c] for c in common])


def drop_unused_visuals(clips: Sequence[ClipResult], num_strips: int) -> list[ClipResult]:
    """Drop visuals that the page will not show, to bound memory use."""
    kept = {
        id(clip)
        for column in {clip.column for clip in clips}
        for _, clip in _best_and_worst(clips, column, num_strips)
    }
    return [clip if id(clip) in kept else replace(clip, visuals=None) for clip in clips]


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def _best_and_worst(
    clips: Sequence[ClipResult], column: str, count: int
) -> list[tuple[str, ClipResult]]:
    """Return the best and the worst clips, with ranks such as "worst 1".

    Clips without a value of the ranking score rank last.
    """

    def score(clip: ClipResult) -> float:
        value = clip.values.get(RANK_BY, math.nan)
        return -math.inf if math.isnan(value) else value

    ranked = sorted((c for c in clips if c.column == column), key=score, reverse=True)
    return [
        (f"{kind} {place}", clip)
        for kind, chosen in (("best", ranked[:count]), ("worst", ranked[count:][::-1][:count]))
        for place, clip in enumerate(chosen, start=1)
    ]
